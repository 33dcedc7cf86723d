"""Every question and change that the store knows, as functions of a session: SQL on the tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from peewee import SQL, Tuple

from runner.events import Event
from runner.orchestrator.jobs import TERMINAL, Backoff, CancelRequested, Job, advance
from runner.orchestrator.session import Session
from runner.orchestrator.tables import JobRow
from runner.wire import unpack

Change = tuple[str, Event, bytes | None]
"""The id of a job, what happened to it, and its output (packed) where it has one."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of a job, as its history keeps it; `at` is seconds since the epoch (UTC)."""

    revision: int
    status: str
    reason: str | None
    attempt: int
    at: float
    actor: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many jobs wait and may go, wait for their time, and are on the conveyor or run."""

    waiting: int
    delayed: int
    dispatched: int

    @property
    def unfinished(self) -> int:
        """All of them."""
        return self.waiting + self.delayed + self.dispatched


# --- statements, written once --------------------------------------------------------------------

JSON_COLUMNS = frozenset({"progress", "error"})
FIXED = frozenset({"id", "owner", "service", "attempts", "priority", "created_at", "input_bytes"})
COLUMNS = tuple(JobRow._meta.sorted_field_names)
MOVING = tuple(name for name in COLUMNS if name not in FIXED)
"""The columns that an event can change."""

_CASTS = {"TEXT": "text", "INT": "integer", "BIGINT": "bigint", "DOUBLE": "double precision"}
_TYPES = {field.name: _CASTS[field.field_type] for field in JobRow._meta.sorted_fields}
_ALL = ", ".join(COLUMNS)

# The words of the partial indexes; SQLite uses one only where a query repeats them.
OPEN_JOBS = "status IN ('queued', 'running')"
WAITING_JOBS = "status = 'queued' AND dispatched_at IS NULL"
MOVING_JOBS = "status IN ('queued', 'running') AND dispatched_at IS NOT NULL"
FINISHED_JOBS = "status IN ('succeeded', 'failed', 'canceled')"

_INPUT = "(SELECT body FROM payload WHERE job_id = id AND kind = 'input')"

INSERT_JOB = f"INSERT INTO job ({_ALL}) VALUES ({', '.join('?' * len(COLUMNS))})"
INSERT_PAYLOAD = "INSERT INTO payload (job_id, kind, body) VALUES {row}"
INSERT_TRANSITION = (
    "INSERT INTO transition (job_id, revision, status, reason, attempt, at, actor) VALUES {row}"
)
UPDATE_SQLITE = f"UPDATE job SET {', '.join(f'{name} = ?' for name in MOVING)} WHERE id = ?"
UPDATE_POSTGRESQL = (
    f"UPDATE job SET {', '.join(f'{name} = new.{name}' for name in MOVING)} "
    f"FROM (VALUES %s) AS new ({', '.join(MOVING)}, id) WHERE job.id = new.id"
)
UPDATE_TEMPLATE = f"({', '.join(f'%s::{_TYPES[name]}' for name in MOVING)}, %s)"

SELECT = f"SELECT {_ALL} FROM job"
LOCK_SQLITE = SELECT + " WHERE id IN (SELECT value FROM json_each(?))"
# In the order of the ids, so that two orchestrators do not wait for each other.
LOCK_POSTGRESQL = SELECT + " WHERE id = ANY(?) ORDER BY id FOR UPDATE"
CLAIM = (
    f"WITH picked AS MATERIALIZED (SELECT id AS picked_id FROM job WHERE {WAITING_JOBS} "
    "AND service = ? AND manifest_digest = ? AND available_at <= ? "
    "ORDER BY priority DESC, created_at, id LIMIT ?{lock}) "
    "UPDATE job SET dispatched_at = ? FROM picked WHERE id = picked_id "
    f"RETURNING {_ALL}, {_INPUT}"
)
CLAIM_SQLITE = CLAIM.format(lock="")
CLAIM_POSTGRESQL = CLAIM.format(lock=" FOR UPDATE SKIP LOCKED")


# --- one job -------------------------------------------------------------------------------------


def submit(session: Session, job: Job, body: bytes) -> None:
    """Keep a new job with its input."""
    session.together(
        (INSERT_JOB, _row(job, COLUMNS)),
        (INSERT_PAYLOAD.format(row="(?, ?, ?)"), (job.id, "input", body)),
        (INSERT_TRANSITION.format(row="(?, ?, ?, ?, ?, ?, ?)"), _history(job, job.owner)),
    )


def get(session: Session, job_id: str) -> Job | None:
    """Return the job, or None where there is none."""
    found = _jobs(session.rows(SELECT + " WHERE id = ?", job_id))
    return found[0] if found else None


def payload(session: Session, job_id: str, kind: str) -> bytes | None:
    """Return the `input` or `output` as it is kept, or None where there is none."""
    found = session.rows("SELECT body FROM payload WHERE job_id = ? AND kind = ?", job_id, kind)
    return bytes(found[0][0]) if found else None


def transitions(session: Session, job_id: str) -> list[Transition]:
    """Return the changes of a job, oldest first."""
    found = session.rows(
        "SELECT revision, status, reason, attempt, at, actor FROM transition "
        "WHERE job_id = ? ORDER BY revision",
        job_id,
    )
    return [Transition(*row) for row in found]


def delete(session: Session, job_id: str) -> bool:
    """Erase a job with its payloads and history, and tell whether there was one."""
    return session.run("DELETE FROM job WHERE id = ?", job_id) > 0


def cancel(session: Session, job_id: str, command: CancelRequested, now: float) -> Job | None:
    """Cancel a job at once or ask for it; returns how it stands, or None where there is none."""
    for before in _lock(session, [job_id]):
        after = advance(before, command, now, _never)
        if after is not before:
            _update(session, [after])
            _remember(session, [_history(after, command.actor)])
        return after
    return None


def repin(session: Session, job_id: str, digest: str, version: str, now: float) -> bool:
    """Pin a job that has not gone yet to another manifest of the same major version."""
    major = int(version.partition(".")[0])
    for job in _lock(session, [job_id]):
        if job.status == "queued" and job.dispatched_at is None and job.major == major:
            after = replace(
                job, manifest_digest=digest, service_version=version, updated_at=now,
                revision=job.revision + 1,
            )  # fmt: skip
            _update(session, [after])
            _remember(session, [_history(after, "")])
            return True
    return False


def position(session: Session, job: Job) -> int:
    """Return how many queued jobs of the service stand before this one."""
    [(count,)] = session.rows(
        f"SELECT COUNT(*) FROM job WHERE {OPEN_JOBS} AND service = ? AND status = 'queued' AND "
        "(priority > ? OR (priority = ? AND (created_at, id) < (?, ?)))",
        job.service, job.priority, job.priority, job.created_at, job.id,
    )  # fmt: skip
    return int(count) if job.status == "queued" else 0


# --- many jobs -----------------------------------------------------------------------------------


def recent(
    session: Session,
    *,
    limit: int,
    before: tuple[float, str] | None,
    status: str | None,
    service: str | None,
    owner: str | None,
) -> list[Job]:
    """Return the newest jobs that match, newest first; `before` is (created_at, id) of the last."""
    query = JobRow.select().order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    for column, wanted in (
        (JobRow.status, status),
        (JobRow.service, service),
        (JobRow.owner, owner),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if status in TERMINAL:
        query = query.where(SQL(FINISHED_JOBS))
    if before is not None:
        query = query.where(Tuple(JobRow.created_at, JobRow.id) < before)
    return _jobs(session.select(query))


def ingest(session: Session, batch: Sequence[Change], now: float, backoff: Backoff) -> list[Job]:
    """Fold what happened into the jobs, in order, and return those that changed.

    An output is kept only where its very event made the job succeed. Unknown jobs are skipped.
    """
    jobs = {job.id: job for job in _lock(session, {job_id for job_id, _, _ in batch})}
    changed: dict[str, Job] = {}
    history: list[tuple[Any, ...]] = []
    outputs: list[tuple[str, str, bytes]] = []
    for job_id, event, output in batch:
        before = jobs.get(job_id)
        if before is None:
            continue
        after = advance(before, event, now, backoff)
        if after is before:
            continue
        jobs[job_id] = changed[job_id] = after
        history.append(_history(after, before.worker or after.worker or ""))
        if after.status == "succeeded" and output is not None:
            outputs.append((job_id, "output", output))
    _update(session, changed.values())
    _remember(session, history)
    session.many(_rows_of(session, INSERT_PAYLOAD, 3), outputs)
    return list(changed.values())


def claim(
    session: Session, service: str, digest: str, limit: int, now: float
) -> list[tuple[Job, bytes]]:
    """Take the next jobs for the conveyor, with their inputs; nobody else can take them too."""
    sql = CLAIM_POSTGRESQL if session.postgresql else CLAIM_SQLITE
    rows = session.rows(sql, service, digest, now, limit, now)
    taken = [(_job(row[:-1]), bytes(row[-1])) for row in rows]
    return sorted(taken, key=lambda one: (-one[0].priority, one[0].created_at, one[0].id))


def release(session: Session, ids: Sequence[tuple[str, int]], now: float) -> list[Job]:
    """Take jobs back from the conveyor where they are still queued at that attempt.

    Returns them. One that somebody wants to be canceled is canceled here, for no worker will.
    """
    attempts = dict(ids)
    released = []
    for job in _lock(session, attempts):
        if job.status != "queued" or job.attempt != attempts[job.id] or job.dispatched_at is None:
            continue
        after = replace(job, dispatched_at=None)
        if job.cancel_requested_at is not None:
            actor = job.cancel_actor or ""
            after = advance(after, CancelRequested(actor, revoked=True), now, _never)
            _remember(session, [_history(after, actor)])
        released.append(after)
    _update(session, released)
    return released


def backlog(session: Session, now: float) -> dict[tuple[str, str], Backlog]:
    """Count the unfinished jobs by service and digest."""
    rows = session.rows(
        "SELECT service, manifest_digest, SUM(CASE WHEN available_at <= ? THEN 1 ELSE 0 END), "
        f"COUNT(*), 0 FROM job WHERE {WAITING_JOBS} "
        "GROUP BY service, manifest_digest UNION ALL "
        f"SELECT service, manifest_digest, 0, 0, COUNT(*) FROM job WHERE {MOVING_JOBS} "
        "GROUP BY service, manifest_digest",
        now,
    )
    found: dict[tuple[str, str], Backlog] = {}
    for service, digest, ready, queued, sent in rows:
        known = found.get((service, digest), Backlog(0, 0, 0))
        found[service, digest] = Backlog(
            known.waiting + ready, known.delayed + queued - ready, known.dispatched + sent
        )
    return found


def inputs(session: Session, service: str, digest: str, limit: int) -> list[tuple[Job, Any]]:
    """Return the jobs that go next, with their inputs as values, and leave them there."""
    rows = session.rows(
        f"SELECT {_ALL}, {_INPUT} FROM job WHERE {WAITING_JOBS} "
        "AND service = ? AND manifest_digest = ? ORDER BY priority DESC, created_at, id LIMIT ?",
        service, digest, limit,
    )  # fmt: skip
    return [(_job(row[:-1]), unpack(row[-1])) for row in rows]


def queue_ages(session: Session, now: float) -> dict[str, tuple[int, float]]:
    """Return, for each service that has any, how many jobs are queued and the oldest's age in s."""
    rows = session.rows(
        "SELECT service, COUNT(*), MIN(created_at) FROM job "
        f"WHERE {OPEN_JOBS} AND status = 'queued' GROUP BY service"
    )
    return {service: (count, max(0.0, now - oldest)) for service, count, oldest in rows}


