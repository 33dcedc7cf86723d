"""End the jobs that have not ended at their deadline, wherever they are."""

from __future__ import annotations

from runner.errors import DeadlineExceeded
from runner.orchestrator.dispatch import Dispatcher
from runner.orchestrator.jobs import Job

LOOK = 1.0
"""Seconds between two looks, and so the most by which a job outlives its deadline."""

WHERE = {
    "request": "`Cancel-After` of its request",
    "manifest": "`limits.deadline` of the manifest",
}


class Deadlines:
    """Keeps the clock of whole jobs for a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def run(self) -> None:
        """Look every second, until cancelled."""
        await self._dispatcher.forever(self.look, LOOK)

    async def look(self) -> None:
        """Look once; the worker of a job that runs finds out and stops at its next checkpoint."""
        now = self._dispatcher.clock()
        for job in await self._dispatcher.store.past_deadline(now):
            await self._dispatcher.end(job, exceeded(job, now))


def exceeded(job: Job, now: float) -> DeadlineExceeded:
    """Say which clock ran out, with its value, where it was set and where the time went."""
    allowed = (job.deadline_at or now) - job.created_at
    began = job.started_at or now
    waited, ran = began - job.created_at, now - began
    what = "and never ran" if job.started_at is None else f"and ran {ran:.1f} s"
    if job.attempt > 1:
        what = f"and in {job.attempt - 1} attempts before, then ran {ran:.1f} s"
    return DeadlineExceeded(
        f"The job had not ended {allowed:g} s after it was accepted, as "
        f"{WHERE.get(job.deadline_from or '', 'its deadline')} asks; it spent {waited:.1f} s in "
        f"the queue {what}, in attempt {job.attempt} of {job.attempts}.",
        clock="deadline", seconds=round(allowed, 3), set_by=job.deadline_from,
        waited_seconds=round(waited, 1), ran_seconds=round(ran, 1),
    )  # fmt: skip
