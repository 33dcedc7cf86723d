"""The store: the truth about all jobs, asked and changed from asyncio."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from runner.errors import RequestInFlight
from runner.orchestrator import changes, intake, queries
from runner.orchestrator.changes import Change
from runner.orchestrator.database import Database
from runner.orchestrator.deliveries import Deliveries, Webhook
from runner.orchestrator.intake import Once, Taken
from runner.orchestrator.jobs import CancelRequested, Job, backoff_delay
from runner.orchestrator.keyring import Keyring
from runner.orchestrator.queries import Backlog, Transition
from runner.orchestrator.tables import migrate

IN_FLIGHT = 5.0
"""Seconds that a second request waits for the first one of its key, at another orchestrator."""

Jobs = list[Job]
Ids = list[str]
JobsWithInput = list[tuple[Job, bytes]]
JobsWithValue = list[tuple[Job, Any]]
Manifests = list[tuple[str, dict[str, Any], float]]


class Store:
    """The jobs and manifests of an orchestrator in one database.

    A change answers after its COMMIT. Every method raises `StoreUnavailable` when the database
    cannot do it. Payloads go in and come out packed (see `runner.payload.pack`). `now` returns
    seconds since the epoch, `chance` a number in [0, 1).
    """

    def __init__(
        self,
        url: str,
        *,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = Database(url)
        self.keys = Keyring(self._database)
        self.deliveries = Deliveries(self._database)
        self._now = now
        self._chance = chance
        self._backoff = partial(backoff_delay, random=chance)

    async def open(self) -> None:
        """Connect, and bring the schema up to date.

        Raises `Unavailable` when the database is of a newer release.
        """
        self._database.start()
        try:
            await self._database.write(partial(migrate, now=self._now()), within=None)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what was asked for, and disconnect."""
        await asyncio.to_thread(self._database.stop)

    async def ping(self, within: float = 3.0) -> None:
        """Raise `StoreUnavailable` unless the database answers within so many seconds."""
        await self._database.read(lambda session: session.rows("SELECT 1"), within)

    @property
    def commits(self) -> int:
        """How many transactions this store has written."""
        return self._database.commits

    # --- one job ---------------------------------------------------------------------------------

    async def submit(
        self,
        *jobs: tuple[Job, bytes],
        once: Once | None = None,
        since: Mapping[str, float] | None = None,
        webhook: Webhook | None = None,
    ) -> Taken:
        """Keep new jobs with their inputs, all or none; a composite one before its parts.

        `webhook` is that of each, but for the parts.

        With `once`, a second request gets the jobs of the first; `since` says for each fingerprint
        how old a result may be that answers it. Raises `IdempotencyMismatch`, `JobErased`, and
        `RequestInFlight` where the first request is not done for long.
        """
        patience = time.monotonic() + IN_FLIGHT
        while True:
            work = partial(
                intake.take_in, jobs=jobs, now=self._now(), once=once, since=since, webhook=webhook
            )
            try:
                return await self._database.write(work)
            except RequestInFlight:
                if time.monotonic() > patience:
                    raise
            await asyncio.sleep(0.02 + 0.08 * self._chance())

    async def replay(self, once: Once) -> Jobs | None:
        """Return the jobs of the first request under a key, or None; raises as `submit` does."""
        return await self._database.read(partial(intake.replay, once=once))

    async def get(self, job_id: str) -> Job | None:
        """Return the job, or None where there is none."""
        return await self._database.read(partial(queries.get, job_id=job_id))

    async def parts(self, job_id: str) -> Jobs:
        """Return the parts of a composite job, in the order in which they were asked for."""
        return await self._database.read(partial(queries.parts, job_id=job_id))

    async def payload(self, job_id: str, kind: str) -> bytes | None:
        """Return the `input` or `output` of a job as it is kept, or None where there is none."""
        return await self._database.read(partial(queries.payload, job_id=job_id, kind=kind))

    async def output(self, job_id: str) -> Any:
        """Return the output of a job as a value, or None where there is none."""
        return await self._database.read(partial(queries.output, job_id=job_id))

    async def transitions(self, job_id: str) -> list[Transition]:
        """Return the changes of a job, oldest first."""
        return await self._database.read(partial(queries.transitions, job_id=job_id))

    async def ahead(self, job: Job) -> tuple[int, int]:
        """Return how many jobs of the service are queued before this one, and how many run."""
        return await self._database.read(partial(queries.ahead, job=job))

    async def cancel(self, job: Job, actor: str, revoked: bool, now: float) -> Jobs:
        """Cancel a job and its parts at once where they have not gone, or ask their workers to.

        `job` may be as it stood once. `revoked` says that its message was taken off the conveyor.
        Returns the jobs that changed.
        """
        command = CancelRequested(actor, revoked)
        return await self._database.write(
            partial(changes.cancel, job=job, command=command, now=now)
        )

    async def delete(self, job_id: str) -> bool:
        """Erase a job, its parts, payloads and history, and tell whether there was one."""
        return await self._database.write(partial(changes.delete, job_id=job_id))

    async def repin(self, job_id: str, digest: str, version: str) -> bool:
        """Pin a job that is queued and not dispatched to another manifest of its major version."""
        return await self._database.write(
            partial(changes.repin, job_id=job_id, digest=digest, version=version, now=self._now())
        )

    # --- many jobs -------------------------------------------------------------------------------

    async def list(
        self,
        *,
        limit: int,
        before: tuple[float, str] | None = None,
        status: str | None = None,
        service: str | None = None,
        owner: str | None = None,
        reason: str | None = None,
    ) -> Jobs:
        """Return jobs, newest first; `before` is the (created_at, id) of the last one seen.

        Parts of composite jobs come along only when a service is named.
        """
        return await self._database.read(
            partial(
                queries.recent,
                limit=limit,
                before=before,
                status=status,
                service=service,
                owner=owner,
                reason=reason,
            )
        )

    async def ingest(self, batch: Sequence[Change], now: float) -> Jobs:
        """Fold (job id, event, packed output or None) into the jobs, in one transaction.

        Returns the jobs that changed. Unknown jobs are skipped, and so is an output whose event
        did not make its job succeed.
        """
        return await self._database.write(
            partial(changes.ingest, batch=batch, now=now, backoff=self._backoff)
        )

    async def claim(self, service: str, digest: str, limit: int, now: float) -> JobsWithInput:
        """Take the next jobs for the conveyor, with their inputs; nobody else can take them too."""
        return await self._database.write(
            partial(changes.claim, service=service, digest=digest, limit=limit, now=now)
        )

    async def release(self, ids: Sequence[tuple[str, int]]) -> Jobs:
        """Take jobs (id, attempt) back from the conveyor where they have not started.

        Returns them; one that somebody asked to cancel comes back canceled.
        """
        return await self._database.write(partial(changes.release, ids=ids, now=self._now()))

    async def backlog(self) -> dict[tuple[str, str], Backlog]:
        """Count the unfinished jobs by (service, digest)."""
        return await self._database.read(partial(queries.backlog, now=self._now()))

    async def waiting_inputs(self, service: str, digest: str, limit: int) -> JobsWithValue:
        """Return the jobs that go next, with their inputs as values, and leave them there."""
        return await self._database.read(
            partial(queries.inputs, service=service, digest=digest, limit=limit)
        )

    async def queue_ages(self, now: float) -> dict[str, tuple[int, float]]:
        """Return how many jobs each service has queued, and how long the oldest waits, in s."""
        return await self._database.read(partial(queries.queue_ages, now=now))

    async def in_progress(self) -> dict[str, int]:
        """Return how many jobs of each service run."""
        return await self._database.read(queries.in_progress)

    async def dispatched(self, before: float) -> Jobs:
        """Return what was dispatched before that time and has not started."""
        return await self._database.read(partial(queries.dispatched, before=before))

    async def running(self) -> Jobs:
        """Return what runs."""
        return await self._database.read(queries.running)

    async def overdue(self, now: float) -> Jobs:
        """Return what is queued past its latest start."""
        return await self._database.read(partial(queries.overdue, now=now))

    async def past_deadline(self, now: float) -> Jobs:
        """Return what has not ended at its deadline."""
        return await self._database.read(partial(queries.past_deadline, now=now))

    async def purge(self, now: float, limit: int) -> Ids:
        """Erase at most `limit` jobs whose time is over, with their parts; return their ids."""
        return await self._database.write(
            partial(changes.purge, now=now, limit=limit, kept=intake.KEPT)
        )

    async def mean_seconds(self, service: str) -> float | None:
        """Return how long the latest jobs of a service that succeeded have run, if any did."""
        return await self._database.read(partial(queries.mean_seconds, service=service))

    async def counts(self) -> dict[tuple[str, str], int]:
        """Count all jobs by (service, status)."""
        return await self._database.read(queries.counts)

    async def unfinished(self, service: str) -> int:
        """Count the jobs of a service that are queued or running."""
        return await self._database.read(partial(queries.unfinished, service=service))

    # --- manifests -------------------------------------------------------------------------------

    async def save_manifest(
        self, digest: str, name: str, document: dict[str, Any], now: float
    ) -> None:
        """Keep the copy of a valid manifest, and when it was last seen."""
        await self._database.write(
            partial(changes.save_manifest, digest=digest, name=name, document=document, now=now)
        )

    async def manifest(self, digest: str) -> dict[str, Any] | None:
        """Return the document of a manifest that was kept, or None."""
        return await self._database.read(partial(queries.manifest, digest=digest))

    async def manifests(self) -> Manifests:
        """Return (digest, document, seen_at) of every manifest kept."""
        return await self._database.read(queries.manifests)
