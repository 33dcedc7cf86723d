"""Let requests in: commit them as jobs, alone, in bulk or as parts of one, or say why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.errors import DeadlineUnreachable, QueueFull
from runner.manifest import Manifest
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.following import Following
from runner.orchestrator.intake import Once, Taken
from runner.orchestrator.jobs import COMPOSITE, Job, new_id
from runner.orchestrator.queries import Backlog
from runner.orchestrator.store import Store
from runner.orchestrator.terms import Terms
from runner.payload import fingerprint, pack

USUAL = Terms()


@dataclass(frozen=True, slots=True)
class Asked:
    """One accepted input for one manifest; `size` is that of its body in bytes."""

    manifest: Manifest
    inputs: dict[str, Any]
    size: int


class Admission:
    """Commits what was asked for; the counts that bound the queues are kept here.

    `clock` returns seconds since the epoch, `poke` tells the dispatcher that there is work, and
    `announce` tells that jobs have ended. A finished job is kept for `retention` seconds, or for
    ever. Each submit raises `QueueFull`, `DeadlineUnreachable`, `IdempotencyMismatch`, `JobErased`
    and `StoreUnavailable`; when it returns, what it returns will not be lost.
    """

    def __init__(
        self, store: Store, catalog: Catalog, following: Following, clock: Callable[[], float],
        poke: Callable[[], None], announce: Callable[[list[Job]], Awaitable[None]],
        retention: float | None = None,
    ) -> None:  # fmt: skip
        self._store, self._catalog, self._following = store, catalog, following
        self._clock, self._poke, self._announce = clock, poke, announce
        self._retention = retention
        self._begun, self._kept = Counter[str](), Counter[str]()
        self._counted: dict[str, int] = {}

    async def replay(self, terms: Terms) -> Taken | None:
        """Return what was asked for under this key before, if it was."""
        once = _once(terms)
        made = await self._store.replay(once) if once else None
        return None if made is None else Taken(made, replayed=True)

    async def submit(
        self, asked: Asked, terms: Terms = USUAL, retry_of: str | None = None
    ) -> Taken:
        """Commit a job."""
        job = replace(self._job(asked, terms), idempotency_key=terms.key, retry_of=retry_of)
        return await self._admit([(job, asked)], terms)

    async def submit_many(self, several: Sequence[Asked], terms: Terms = USUAL) -> Taken:
        """Commit a job for each, all or none."""
        jobs = [
            (replace(self._job(asked, terms, place), idempotency_key=terms.key), asked)
            for place, asked in enumerate(several)
        ]
        return await self._admit(jobs, terms)

    async def submit_parts(
        self,
        parts: Mapping[str, Asked],
        note: Any,
        terms: Terms = USUAL,
        retry_of: str | None = None,
    ) -> Taken:
        """Commit a composite job with its parts, all or none; it comes first.

        `note` is kept as its input, for whoever asked.
        """
        now = self._clock()
        whole = Job(
            id=new_id(), owner=terms.owner, service=COMPOSITE, service_version="", major=0,
            manifest_digest="", attempts=1, priority=terms.priority, created_at=now,
            available_at=now, updated_at=now, input_bytes=sum(one.size for one in parts.values()),
            retention=self._retention, idempotency_key=terms.key, retry_of=retry_of,
            deadline_at=None if terms.deadline is None else now + terms.deadline,
            deadline_from=None if terms.deadline is None else "request",
        )  # fmt: skip
        jobs = [
            (replace(self._job(asked, terms), parent_id=whole.id, part=name, retention=None), asked)
            for name, asked in parts.items()
        ]
        return await self._admit(jobs, terms, [(whole, pack(note))])

    def kept(self) -> Counter[str]:
        """Return how many jobs of each service have been committed here so far."""
        return Counter(self._kept)

    def recount(self, backlog: Mapping[tuple[str, str], Backlog], kept: Counter[str]) -> None:
        """Take in a count of the unfinished jobs; `kept` is what `kept()` returned before it."""
        unfinished = Counter[str]()
        for (service, _), row in backlog.items():
            unfinished[service] += row.unfinished
        self._counted = {name: unfinished[name] - kept[name] for name in {*unfinished, *kept}}

    def _job(self, asked: Asked, terms: Terms, place: int = 0) -> Job:
        manifest, limits = asked.manifest, asked.manifest.limits
        now = self._clock() + place * 1e-6  # of a bulk the first goes first
        ours, theirs = limits.deadline, terms.deadline
        deadline = min((s for s in (ours, theirs) if s is not None), default=None)
        source = None if deadline is None else "request" if deadline == theirs else "manifest"
        lend = manifest.reuse and terms.lend
        return Job(
            id=new_id(), owner=terms.owner, service=manifest.name,
            service_version=manifest.version, major=manifest.major,
            manifest_digest=manifest.digest, attempts=limits.attempts, priority=terms.priority,
            created_at=now, available_at=now, updated_at=now,
            queue_deadline_at=now + limits.queue_timeout, input_bytes=asked.size,
            retention=self._retention,
            deadline_at=None if deadline is None else now + deadline,
            deadline_from=source,
            fingerprint=fingerprint(manifest.digest, asked.inputs) if lend else None,
        )  # fmt: skip

    async def _admit(
        self,
        jobs: Sequence[tuple[Job, Asked]],
        terms: Terms,
        wholes: Sequence[tuple[Job, bytes]] = (),
    ) -> Taken:
        """Refuse what cannot be done, commit the rest, and tell of what has ended already."""
        await self._make_room(jobs)
        await self._make_time(jobs)
        names = [job.service for job, _ in jobs]
        kept = [*wholes, *((job, pack(asked.inputs)) for job, asked in jobs)]
        self._begun.update(names)
        try:
            taken = await self._store.submit(
                *kept, once=_once(terms), since=self._since(jobs, terms), webhook=terms.webhook
            )
        except BaseException:
            self._begun.subtract(names)
            raise
        open_ = [] if taken.replayed else [j.service for j in taken.jobs if not j.finished]
        open_ = [name for name in open_ if name != COMPOSITE]
        self._begun.subtract(Counter(names) - Counter(open_))
        self._kept.update(open_)
        ended = [] if taken.replayed else [job for job in taken.jobs if job.finished]
        if ended:
            await self._announce(ended)
        self._poke()
        return taken

    def _since(self, jobs: Sequence[tuple[Job, Asked]], terms: Terms) -> dict[str, float]:
        """Return for each fingerprint that may be answered how old the answer may be.

        Not older than the workers: those that were started anew may have other code or settings.
        """
        if not terms.reuse:
            return {}
        oldest = 0.0 if terms.max_age is None else self._clock() - terms.max_age
        return {
            job.fingerprint: max(oldest, self._catalog.served_since(job.manifest_digest))
            for job, _ in jobs
            if job.fingerprint is not None
        }

    async def _make_room(self, jobs: Sequence[tuple[Job, Asked]]) -> None:
        wanted = Counter(job.service for job, _ in jobs)
        manifests = {asked.manifest.name: asked.manifest for _, asked in jobs}
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
                    retry_after=await self._retry_after(manifests[name], unfinished),
                )

    async def _make_time(self, jobs: Sequence[tuple[Job, Asked]]) -> None:
        """Refuse a deadline that the last job of a service would not keep at the present rate."""
        count = Counter[str]()
        last: dict[str, Job] = {}
        for job, _ in jobs:
            count[job.service] += 1
            last[job.service] = job
        for name, job in last.items():
            if job.deadline_at is None:
                continue
            position, eta = await self._following.outlook(job, count[name] - 1)
            allowed = round(job.deadline_at - job.created_at, 3)
            if eta is not None and eta > allowed:
                where = "Cancel-After" if job.deadline_from == "request" else "`limits.deadline`"
                raise DeadlineUnreachable(
                    f"{name} would need about {eta:.1f} s, with {position} jobs before this one; "
                    f"{where} of the {job.deadline_from} allows {allowed:g} s.",
                    service=name, eta_seconds=round(eta, 1), deadline_seconds=allowed,
                    position=position,
                )  # fmt: skip

    def _unfinished(self, service: str) -> int:
        """Return how many jobs of a service there are: those counted last, and who came since.

        A submit counts from its beginning, so that many at once do not pass the bound together.
        """
        return self._counted.get(service, 0) + self._begun[service]

    async def _retry_after(self, manifest: Manifest, unfinished: int) -> int:
        """Return the seconds in which about a tenth of the backlog should be worked off."""
        mean = await self._following.mean_seconds(manifest.name) or 1.0
        slots = max(1, self._catalog.slots(manifest.digest))
        return int(min(300, max(1, unfinished * mean / slots / 10)))


def _once(terms: Terms) -> Once | None:
    return None if terms.key is None else Once(terms.owner, terms.key, terms.fingerprint)
