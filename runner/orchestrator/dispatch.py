"""Move jobs: submit, send to workers, take in what they say, cancel, and repair what got lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import redis

from runner import events
from runner.broker import Producer
from runner.errors import (
    BrokerUnavailable,
    Canceled,
    Expired,
    InputInvalid,
    JobFinished,
    JobUnknown,
    QueueFull,
    RunnerError,
    StoreUnavailable,
    WorkerLost,
)
from runner.manifest import Manifest
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.jobs import Job, new_id
from runner.orchestrator.resource import job_resource
from runner.orchestrator.store import Store
from runner.wire import LEASE, OrchestratorWire, Result, pack

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two looks for work when nothing has been heard."""

REPAIR = 5.0
"""Seconds between two looks for what got lost."""

ABANDONED = 10.0
"""Seconds after which results that another orchestrator read are taken over; less than it takes to
declare a worker silent, so that what has been said is heard first."""

CLAIM = 200
"""Most jobs sent in one go."""

MOVE = 50
"""Most jobs looked at in one go when their manifest has no worker; their inputs are read."""


class Dispatcher:
    """Everything that changes a job goes through here; any number may run on one database."""

    def __init__(
        self,
        store: Store,
        wire: OrchestratorWire,
        producer: Producer,
        catalog: Catalog,
        *,
        on_finished: Callable[[Job], None] = lambda job: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.wire, self.catalog = store, wire, catalog
        self._producer, self._clock = producer, clock
        self._on_finished = on_finished
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{random.randrange(16**6):06x}"
        self._work = asyncio.Event()
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._begun, self._kept = Counter[str](), Counter[str]()
        self._counted: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._missing: set[tuple[str, int]] = set()
        self._silent: set[tuple[str, int]] = set()
        self._immovable: dict[tuple[str, str], tuple[str, int]] = {}

    # --- what callers ask for --------------------------------------------------------------------

    async def submit(
        self, manifest: Manifest, inputs: dict[str, Any], *, size: int, owner: str = "",
        priority: int = 0,
    ) -> Job:  # fmt: skip
        """Commit a job and return it; when this returns, the job will not be lost.

        `size` is that of the request's body in bytes. Raises `QueueFull`, `StoreUnavailable`.
        """
        limit = manifest.limits.max_queued
        unfinished = self._unfinished(manifest.name)
        if unfinished >= limit:  # who came while the last count was taken may be counted twice
            kept = self._kept[manifest.name]
            self._counted[manifest.name] = await self.store.unfinished(manifest.name) - kept
            unfinished = self._unfinished(manifest.name)
        if unfinished >= limit:
            raise QueueFull(
                f"{manifest.name} has {unfinished} unfinished jobs; `limits.max_queued` of its "
                f"manifest allows {limit}.",
                retry_after=self._retry_after(manifest, unfinished),
            )
        now = self._clock()
        job = Job(
            id=new_id(), owner=owner, service=manifest.name, service_version=manifest.version,
            major=manifest.major, manifest_digest=manifest.digest,
            attempts=manifest.limits.attempts, priority=priority, created_at=now,
            available_at=now, updated_at=now,
            queue_deadline_at=now + manifest.limits.queue_timeout, input_bytes=size,
        )  # fmt: skip
        self._begun[manifest.name] += 1
        try:
            await self.store.submit(job, pack(inputs))
        except BaseException:
            self._begun[manifest.name] -= 1
            raise
        self._kept[manifest.name] += 1
        self._work.set()
        return job

    async def cancel(self, job_id: str, actor: str) -> Job:
        """Ask for a job to end; raises `JobUnknown`, or `JobFinished` if it already has.

        A job that no worker has started is canceled at once; otherwise its worker stops at the
        handler's next checkpoint.
        """
        job = await self.job(job_id)
        if job.status == "canceled":
            return job
        if job.finished:
            raise JobFinished(f"The job has already {job.status}.", job_status=job.status)
        revoked = False
        if job.dispatched_at is not None:
            with contextlib.suppress(redis.RedisError):  # the repair asks again
                revoked = await self.wire.cancel(job_id, actor) == "revoked"
        now = self._clock()
        stands = await self.store.cancel(job_id, actor, revoked, now)
        job = stands or await self.job(job_id)
        if job.status == "canceled" and job.finished_at == now:  # here, and not by somebody else
            await self._announce([job])
        return job

    async def erase(self, job_id: str) -> None:
        """Remove a job with its input, result and history; raises `JobUnknown`."""
        with contextlib.suppress(JobFinished):
            await self.cancel(job_id, "erasure")
        with contextlib.suppress(redis.RedisError):
            await self.wire.erase(job_id)
        await self.store.delete(job_id)

    async def job(self, job_id: str) -> Job:
        """Return a job; raises `JobUnknown`."""
        job = await self.store.get(job_id)
        if job is None:
            raise JobUnknown(f"There is no job `{job_id[:60]}`.")
        return job

    async def wait(self, job_id: str, seconds: float) -> Job:
        """Return the job once it has finished, or as it stands after `seconds`."""
        event = asyncio.Event()
        self._waiters.setdefault(job_id, set()).add(event)
        deadline = time.monotonic() + seconds
        try:
            while True:
                event.clear()
                job = await self.job(job_id)
                left = deadline - time.monotonic()
                if job.finished or left <= 0:
                    return job
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), min(left, POLL))
        finally:
            self._waiters[job_id].discard(event)
            if not self._waiters[job_id]:
                del self._waiters[job_id]

    async def resource(self, job: Job) -> dict[str, Any]:
        """Return a job as its callers see it, with its live progress or its place in the queue."""
        if job.status == "running":
            progress = None
            with contextlib.suppress(redis.RedisError):
                progress = await self.wire.progress(job.id)
            return job_resource(job, progress=progress)
        if job.status == "queued":
            position = await self.store.position(job)
            slots = max(1, self.catalog.slots(job.manifest_digest))
            mean = self._seconds.get(job.service)
            eta = None if mean is None else (position / slots + 1) * mean
            return job_resource(job, position=position, eta_seconds=eta)
        return job_resource(job)

    async def follow(self, job: Job, after: str) -> AsyncIterator[tuple[str | None, str, Any]]:
        """Yield (id, event, data) of a job's story until its `completed`; replays from `after`."""
        yield None, "status", await self.resource(job)
        last = after
        while True:
            try:
                async for entry in self.wire.follow(job.id, last, block=POLL):
                    if entry is None:
                        break
                    last, event = entry
                    yield last, event["event"], event
                    if event["event"] == "completed":
                        return
            except redis.RedisError:
                await asyncio.sleep(POLL)
            current = await self.store.get(job.id) or _erased(job, self._clock())
            if current.finished:
                yield None, "completed", {"data": job_resource(current)}
                return

    # --- what goes on all the time ---------------------------------------------------------------

    async def run(self) -> None:
        """Keep jobs moving until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forever(self._dispatch))
            tasks.create_task(self._forever(self._ingest))
            tasks.create_task(self._forever(self.repair, REPAIR))

    def poke(self) -> None:
        """Say that there may be work: a worker came, or a job did."""
        self._work.set()

    def wake(self, job_id: str) -> None:
        """Wake whoever waits for this job."""
        for event in self._waiters.get(job_id, ()):
            event.set()

    async def _forever(self, turn: Callable[[], Awaitable[None]], pause: float = 0.0) -> None:
        """Take turns; a Redis or database that is down is waited for, not died of."""
        while wanted():
            await asyncio.sleep(pause)
            try:
                await turn()
            except (redis.RedisError, StoreUnavailable, BrokerUnavailable, OSError) as error:
                log.warning("%s: %s; trying again", turn.__name__.strip("_"), error)
                await asyncio.sleep(POLL)
            except Exception:
                log.exception("%s met an error of our own; trying again", turn.__name__.strip("_"))
                await asyncio.sleep(POLL)

    async def _dispatch(self) -> None:
        """Send what may be sent: about two messages per living slot; the rest waits."""
        self._work.clear()
        kept = Counter(self._kept)
        backlog = await self.store.backlog()
        unfinished: Counter[str] = Counter()
        for (service, _), row in backlog.items():
            unfinished[service] += row.unfinished
        self._counted = {name: unfinished[name] - kept[name] for name in {*unfinished, *kept}}
        sent = 0
        for (service, digest), row in backlog.items():
            slots = self.catalog.slots(digest)
            if row.waiting and not slots:
                await self._repin(service, digest, row.waiting)
                continue
            room = min(2 * slots + 1 - row.dispatched, row.waiting, CLAIM)
            if room > 0:
                sent += await self._send(service, digest, room)
        if not sent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), POLL)

    async def _send(self, service: str, digest: str, room: int) -> int:
        """Claim in the store, then publish; what could not be published goes back."""
        claimed = await self.store.claim(service, digest, room, self._clock())
        if not claimed:
            return 0
        try:
            for job, packed in claimed:
                await self.wire.load(job.id, job.attempt, packed)
            await asyncio.to_thread(self._publish, [job for job, _ in claimed])
        except (redis.RedisError, BrokerUnavailable):
            await self._release([(job.id, job.attempt) for job, _ in claimed])
            raise
        return len(claimed)

    async def _release(self, ids: list[tuple[str, int]]) -> None:
        """Put jobs (id, attempt) back into the queue; one that was to be canceled ends here."""
        released = await self.store.release(ids)
        await self._announce([job for job in released if job.finished])

    def _publish(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._producer.send(job.id, job.attempt, job.service, job.manifest_digest)

    async def _repin(self, service: str, digest: str, waiting: int) -> None:
        """Move waiting jobs whose manifest has no worker to a living one of the same major version.

        A job moves only if its input is right for the other manifest too.
        """
        manifest = self._instead(service, digest)
        if manifest is None or self._immovable.get((service, digest)) == (manifest.digest, waiting):
            return
        moved = 0
        for job, inputs in await self.store.waiting_inputs(service, digest, MOVE):
            if job.major == manifest.major and await asyncio.to_thread(_takes, manifest, inputs):
                moved += await self.store.repin(job.id, manifest.digest, manifest.version)
        if moved:
            self._immovable.pop((service, digest), None)
            self._work.set()
        else:  # and there is no use in reading them again before something changes
            self._immovable[service, digest] = (manifest.digest, waiting)

    def _instead(self, service: str, digest: str) -> Manifest | None:
        """Return the manifest that is served instead of one that nobody serves, if there is one."""
        if self.catalog.slots(digest):
            return None
        try:
            manifest = self.catalog.serving(service)
        except RunnerError:
            return None
        return manifest if manifest.digest != digest else None

    async def _ingest(self) -> None:
        """Take in results; they leave the stream only after the commit."""
        try:
            results = await self.wire.results(self._consumer, block=2.0)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self.wire.open_results()
            return
        await self._take(results)

    async def _take(self, results: list[Result]) -> None:
        if not results:
            return
        batch = [(r.event.job, r.event, r.output) for r in results if r.event is not None]
        try:
            changed = await self.store.ingest(batch, self._clock())
        except StoreUnavailable:
            raise
        except Exception:
            if len(results) > 1:  # one that cannot be kept must not keep the others from it
                for result in results:
                    await self._take([result])
                return
            log.exception("a result of job %s cannot be kept; it is dropped", batch[0][0])
            changed = []
        # Announced first: what is acknowledged is not heard of again.
        await self._announce(changed)
        await self.wire.acknowledge([result.entry for result in results])

    async def _announce(self, jobs: list[Job]) -> None:
        """Tell a change to those who follow or wait, and take finished jobs off the conveyor."""
        finished = [job for job in jobs if job.finished]
        for job in finished:
            self._on_finished(job)
            self._learn_speed(job)
            self.wake(job.id)
        self._work.set()
        stories = [
            (job.id, "completed" if job.finished else "status", job_resource(job)) for job in jobs
        ]
        with contextlib.suppress(redis.RedisError):  # those who wait look at the store as well
            await self.wire.tell(stories, [job.id for job in finished])
            started = [job for job in finished if job.started_at is not None]
            await self.wire.forget(job.id for job in started)
            await self.wire.bar(job.id for job in finished if job not in started)

    def _learn_speed(self, job: Job) -> None:
        if job.status == "succeeded" and job.started_at and job.finished_at:
            seconds = job.finished_at - job.started_at
            known = self._seconds.get(job.service, seconds)
            self._seconds[job.service] = 0.8 * known + 0.2 * seconds

    def _unfinished(self, service: str) -> int:
        """Return how many jobs of a service there are: those counted last, and who came since.

        A submit counts from its beginning, so that many at once do not pass the bound together.
        """
        return self._counted.get(service, 0) + self._begun[service]

    def _retry_after(self, manifest: Manifest, unfinished: int) -> int:
        """Return the seconds in which about a tenth of the backlog should be worked off."""
        mean = self._seconds.get(manifest.name, 1.0)
        slots = max(1, self.catalog.slots(manifest.digest))
        return int(min(300, max(1, unfinished * mean / slots / 10)))

    # --- what got lost ---------------------------------------------------------------------------

    async def repair(self) -> None:
        """Look once for jobs that no one would move any more.

        A message or a worker is taken for lost when two looks in a row have missed it.
        """
        now = self._clock()
        while abandoned := await self.wire.abandoned(self._consumer, idle=ABANDONED):
            await self._take(abandoned)
        await self._expire(now)
        await self._find_missing(now)
        await self._find_silent(now)

    async def _expire(self, now: float) -> None:
        overdue = await self.store.overdue(now)
        leases = await self.wire.leased([job.id for job in overdue])
        for job, leased in zip(overdue, leases, strict=True):
            if leased:  # it has just started
                continue
            waited = now - job.available_at
            detail = (
                f"The job waited {waited:.0f} s for a free worker; `limits.queue_timeout` of the "
                f"manifest allows {(job.queue_deadline_at or now) - job.available_at:.0f} s."
            )
            await self._end(job, Expired(detail, clock="queue_timeout"))

    async def _find_missing(self, now: float) -> None:
        """Send again what Redis no longer holds: its message is neither queued nor at a worker.

        So is what lies in the queue of a manifest that another one is served instead of.
        """
        sent = await self.store.dispatched(now - REPAIR)
        held: set[tuple[str, int]] = set()
        for service, digest in {(job.service, job.manifest_digest) for job in sent}:
            if self._instead(service, digest) is None:
                held |= await asyncio.to_thread(self._producer.pending, service, digest)
        leases = await self.wire.leased([job.id for job in sent])
        missing: set[tuple[str, int]] = set()
        for job, leased in zip(sent, leases, strict=True):
            if job.cancel_requested_at is not None:
                with contextlib.suppress(JobFinished, JobUnknown):
                    await self.cancel(job.id, job.cancel_actor or "")
            elif not leased and (job.id, job.attempt) not in held:
                missing.add((job.id, job.attempt))
        again = missing & self._missing
        self._missing = missing - again
        if again:
            log.warning("%d messages were lost or stranded; sending them again", len(again))
            await self._withdraw([job for job in sent if (job.id, job.attempt) in again])
            await self._release(sorted(again))

    async def _withdraw(self, jobs: list[Job]) -> None:
        """Take the messages of these jobs out of their queues, where they still are."""
        queues: dict[tuple[str, str], set[tuple[str, int]]] = {}
        for job in jobs:
            queue = queues.setdefault((job.service, job.manifest_digest), set())
            queue.add((job.id, job.attempt))
        for (service, digest), ids in queues.items():
            await asyncio.to_thread(self._producer.withdraw, service, digest, ids)

    async def _find_silent(self, now: float) -> None:
        """End the attempts of workers that keep no lease any more: they are dead or cut off."""
        running = await self.store.running()
        leases = await self.wire.leased([job.id for job in running])
        silent: set[tuple[str, int]] = set()
        for job, leased in zip(running, leases, strict=True):
            if leased:
                if job.cancel_requested_at is not None:
                    await self.wire.cancel(job.id, job.cancel_actor or "")
            elif now - (job.started_at or now) > LEASE:
                silent.add((job.id, job.attempt))
        for job in running:
            if (job.id, job.attempt) in silent & self._silent:
                log.warning("job %s: worker %s fell silent", job.id, job.worker)
                await self._end(job, WorkerLost(
                    f"The worker {job.worker} died or was cut off while it ran attempt "
                    f"{job.attempt} of {job.attempts}."))  # fmt: skip
        self._silent = silent

    async def _end(self, job: Job, error: RunnerError) -> None:
        """End an attempt on behalf of those who cannot speak."""
        event = events.Failed(
            job=job.id, service=job.service, attempt=job.attempt, seq=0, at=self._clock(),
            error=error.to_problem(),
        )  # fmt: skip
        await self._announce(await self.store.ingest([(job.id, event, None)], self._clock()))


def wanted() -> bool:
    """Say whether this task should go on; a loop that only waits to be cancelled must ask.

    `asyncio.wait_for` of Python 3.11 loses a cancellation that meets the end of what it waits for.
    """
    task = asyncio.current_task()
    return task is None or not task.cancelling()


def _takes(manifest: Manifest, inputs: dict[str, Any]) -> bool:
    """Say whether an input that was right for one manifest is right for this one too."""
    try:
        manifest.accept(inputs)
    except InputInvalid:
        return False
    return True


def _erased(job: Job, now: float) -> Job:
    """Return a job that is no longer there as its followers see its end."""
    if job.finished:
        return job
    gone = Canceled("The job was erased.")
    return replace(
        job, status="canceled", reason=gone.code, error=gone.to_problem(), finished_at=now,
        updated_at=now,
    )  # fmt: skip
