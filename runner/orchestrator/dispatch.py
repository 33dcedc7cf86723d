"""Move jobs: send to workers, take in what they say, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import redis

from runner import events
from runner.broker import Producer
from runner.connection import trouble
from runner.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    InputInvalid,
    JobFinished,
    PartOfJob,
    RunnerError,
    StoreUnavailable,
)
from runner.manifest import Manifest
from runner.orchestrator.admission import Admission
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.following import Following
from runner.orchestrator.jobs import Job
from runner.orchestrator.resource import ended, job_resource
from runner.orchestrator.store import Store
from runner.orchestrator.wire import OrchestratorWire, Result
from runner.traceparent import of_attempt
from runner.voice import Voice

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two looks for work when nothing has been heard."""

LINGER = 0.01
"""Seconds that starts wait for more, so that a short job costs one commit instead of two."""

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
        on_changed: Callable[[Job], None] = lambda job: None,
        clock: Callable[[], float] = time.time,
        retention: float | None = None,
    ) -> None:
        self.store, self.wire, self.catalog = store, wire, catalog
        self.producer, self.clock = producer, clock
        self._on_finished, self._on_changed = on_finished, on_changed
        self.consumer = f"{socket.gethostname()}-{os.getpid()}-{random.randrange(16**6):06x}"
        self._work, self.voice = asyncio.Event(), Voice(log)
        self.following = Following(store, wire, catalog, clock)
        self.admission = Admission(
            store, catalog, self.following, clock, self.poke, self.announce, retention
        )
        self._immovable: dict[tuple[str, str], tuple[str, int]] = {}

    # --- what callers ask for --------------------------------------------------------------------

    async def cancel(self, job_id: str, actor: str) -> Job:
        """Ask for a job to end; raises `JobUnknown`, or `JobFinished` if it already has.

        A job that no worker has started is canceled at once; otherwise its worker stops at the
        handler's next checkpoint.
        """
        job = await self.following.job(job_id)
        if job.status == "canceled":
            return job
        if job.finished:
            raise _too_late(job)
        if job.composite:  # all asked at once, so that what is asked here is asked whole
            await self.announce(await self.store.cancel(job, actor, False, self.clock()))
            for part in await self.store.parts(job_id):
                if not part.finished:
                    await self._cancel(part, actor)
        else:
            await self._cancel(job, actor)
        after = await self.following.job(job_id)
        # Its end may have come first; of a whole that failed, parts were canceled all the same.
        if after.status == "succeeded" or (after.status == "failed" and not after.composite):
            raise _too_late(after)
        return after

    async def _cancel(self, job: Job, actor: str) -> None:
        revoked = False
        # Also where it was not sent yet: it may be on its way by now, and the mark waits for it.
        with contextlib.suppress(redis.RedisError):  # the repair asks again
            revoked = await self.wire.cancel(job.id, actor) == "revoked"
        await self.announce(await self.store.cancel(job, actor, revoked, self.clock()))

    async def erase(self, job_id: str) -> None:
        """Remove a job with its parts, inputs, results and history.

        Raises `JobUnknown`, and `PartOfJob` for what can only go with the whole.
        """
        job = await self.following.job(job_id)
        if job.parent_id is not None:
            raise PartOfJob(f"The job is a part of job {job.parent_id}; erase that one.")
        with contextlib.suppress(JobFinished):
            await self.cancel(job_id, "erasure")
        parts = await self.store.parts(job_id) if job.composite else []
        with contextlib.suppress(redis.RedisError):
            for one in [*parts, job]:
                await self.wire.erase(one.id)
        await self.store.delete(job_id)

    # --- what goes on all the time ---------------------------------------------------------------

    async def run(self) -> None:
        """Keep jobs moving until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.forever(self._dispatch))
            tasks.create_task(self.forever(self._ingest))

    def poke(self) -> None:
        """Say that there may be work: a worker came, or a job did."""
        self._work.set()

    async def forever(self, turn: Callable[[], Awaitable[None]], pause: float = 0.0) -> None:
        """Take turns; a Redis or database that is down is waited for, not died of."""
        while wanted():
            await asyncio.sleep(pause)
            try:
                await turn()
            except (redis.RedisError, StoreUnavailable, BrokerUnavailable, OSError) as error:
                ours = isinstance(error, StoreUnavailable)
                why = str(error) if ours else trouble(self.wire.redis, error)
                self.voice.say(f"{why} Trying again.")
                await asyncio.sleep(POLL)
            except Exception:
                log.exception("%s met an error of our own; trying again", turn.__name__.strip("_"))
                await asyncio.sleep(POLL)

    async def _dispatch(self) -> None:
        """Send what may be sent: about two messages per living slot; the rest waits."""
        self._work.clear()
        kept = self.admission.kept()
        backlog = await self.store.backlog()
        self.admission.recount(backlog, kept)
        full = False
        for (service, digest), row in backlog.items():
            slots = self.catalog.slots(digest)
            if row.waiting and not slots:
                await self._repin(service, digest, row.waiting)
                continue
            room = min(2 * slots + 1 - row.dispatched, row.waiting, CLAIM)
            if room > 0:
                full |= await self._send(service, digest, room) == CLAIM
        if not full:  # else there may be more that has room
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), POLL)

    async def _send(self, service: str, digest: str, room: int) -> int:
        """Claim in the store, then publish; what could not be published goes back."""
        claimed = await self.store.claim(service, digest, room, self.clock())
        if not claimed:
            return 0
        try:
            for job, packed in claimed:
                trace = of_attempt(job.traceparent, job.id, job.attempt, family=job.parent_id)
                await self.wire.load(job.id, job.attempt, job.manifest_digest, packed, trace)
            await asyncio.to_thread(self._publish, [job for job, _ in claimed])
        except (redis.RedisError, BrokerUnavailable):
            await self.release([(job.id, job.attempt) for job, _ in claimed])
            raise
        return len(claimed)

    async def release(self, ids: list[tuple[str, int]]) -> None:
        """Put jobs (id, attempt) back into the queue; one that was to be canceled ends here."""
        released = await self.store.release(ids)
        await self.announce([job for job in released if job.finished])

    def _publish(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.producer.send(job.id, job.attempt, job.service, job.manifest_digest)

    async def _repin(self, service: str, digest: str, waiting: int) -> None:
        """Move waiting jobs whose manifest has no worker to a living one of the same major version.

        A job moves only if its input is right for the other manifest too.
        """
        manifest = self.instead(service, digest)
        if manifest is None or self._immovable.get((service, digest)) == (manifest.digest, waiting):
            return
        moved = 0
        for job, inputs in await self.store.waiting_inputs(service, digest, MOVE):
            if job.major == manifest.major:
                with contextlib.suppress(InputInvalid):
                    await asyncio.to_thread(manifest.accept, inputs)
                    moved += await self.store.repin(job.id, manifest.digest, manifest.version)
        if moved:
            self._immovable.pop((service, digest), None)
            self._work.set()
        else:  # and there is no use in reading them again before something changes
            self._immovable[service, digest] = (manifest.digest, waiting)

    def instead(self, service: str, digest: str) -> Manifest | None:
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
            results = await self.wire.results(self.consumer, block=2.0)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self.wire.open_results()
            return
        if results and all(isinstance(one.event, events.Started) for one in results):
            with contextlib.suppress(redis.RedisError):
                results += await self.wire.results(self.consumer, block=LINGER)
        await self.take(results)

    async def take(self, results: list[Result]) -> None:
        if not results:
            return
        batch = [(r.event.job, await self._pictured(r.event), r.output) for r in results if r.event]
        try:
            changed = await self.store.ingest(batch, self.clock())
            self.following.hand_over(results)
        except StoreUnavailable:
            raise
        except Exception:
            if len(results) > 1:  # one that cannot be kept must not keep the others from it
                for result in results:
                    await self.take([result])
                return
            log.exception("a result of job %s cannot be kept; it is dropped", batch[0][0])
            changed = []
        # Announced first: what is acknowledged is not heard of again.
        await self.announce(changed)
        await self.wire.acknowledge([result.entry for result in results])

    async def announce(self, jobs: list[Job]) -> None:
        """Tell a change to those who follow or wait, and take finished jobs off the conveyor.

        Whoever committed a change tells it, and nobody else: `on_changed` hears each once.
        """
        for job in jobs:
            self._on_changed(job)
        finished = [job for job in jobs if job.finished]
        for job in finished:
            if not job.composite:
                self._on_finished(job)
                self.following.learn_speed(job)
            self.following.wake(job.id, job)
        self._work.set()
        stories = [
            (job.id, "completed" if job.finished else "status", job_resource(job)) for job in jobs
        ]
        with contextlib.suppress(redis.RedisError):  # those who wait look at the store as well
            sent = [job for job in finished if job.reused_from is None and not job.composite]
            # Of a deadline its worker has not heard yet: it finds the bar and stops.
            stays = [j.id for j in sent if not j.started_at or j.reason == DeadlineExceeded.code]
            over = [job.id for job in sent if job.id not in stays]
            await self.wire.tell(stories, [job.id for job in finished], over)
            await self.wire.bar(stays)

    async def end(self, job: Job, error: RunnerError) -> None:
        """End an attempt on behalf of those who cannot speak."""
        event = events.for_the_silent(
            job.id, job.service, job.attempt, error.to_problem(), self.clock()
        )
        told = await self._pictured(event)
        await self.announce(await self.store.ingest([(job.id, told, None)], self.clock()))

    async def _pictured(self, event: events.Event) -> events.Event:
        """Return the end of an attempt with the last that was seen of its progress.

        Who speaks for a handler that was ended does not know how far it was.
        """
        if not isinstance(event, events.Failed | events.Canceled) or event.progress is not None:
            return event
        picture = None
        with contextlib.suppress(redis.RedisError):
            picture = await self.wire.progress(event.job)
        return replace(event, progress=picture and ended(picture, event.kind, event.at))


def _too_late(job: Job) -> JobFinished:
    return JobFinished(f"The job has already {job.status}.", job_status=job.status)


def wanted() -> bool:
    """Say whether this task should go on; a loop that only waits to be cancelled must ask.

    `asyncio.wait_for` of Python 3.11 loses a cancellation that meets the end of what it waits for.
    """
    task = asyncio.current_task()
    return task is None or not task.cancelling()
