"""Proves whose work it did: an answer that fits one job, one attempt and one input only."""

import hashlib
import json
from threading import Event

TICK = 0.02


def proof(job_id, attempt, inputs, code):
    """Return what a right result of this job looks like; `code` names the code that ran."""
    body = json.dumps(inputs, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    sha256 = hashlib.sha256(body).hexdigest()
    return {"job_id": job_id, "attempt": attempt, "sha256": sha256, "code": code}


def run(ctx, **inputs):
    """Wait `seconds` in ticks of 20 ms, and prove it."""
    return _work(ctx, inputs, "1.0.0")


def newer(ctx, **inputs):
    """Do the same, as the next release of the service does it."""
    return _work(ctx, inputs, "1.1.0")


def _work(ctx, inputs, code):
    for _ in range(int(inputs["seconds"] / TICK)):
        ctx.check()
        Event().wait(TICK)
    return proof(ctx.job_id, ctx.attempt, inputs, code)