def dispatched(session: Session, before: float) -> list[Job]:
    """Return what was dispatched before that time and has not started."""
    sql = f"{SELECT} WHERE {MOVING_JOBS} AND status = 'queued' AND dispatched_at < ?"
    return _jobs(session.rows(sql, before))


def running(session: Session) -> list[Job]:
    """Return what runs."""
    return _jobs(session.rows(f"{SELECT} WHERE {MOVING_JOBS} AND status = 'running'"))


def overdue(session: Session, now: float) -> list[Job]:
    """Return what is queued past its latest start."""
    sql = f"{SELECT} WHERE {OPEN_JOBS} AND status = 'queued' AND queue_deadline_at < ?"
    return _jobs(session.rows(sql, now))


def counts(session: Session) -> dict[tuple[str, str], int]:
    """Count all jobs by service and status."""
    counted = "SELECT service, status, COUNT(*) FROM job WHERE {} GROUP BY service, status"
    rows = session.rows(f"{counted.format(OPEN_JOBS)} UNION ALL {counted.format(FINISHED_JOBS)}")
    return {(service, status): count for service, status, count in rows}


def unfinished(session: Session, service: str) -> int:
    """Count the jobs of a service that are queued or running."""
    [(count,)] = session.rows(
        f"SELECT COUNT(*) FROM job WHERE {OPEN_JOBS} AND service = ?", service
    )
    return int(count)


