"""A keyword service as small as can be, for what speaks LinTO."""

import time
from collections import Counter


def run(ctx, documents, language, top_n, min_count, method, pause):
    """Count words; `fails` fails, and `pause` is slept through before each document, in seconds."""
    if method == "fails":
        raise RuntimeError("asked to fail")
    answers = []
    with ctx.step("count") as step:
        for document in step.track(documents):
            until = time.monotonic() + pause
            while time.monotonic() < until:
                ctx.check()
                time.sleep(0.01)
            counts = Counter(document.split()).most_common(top_n)
            kept = [{"text": word, "score": n} for word, n in counts if n > min_count]
            answers.append({"keywords": kept})
    return {"documents": answers}
