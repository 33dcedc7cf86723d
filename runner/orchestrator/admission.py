"""Let requests in: commit them as jobs, alone or as parts of one, unless the queue is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runner.errors import QueueFull
from runner.manifest import Manifest
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.deliveries import Webhook
from runner.orchestrator.following import Following
from runner.orchestrator.jobs import COMPOSITE, Job, new_id
from runner.orchestrator.queries import Backlog
from runner.orchestrator.store import Store
from runner.payload import pack


@dataclass(frozen=True, slots=True)
class Asked:
    """One accepted input for one manifest; `size` is that of its body in bytes."""

    manifest: Manifest
    inputs: dict[str, Any]
    size: int


class Admission:
    """Commits what was asked for; the counts that bound the queues are kept here.

    `clock` returns seconds since the epoch, and `poke` tells the dispatcher that there is work.
    """

    def __init__(
        self, store: Store, catalog: Catalog, following: Following, clock: Callable[[], float],
        poke: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store, self._catalog, self._following = store, catalog, following
        self._clock, self._poke = clock, poke
        self._begun, self._kept = Counter[str](), Counter[str]()
        self._counted: dict[str, int] = {}

    async def submit(
        self, asked: Asked, *, owner: str = "", priority: int = 0, webhook: Webhook | None = None
    ) -> Job:
        """Commit a job and return it; when this returns, the job will not be lost.

        Raises `QueueFull`, `StoreUnavailable`.
        """
        await self._make_room({asked.manifest.name: 1}, {asked.manifest.name: asked.manifest})
        job = self._job(asked, owner, priority)
        await self._keep([(job, pack(asked.inputs))], webhook)
        return job

    async def submit_parts(
        self, parts: Mapping[str, Asked], note: Any, *, owner: str = "", priority: int = 0,
        webhook: Webhook | None = None,
    ) -> Job:  # fmt: skip
        """Commit a composite job with its parts, all or none, and return it.

        `note` is kept as its input, for whoever asked. Raises `QueueFull`, `StoreUnavailable`.
        """
        wanted = Counter(asked.manifest.name for asked in parts.values())
        manifests = {asked.manifest.name: asked.manifest for asked in parts.values()}
        await self._make_room(wanted, manifests)
        now = self._clock()
        whole = Job(
            id=new_id(), owner=owner, service=COMPOSITE, service_version="", major=0,
            manifest_digest="", attempts=1, priority=priority, created_at=now, available_at=now,
            updated_at=now, input_bytes=sum(asked.size for asked in parts.values()),
        )  # fmt: skip
        jobs = [
            (replace(self._job(asked, owner, priority), parent_id=whole.id, part=name), asked)
            for name, asked in parts.items()
        ]
        inputs = [(job, pack(asked.inputs)) for job, asked in jobs]
        await self._keep([(whole, pack(note)), *inputs], webhook)
        return whole

    def kept(self) -> Counter[str]:
        """Return how many jobs of each service have been committed here so far."""
        return Counter(self._kept)

    def recount(self, backlog: Mapping[tuple[str, str], Backlog], kept: Counter[str]) -> None:
        """Take in a count of the unfinished jobs; `kept` is what `kept()` returned before it."""
        unfinished = Counter[str]()
        for (service, _), row in backlog.items():
            unfinished[service] += row.unfinished
        self._counted = {name: unfinished[name] - kept[name] for name in {*unfinished, *kept}}

    def _job(self, asked: Asked, owner: str, priority: int) -> Job:
        manifest, now = asked.manifest, self._clock()
        return Job(
            id=new_id(), owner=owner, service=manifest.name, service_version=manifest.version,
            major=manifest.major, manifest_digest=manifest.digest,
            attempts=manifest.limits.attempts, priority=priority, created_at=now,
            available_at=now, updated_at=now,
            queue_deadline_at=now + manifest.limits.queue_timeout, input_bytes=asked.size,
        )  # fmt: skip

    async def _keep(self, jobs: list[tuple[Job, bytes]], webhook: Webhook | None = None) -> None:
        names = [job.service for job, _ in jobs if not job.composite]
        self._begun.update(names)
        try:
            await self._store.submit(*jobs, webhook=webhook)
        except BaseException:
            self._begun.subtract(names)
            raise
        self._kept.update(names)
        self._poke()

    async def _make_room(
        self, wanted: Mapping[str, int], manifests: Mapping[str, Manifest]
    ) -> None:
        for name, more in wanted.items():
            limit = manifests[name].limits.max_queued
            if self._unfinished(name) + more > limit:
                # Who came while the last count was taken may be counted twice.
                kept = self._kept[name]
                self._counted[name] = await self._store.unfinished(name) - kept
            unfinished = self._unfinished(name)
            if unfinished + more > limit:
                raise QueueFull(
                    f"{name} has {unfinished} unfinished jobs; `limits.max_queued` of its "
                    f"manifest allows {limit}.",
                    retry_after=self._retry_after(manifests[name], unfinished),
                )

    def _unfinished(self, service: str) -> int:
        """Return how many jobs of a service there are: those counted last, and who came since.

        A submit counts from its beginning, so that many at once do not pass the bound together.
        """
        return self._counted.get(service, 0) + self._begun[service]

    def _retry_after(self, manifest: Manifest, unfinished: int) -> int:
        """Return the seconds in which about a tenth of the backlog should be worked off."""
        mean = self._following.mean_seconds(manifest.name) or 1.0
        slots = max(1, self._catalog.slots(manifest.digest))
        return int(min(300, max(1, unfinished * mean / slots / 10)))