# --- manifests -----------------------------------------------------------------------------------


def save_manifest(
    session: Session, digest: str, name: str, document: dict[str, Any], now: float
) -> None:
    """Keep a valid manifest, or only when it was last seen if it is kept already."""
    session.run(
        "INSERT INTO manifest (digest, name, document, seen_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (digest) DO UPDATE SET seen_at = excluded.seen_at",
        digest, name, json.dumps(document), now,
    )  # fmt: skip


def manifests(session: Session) -> list[tuple[str, dict[str, Any], float]]:
    """Return the digest, document and time of last sight of every manifest ever kept."""
    rows = session.rows("SELECT digest, document, seen_at FROM manifest ORDER BY name, seen_at")
    return [(digest, json.loads(document), seen_at) for digest, document, seen_at in rows]


# --- rows and jobs -------------------------------------------------------------------------------


def _lock(session: Session, ids: Iterable[str]) -> list[Job]:
    """Return the jobs of these ids, on PostgreSQL locked until the commit."""
    if session.postgresql:
        return _jobs(session.rows(LOCK_POSTGRESQL, list(ids)))
    return _jobs(session.rows(LOCK_SQLITE, json.dumps(list(ids))))


def _update(session: Session, jobs: Iterable[Job]) -> None:
    sql = UPDATE_POSTGRESQL if session.postgresql else UPDATE_SQLITE
    session.many(sql, [(*_row(job, MOVING), job.id) for job in jobs], UPDATE_TEMPLATE)


