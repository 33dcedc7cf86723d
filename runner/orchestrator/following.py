"""Those who follow jobs: wait for their end, hear their story, see where they stand."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import redis

from runner.errors import Canceled, JobUnknown
from runner.events import Succeeded
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.jobs import Job
from runner.orchestrator.resource import composite_resource, job_resource
from runner.orchestrator.store import Store
from runner.orchestrator.wire import OrchestratorWire, Result
from runner.stream import event_data

STORIES = 100
"""Events of a composite job's parts that may wait for a slow reader."""

POLL = 1.0
"""Seconds between two looks at the store when nothing has been heard."""

SOON = 0.05
"""Seconds before the first of them, for an end that was told before anybody listened."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who waits for a job; `ended` is the job where its end was committed here.

    `outputs` are those that were read here (packed), by attempt; the first of an attempt counts.
    """

    woken: asyncio.Event = field(default_factory=asyncio.Event)
    ended: Job | None = None
    outputs: dict[int, bytes] = field(default_factory=dict)

    @property
    def output(self) -> bytes | None:
        """The output with which the job has ended, if both were heard here."""
        job = self.ended
        return self.outputs.get(job.attempt) if job and job.status == "succeeded" else None


class Following:
    """Answers for jobs as they are, and wakes those who wait for one."""

    def __init__(
        self, store: Store, wire: OrchestratorWire, catalog: Catalog, clock: Callable[[], float]
    ) -> None:
        self._store, self._wire, self._catalog, self._clock = store, wire, catalog, clock
        self.waiters: dict[str, set[_Waiter]] = {}
        self._seconds: dict[str, float] = {}

    async def job(self, job_id: str) -> Job:
        """Return a job; raises `JobUnknown`."""
        # No database looks up a NUL, and nothing else of that kind is in an id of ours.
        job = await self._store.get(job_id) if job_id.isprintable() else None
        if job is None:
            raise JobUnknown(f"There is no job `{job_id[:60]}`.")
        return job

    async def wait(self, job: Job, seconds: float) -> tuple[Job, bytes | None]:
        """Return the job once it has finished, or as it stands after `seconds`.

        Whoever committed its end hands it over, with its output (packed), if that is one of us.
        """
        waiter = _Waiter()
        self.waiters.setdefault(job.id, set()).add(waiter)
        deadline, pause = time.monotonic() + seconds, SOON
        try:
            while not job.finished and (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiter.woken.wait(), min(left, pause))
                waiter.woken.clear()
                job = waiter.ended or await self.job(job.id)
                pause = POLL
            return job, waiter.output
        finally:
            self.waiters[job.id].discard(waiter)
            if not self.waiters[job.id]:
                del self.waiters[job.id]

    async def resource(self, job: Job) -> dict[str, Any]:
        """Return a job as its callers see it, with its live progress or its place in the queue."""
        if job.composite:
            parts = await self._store.parts(job.id)
            return composite_resource(
                job, {str(part.part): await self.resource(part) for part in parts}
            )
        if job.status == "running":
            progress = None
            with contextlib.suppress(redis.RedisError):
                progress = await self._wire.progress(job.id)
            return job_resource(job, progress=progress)
        if job.status == "queued":
            position, eta = await self.outlook(job)
            return job_resource(job, position=position, eta_seconds=eta)
        return job_resource(job)

    async def follow(self, job: Job, after: str) -> AsyncIterator[tuple[str | None, str, Any]]:
        """Yield (id, event, data) of a job's story until its `completed`; replays from `after`.

        The story of a composite job is that of its parts, each event with the name of its `part`.
        """
        if job.composite:
            async for told in self._follow_parts(job):
                yield told
            return
        yield None, "status", {"data": await self.resource(job)}
        last = after
        while True:
            try:
                async for entry in self._wire.follow(job.id, last, block=POLL):
                    if entry is None:
                        break
                    last, event = entry
                    yield last, event["event"], event
                    if event["event"] == "completed":
                        return
            except redis.RedisError:
                await asyncio.sleep(POLL)
            current = await self._store.get(job.id) or _erased(job, self._clock())
            if current.finished:
                yield None, "completed", {"data": job_resource(current)}
                return

    async def _follow_parts(self, job: Job) -> AsyncIterator[tuple[str | None, str, Any]]:
        """Yield what happens to all parts as it comes, each told from its beginning."""
        yield None, "status", {"data": await self.resource(job)}
        events: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue(STORIES)

        async def listen(part: Job) -> None:
            async for _, name, event in self.follow(part, "0"):
                name = "part_completed" if name == "completed" else name
                await events.put((name, {"data": {**told(event), "part": part.part}}))

        async def all_of(parts: list[Job]) -> None:
            try:
                await asyncio.gather(*map(listen, parts))
            finally:
                await events.put(None)

        listening = asyncio.create_task(all_of(await self._store.parts(job.id)))
        try:
            while (event := await events.get()) is not None:
                yield None, *event
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
        final = await self._store.get(job.id) or _erased(job, self._clock())
        yield None, "completed", {"data": await self.resource(final)}

    def hand_over(self, results: Iterable[Result]) -> None:
        """Give outputs to those who wait for them; they take one only of a job that is told too."""
        for result in results:
            if isinstance(result.event, Succeeded) and result.output is not None:
                for waiter in self.waiters.get(result.event.job, ()):
                    waiter.outputs.setdefault(result.event.attempt, result.output)

    def wake(self, job_id: str, ended: Job | None = None) -> None:
        """Wake whoever waits for this job, with the job as it ended where that is known here."""
        for waiter in self.waiters.get(job_id, ()):
            waiter.ended = waiter.ended or ended
            waiter.woken.set()

    def learn_speed(self, job: Job) -> None:
        """Take in how long a job ran, for the estimates of those that wait."""
        if job.status == "succeeded" and job.started_at and job.finished_at:
            seconds = job.finished_at - job.started_at
            known = self._seconds.get(job.service, seconds)
            self._seconds[job.service] = 0.8 * known + 0.2 * seconds

    async def mean_seconds(self, service: str) -> float | None:
        """Return how long jobs of a service ran lately, if any did."""
        if service not in self._seconds:
            known = await self._store.mean_seconds(service)
            if known is not None:
                self._seconds.setdefault(service, known)
        return self._seconds.get(service)

    async def outlook(self, job: Job, more: int = 0) -> tuple[int, float | None]:
        """Return how many queued jobs stand before this one, and in how many seconds it may end.

        `more` jobs that are not kept yet come before it too. The running ones are taken to be
        halfway, and there is no estimate before the first success of the service.
        """
        before, running = await self._store.ahead(job)
        mean = await self.mean_seconds(job.service)
        return before, self._eta(job, before + more, running, mean)

    async def resources(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Return jobs of one service as their callers see them, with one look at the queue."""
        queued = [job for job in jobs if job.status == "queued"]
        if not queued:
            return [await self.resource(job) for job in jobs]
        before, running = await self._store.ahead(queued[0])
        mean = await self.mean_seconds(queued[0].service)
        places = {job.id: before + place for place, job in enumerate(queued)}
        return [
            job_resource(
                job, position=places[job.id],
                eta_seconds=self._eta(job, places[job.id], running, mean),
            ) if job.id in places else await self.resource(job)
            for job in jobs
        ]  # fmt: skip

    def _eta(self, job: Job, before: int, running: int, mean: float | None) -> float | None:
        if mean is None:
            return None
        slots = max(1, self._catalog.slots(job.manifest_digest))
        ends = max(0.0, before + running - slots + 0.5)  # before a slot is free for it
        pause = max(0.0, job.available_at - self._clock())
        return max(pause, ends * mean / slots) + mean


def told(event: Any) -> Any:
    """Return what followers see: our own stories carry their data, workers' events are it."""
    return event["data"] if "data" in event else event_data(event)


def _erased(job: Job, now: float) -> Job:
    """Return a job that is no longer there as its followers see its end."""
    if job.finished:
        return job
    gone = Canceled("The job was erased.")
    return replace(
        job, status="canceled", reason=gone.code, error=gone.to_problem(), finished_at=now,
        updated_at=now,
    )  # fmt: skip
