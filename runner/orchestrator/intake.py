"""How jobs come into the database: once for each key, and with a result where one is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.errors import IdempotencyMismatch, JobErased, RequestInFlight
from runner.orchestrator import changes
from runner.orchestrator.deliveries import Webhook
from runner.orchestrator.jobs import Job, expiry
from runner.orchestrator.rows import SELECT, jobs_of
from runner.orchestrator.session import Session
from runner.payload import fingerprint

KEPT = 24 * 3600.0
"""Seconds for which a key is known at least; its jobs keep it known for longer."""

FIRST = (
    "INSERT INTO idempotency (owner, idempotency_key, fingerprint, created_at) "
    "VALUES (?, ?, ?, ?) ON CONFLICT (owner, idempotency_key) DO NOTHING"
)
LENT = (
    "SELECT id, (SELECT body FROM payload WHERE job_id = id AND kind = 'output') FROM job "
    "WHERE owner = ? AND fingerprint = ? AND status = 'succeeded' AND finished_at >= ? "
    "AND (expires_at IS NULL OR expires_at > ?) ORDER BY finished_at DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Once:
    """A request that must happen once: whose it is, its key, and a fingerprint of what it says."""

    owner: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What a request has led to: its jobs, as they were asked for, now or the first time."""

    jobs: list[Job]
    replayed: bool = False

    @property
    def job(self) -> Job:
        """The only job, or the one whose parts the others are."""
        return self.jobs[0]


def take_in(
    session: Session,
    jobs: Sequence[tuple[Job, bytes]],
    now: float,
    *,
    once: Once | None = None,
    since: Mapping[str, float] | None = None,
    webhook: Webhook | None = None,
) -> Taken:
    """Keep new jobs with their inputs, all or none; a composite one comes before its parts.

    With `once`, a second request gets the jobs of the first. `since` says for each fingerprint of a
    job how old a result may be that answers it. Raises as `replay` does, and `RequestInFlight`.
    """
    if once is not None and not _first(session, once, now):
        made = replay(session, once)
        if made is None:  # and erased as well, a moment ago
            return take_in(session, jobs, now, once=once, since=since, webhook=webhook)
        return Taken(made, replayed=True)
    found: dict[tuple[str, str | None], tuple[str, bytes] | None] = {
        (job.owner, job.fingerprint): _lent(session, job, now, since[job.fingerprint])
        for job, _ in jobs
        if since and job.fingerprint is not None and job.fingerprint in since
    }
    taken: list[Job] = []
    outputs: list[tuple[str, bytes]] = []
    for job, _ in jobs:
        lender = found.get((job.owner, job.fingerprint))
        if lender is not None:
            job = _answered(job, lender[0], now)
            outputs.append((job.id, lender[1]))
        taken.append(job)
    bodies = [(job, body) for job, (_, body) in zip(taken, jobs, strict=True)]
    changes.submit(session, *bodies, outputs=outputs, webhook=webhook)
    settled = changes.settle_wholes(session, [job for job in taken if job.finished], now)
    after = {job.id: job for job in settled}
    return Taken([after.get(job.id, job) for job in taken])


def _first(session: Session, once: Once, now: float) -> bool:
    """Write the key down; False where it is written already.

    On PostgreSQL another orchestrator may be about to write it. Waiting for that here, where other
    requests share the transaction, is how two of them come to wait for each other.
    """
    if session.postgresql:
        number = int(fingerprint(once.owner, once.key)[:15], 16)
        [(alone,)] = session.rows("SELECT pg_try_advisory_xact_lock(?)", number)
        if not alone:
            raise RequestInFlight("Its job will be here in a moment; ask again.", retry_after=1)
    return session.run(FIRST, once.owner, once.key, once.fingerprint, now) > 0


def replay(session: Session, once: Once) -> list[Job] | None:
    """Return the jobs of the first request under this key; None where there was none.

    Raises `IdempotencyMismatch` when that was another request, and `JobErased`.
    """
    rows = session.rows(
        "SELECT fingerprint FROM idempotency WHERE owner = ? AND idempotency_key = ?",
        once.owner, once.key,
    )  # fmt: skip
    if not rows:
        return None
    if rows[0][0] != once.fingerprint:
        raise IdempotencyMismatch(
            "Another request was sent with this Idempotency-Key: to another service, with another "
            "input or with other options. Send each request with a key of its own."
        )
    made = jobs_of(
        session.rows(
            f"{SELECT} WHERE owner = ? AND idempotency_key = ? ORDER BY created_at, id",
            once.owner, once.key,
        )
    )  # fmt: skip
    if not made:
        raise JobErased("What was asked under this Idempotency-Key was done, and is erased by now.")
    return made


def _lent(session: Session, job: Job, now: float, since: float) -> tuple[str, bytes] | None:
    """Return the id and output of the latest job that answers this one, if there is any."""
    rows: list[tuple[Any, ...]] = session.rows(LENT, job.owner, job.fingerprint, since, now)
    return (rows[0][0], bytes(rows[0][1])) if rows and rows[0][1] is not None else None


def _answered(job: Job, lender: str, now: float) -> Job:
    """Return a new job as it stands when another one's result answers it."""
    whole: dict[str, Any] = {"percent": 100.0, "step": None, "steps": []}
    return replace(
        job, status="succeeded", finished_at=now, updated_at=now, progress=whole,
        reused_from=lender, fingerprint=None, expires_at=expiry(job, now),
    )  # fmt: skip
