"""Takes its time in short waits, each of which is a checkpoint."""

from threading import Event

from runner import Service

TICK = 0.02


class Slow(Service):
    """Waits `seconds` in ticks of 20 ms."""

    def __call__(self, ctx, seconds):
        ticks = int(seconds / TICK) + 1
        with ctx.step("wait") as step:
            return {"done": sum(not Event().wait(TICK) for _ in step.track(range(ticks)))}
