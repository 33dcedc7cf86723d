"""The figures of all services, from the jobs that end and the workers that announce themselves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from runner import errors
from runner.errors import StoreUnavailable
from runner.metrics import Metrics, Sample
from runner.orchestrator.catalog import Catalog, Entry
from runner.orchestrator.dispatch import wanted
from runner.orchestrator.jobs import Job
from runner.orchestrator.picture import steps_of
from runner.orchestrator.store import Store

EVERY = 5.0
"""Seconds between two looks into the database for the queues."""


class Figures:
    """Counts what jobs did, and says what is alive; workers need no port for it.

    A job is counted once over all orchestrators: by the one that committed its end. One that is
    killed between the two takes that count along.
    """

    def __init__(self, metrics: Metrics, catalog: Catalog, store: Store) -> None:
        self._metrics, self._catalog, self._store = metrics, catalog, store
        self._queues: dict[str, tuple[int, float]] = {}
        self._running: dict[str, int] = {}

    def changed(self, job: Job) -> None:
        """Count an attempt that ended and that another one follows."""
        # One that waits again; a cancel is told of waiting jobs too, but then nothing follows.
        if job.status == "queued" and job.attempt > 1 and job.cancel_requested_at is None:
            self._metrics.retried(job.service, _reason((job.error or {}).get("code")))

    def finished(self, job: Job) -> None:
        """Count a job that has just ended; of a composite one, each part is counted by itself."""
        started, ended = job.started_at, job.finished_at or job.updated_at
        self._metrics.finished(
            service=job.service,
            version=job.service_version,
            outcome=job.status,
            reason=_reason(job.reason),
            queue_seconds=(started or ended) - job.available_at,
            run_seconds=None if started is None else ended - started,
            steps={} if started is None else dict(self._steps(job)),
            input_bytes=job.input_bytes,
        )

    async def measure(self) -> None:
        """Keep the queues' figures for the next scrape, so that a scrape never waits."""
        while wanted():
            with contextlib.suppress(StoreUnavailable):
                await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Read from the database what waits and what runs."""
        running = await self._store.in_progress()
        self._queues, self._running = await self._store.queue_ages(time.time()), running

    def samples(self) -> Iterable[Sample]:
        """Say what is alive and what waits now; all orchestrators say the same."""
        entries = self._catalog.entries()
        for name in sorted({e.manifest.name for e in entries} | {*self._queues, *self._running}):
            service = {"service": name}
            depth, age = self._queues.get(name, (0, 0.0))
            running = self._running.get(name, 0)
            yield "nlp_queue_depth", "Jobs that wait to start.", service, float(depth)
            yield "nlp_queue_oldest_age_seconds", "How long the oldest of them waits.", service, age
            yield "nlp_jobs_in_progress", "Executions that run now.", service, float(running)
        for entry in entries:
            yield from _workers(entry)
        conflicts = float(self._catalog.conflicts)
        yield "nlp_registry_conflicts", "Workers in quarantine.", {}, conflicts

    def _steps(self, job: Job) -> Iterator[tuple[str, float]]:
        """Yield the seconds of each step that has run to its end.

        The picture is a worker's, which may be anybody's: only what the manifest declares counts.
        """
        manifest = self._catalog.manifest(job.manifest_digest)
        declared = {step.name for step in manifest.steps} if manifest else set()
        for step in steps_of(job):
            if step.name in declared:
                yield step.name, step.seconds


def _workers(entry: Entry) -> Iterator[Sample]:
    """Say who serves a service: by state, how many at a time, how many of these now."""
    manifest = entry.manifest
    service = {"service": manifest.name}
    version = {**service, "version": manifest.version, "digest": manifest.digest[:12]}
    yield "nlp_service_info", "Services that are known.", version, 1.0
    states: dict[str, int] = {}
    for member in entry.members:
        state = "quarantined" if member.quarantined else member.instance.state
        states[state] = states.get(state, 0) + 1
    for state, count in states.items():
        yield "nlp_workers", "Living workers.", {**service, "state": state}, float(count)
    ready = [member.instance for member in entry.members if member.usable]
    slots, busy = sum(one.slots for one in ready), sum(one.busy for one in ready)
    yield "nlp_worker_slots", "Jobs that the ready workers run at a time.", service, float(slots)
    yield "nlp_worker_busy", "Slots of them that are taken.", service, float(min(busy, slots))
    loads = [one.load_seconds for one in ready if one.load_seconds is not None]
    if loads:
        yield "nlp_worker_load_seconds", "Longest time to load of the ready.", service, max(loads)


def _codes(base: type[errors.RunnerError] = errors.RunnerError) -> Iterator[str]:
    yield base.code
    for kind in base.__subclasses__():
        yield from _codes(kind)


CODES = frozenset(_codes())


def _reason(code: Any) -> str:
    """Return the code of an error of ours; whatever else a worker says has no end of values."""
    if code is None:
        return ""
    return code if isinstance(code, str) and code in CODES else "other"