def _remember(session: Session, history: Iterable[tuple[Any, ...]]) -> None:
    session.many(_rows_of(session, INSERT_TRANSITION, 7), history)


def _rows_of(session: Session, sql: str, width: int) -> str:
    """Write an INSERT for `Session.many`."""
    return sql.format(row="%s" if session.postgresql else f"({', '.join('?' * width)})")


def _history(job: Job, actor: str) -> tuple[Any, ...]:
    """Return the row that remembers how a job came to stand as it does."""
    # A job that will be tried again has no reason, but its last change has.
    again = job.status == "queued" and job.error is not None
    reason = (job.error or {}).get("code") if again else job.reason
    return (
        job.id, job.revision, job.status, reason and str(reason)[:64], job.attempt, job.updated_at,
        actor,
    )  # fmt: skip


def _row(job: Job, columns: Sequence[str]) -> list[Any]:
    row = [getattr(job, name) for name in columns]
    for index, name in enumerate(columns):
        if name in JSON_COLUMNS and row[index] is not None:
            # Escaped to ASCII: PostgreSQL takes no lone surrogates, and a worker may send them.
            row[index] = json.dumps(row[index])
    return row


def _job(row: Sequence[Any]) -> Job:
    fields = dict(zip(COLUMNS, row, strict=True))
    for name in JSON_COLUMNS:
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    return Job(**fields)


def _jobs(rows: Iterable[Sequence[Any]]) -> list[Job]:
    return [_job(row) for row in rows]


def _never(attempt: int) -> float:
    """Stand in where no attempt can follow."""
    return 0.0
