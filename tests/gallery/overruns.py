"""Takes longer than its manifest allows."""

import time
from threading import Event


def run(ctx, seconds, deaf):
    """Waits `seconds` in ticks of 20 ms, each a checkpoint unless it is `deaf` to them."""
    end, done = time.monotonic() + seconds, 0
    with ctx.step("wait") as step:
        while time.monotonic() < end:
            done += not Event().wait(0.02)
            if not deaf:
                step.progress(done)
    return {"done": done}
