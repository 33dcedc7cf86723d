"""Find what got lost on the way, and move it again or end it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter

from runner.errors import Expired, JobFinished, JobUnknown, WorkerLost
from runner.orchestrator.dispatch import Dispatcher
from runner.orchestrator.jobs import Job
from runner.wire import LEASE

log = logging.getLogger(__name__)

REPAIR = 5.0
"""Seconds between two looks for what got lost."""

ABANDONED = 10.0
"""Seconds after which results that another orchestrator read are taken over."""

GONE = 3600.0
"""Seconds after which an orchestrator that reads no results, and holds none, is forgotten."""


class Repair:
    """Looks after the jobs of a dispatcher that no event would move any more."""

    def __init__(self, dispatcher: Dispatcher, gone: float = GONE) -> None:
        self._dispatcher, self._gone = dispatcher, gone
        self._missing: set[tuple[str, int]] = set()
        self._silent: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        await self._dispatcher.forever(self.look, REPAIR)

    async def look(self) -> None:
        """Look once for jobs that no one would move any more.

        A message or a worker is taken for lost when two looks in a row have missed it.
        """
        now = self._dispatcher.clock()
        while abandoned := await self._dispatcher.wire.abandoned(
            self._dispatcher.consumer, idle=ABANDONED
        ):
            await self._dispatcher.take(abandoned)
        await self._expire(now)
        await self._find_missing(now)
        await self._find_silent(now)
        await self._dispatcher.wire.dismiss(idle=self._gone)

    async def _expire(self, now: float) -> None:
        overdue = await self._dispatcher.store.overdue(now)
        leases = await self._dispatcher.wire.leased([job.id for job in overdue])
        for job, leased in zip(overdue, leases, strict=True):
            if leased:  # it has just started
                continue
            await self._dispatcher.end(job, expired(job, now))

    async def _find_missing(self, now: float) -> None:
        """Send again what Redis no longer holds: its message is neither queued nor at a worker.

        So is what lies in the queue of a manifest that another one is served instead of.
        """
        sent = await self._dispatcher.store.dispatched(now - REPAIR)
        held: set[tuple[str, int]] = set()
        for service, digest in {(job.service, job.manifest_digest) for job in sent}:
            if self._dispatcher.instead(service, digest) is None:
                held |= await asyncio.to_thread(self._dispatcher.producer.pending, service, digest)
        leases = await self._dispatcher.wire.leased([job.id for job in sent])
        missing: set[tuple[str, int]] = set()
        for job, leased in zip(sent, leases, strict=True):
            if job.cancel_requested_at is not None:
                with contextlib.suppress(JobFinished, JobUnknown):
                    await self._dispatcher.cancel(job.id, job.cancel_actor or "")
            elif not leased and (job.id, job.attempt) not in held:
                missing.add((job.id, job.attempt))
        again = missing & self._missing
        self._missing = missing - again
        if again:
            lost = [job for job in sent if (job.id, job.attempt) in again]
            for service, count in sorted(Counter(job.service for job in lost).items()):
                what, them = ("message", "it") if count == 1 else ("messages", "them")
                was = "was" if count == 1 else "were"
                log.warning("%s: %d %s %s lost or stranded; sending %s again",
                            service, count, what, was, them)  # fmt: skip
            await self._withdraw(lost)
            await self._dispatcher.release(sorted(again))

    async def _withdraw(self, jobs: list[Job]) -> None:
        """Take the messages of these jobs out of their queues, where they still are."""
        queues: dict[tuple[str, str], set[tuple[str, int]]] = {}
        for job in jobs:
            queue = queues.setdefault((job.service, job.manifest_digest), set())
            queue.add((job.id, job.attempt))
        for (service, digest), ids in queues.items():
            await asyncio.to_thread(self._dispatcher.producer.withdraw, service, digest, ids)

    async def _find_silent(self, now: float) -> None:
        """End the attempts of workers that keep no lease any more: they are dead or cut off."""
        running = await self._dispatcher.store.running()
        leases = await self._dispatcher.wire.leased([job.id for job in running])
        silent: set[tuple[str, int]] = set()
        for job, leased in zip(running, leases, strict=True):
            if leased:
                if job.cancel_requested_at is not None:
                    await self._dispatcher.wire.cancel(job.id, job.cancel_actor or "")
            elif now - (job.started_at or now) > LEASE:
                silent.add((job.id, job.attempt))
        for job in running:
            if (job.id, job.attempt) in silent & self._silent:
                about = {"about": job.about}
                log.warning("job %s: worker %s fell silent", job.id, job.worker, extra=about)
                await self._dispatcher.end(job, WorkerLost(
                    f"The worker {job.worker} died or was cut off while it ran attempt "
                    f"{job.attempt} of {job.attempts}."))  # fmt: skip
        self._silent = silent


def expired(job: Job, now: float) -> Expired:
    """Say which clock ran out, with its value, where it was set and where the time went."""
    waited = now - job.available_at
    allowed = (job.queue_deadline_at or now) - job.available_at
    where = "for its worker's turn" if job.dispatched_at else "for a free worker"
    return Expired(
        f"The job waited {waited:.0f} s {where} to begin attempt {job.attempt} of {job.attempts}; "
        f"`limits.queue_timeout` of the manifest allows {allowed:.0f} s.",
        clock="queue_timeout", seconds=round(allowed, 3), set_by="manifest",
        waited_seconds=round(waited, 1),
    )  # fmt: skip
