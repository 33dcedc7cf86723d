"""Works in three steps that the manifest weighs 1, 8 and 1."""

from runner import Service


class Counter(Service):
    """Counts the words of each document."""

    def __call__(self, ctx, documents):
        with ctx.step("read") as step:
            texts = [text.split() for text in step.track(documents)]
        with ctx.step("count") as step:
            words = [len(text) for text in step.track(texts)]
        with ctx.step("write"):
            return {"words": words}
