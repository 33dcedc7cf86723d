"""Every change that the store knows, as functions of a session: SQL on the tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any

from runner.events import Event
from runner.orchestrator import deliveries
from runner.orchestrator.deliveries import Webhook
from runner.orchestrator.jobs import Backoff, CancelRequested, Job, advance, settle
from runner.orchestrator.rows import (
    ALL,
    COLUMNS,
    FINISHED_JOBS,
    INPUT,
    MOVING,
    SELECT,
    TYPES,
    WAITING_JOBS,
    job_of,
    jobs_of,
    row_of,
)
from runner.orchestrator.session import Session

Change = tuple[str, Event, bytes | None]
"""The id of a job, what happened to it, and its output (packed) where it has one."""

TOGETHER = 100
"""Most jobs that come in with one round trip; SQLite takes 32,766 values in one statement."""

# The rows follow.
INSERT_JOB = f"INSERT INTO job ({ALL}) VALUES "
INSERT_PAYLOAD = "INSERT INTO payload (job_id, kind, body) VALUES "
INSERT_TRANSITION = (
    "INSERT INTO transition (job_id, revision, status, reason, attempt, at, actor) VALUES "
)
UPDATE_SQLITE = f"UPDATE job SET {', '.join(f'{name} = ?' for name in MOVING)} WHERE id = ?"
UPDATE_POSTGRESQL = (
    f"UPDATE job SET {', '.join(f'{name} = new.{name}' for name in MOVING)} "
    f"FROM (VALUES %s) AS new ({', '.join(MOVING)}, id) WHERE job.id = new.id"
)
UPDATE_TEMPLATE = f"({', '.join(f'%s::{TYPES[name]}' for name in MOVING)}, %s)"
LOCK_SQLITE = SELECT + " WHERE id IN (SELECT value FROM json_each(?))"
# In the order of the ids, so that two orchestrators do not wait for each other.
LOCK_POSTGRESQL = SELECT + " WHERE id = ANY(?) ORDER BY id FOR UPDATE"
KEYED = "idempotency_key IS NOT NULL"
FORGET = (
    "DELETE FROM idempotency WHERE NOT EXISTS (SELECT 1 FROM job WHERE "
    f"job.{KEYED} AND job.owner = idempotency.owner "
    "AND job.idempotency_key = idempotency.idempotency_key)"
)
CLAIM = (
    f"WITH picked AS MATERIALIZED (SELECT id AS picked_id FROM job WHERE {WAITING_JOBS} "
    "AND service = ? AND manifest_digest = ? AND available_at <= ? "
    "ORDER BY priority DESC, created_at, id LIMIT ?{lock}) "
    "UPDATE job SET dispatched_at = ? FROM picked WHERE id = picked_id "
    f"RETURNING {ALL}, {INPUT}"
)
CLAIM_SQLITE = CLAIM.format(lock="")
CLAIM_POSTGRESQL = CLAIM.format(lock=" FOR UPDATE SKIP LOCKED")


def submit(
    session: Session,
    *jobs: tuple[Job, bytes],
    outputs: Sequence[tuple[str, bytes]] = (),
    webhook: Webhook | None = None,
) -> None:
    """Keep new jobs with their inputs; a composite one comes before its parts.

    `outputs` are those of jobs that have one from the start. `webhook` is that of each job, but
    for the parts.
    """
    for start in range(0, len(jobs), TOGETHER):
        some = jobs[start : start + TOGETHER]
        statements: list[tuple[str, Sequence[Any]]] = [
            _insert(INSERT_JOB, [row_of(job, COLUMNS) for job, _ in some]),
            _insert(INSERT_PAYLOAD, [(job.id, "input", body) for job, body in some]),
            _insert(INSERT_TRANSITION, [_history(job, job.owner) for job, _ in some]),
        ]
        for job, _ in some if webhook else ():
            if job.parent_id is None:
                statements += deliveries.keep(job.id, webhook)
        session.together(*statements)
    kept = [(job_id, "output", body) for job_id, body in outputs]
    session.many(_rows_of(session, INSERT_PAYLOAD, 3), kept)
    deliveries.enqueue(session, [job for job, _ in jobs if job.finished])


def delete(session: Session, job_id: str) -> bool:
    """Erase a job with its parts, payloads and history, and tell whether there was one.

    The key of its request goes with the last job that was made under it.
    """
    keys = session.rows(f"SELECT owner, idempotency_key FROM job WHERE {KEYED} AND id = ?", job_id)
    # The parts first, in which order all others lock them too.
    session.run("DELETE FROM job WHERE parent_id = ?", job_id)
    found = session.run("DELETE FROM job WHERE id = ?", job_id) > 0
    for owner, key in keys:
        session.run(f"{FORGET} AND owner = ? AND idempotency_key = ?", owner, key)
    return found


def purge(session: Session, now: float, limit: int, kept: float) -> list[str]:
    """Erase at most `limit` finished jobs whose time is over, with their parts; return all ids.

    So are the keys of requests that are older than `kept` seconds and have no job any more.
    """
    lock = " FOR UPDATE SKIP LOCKED" if session.postgresql else ""
    over = "expires_at IS NOT NULL AND expires_at <= ? AND parent_id IS NULL"
    rows = session.rows(
        f"SELECT id FROM job WHERE {over} AND {FINISHED_JOBS} ORDER BY expires_at LIMIT ?{lock}",
        now, limit,
    )  # fmt: skip
    ids = [row[0] for row in rows]
    for column in ("parent_id", "id") if ids else ():
        erase = f"DELETE FROM job WHERE {column}"
        if session.postgresql:
            gone = session.rows(f"{erase} = ANY(?) RETURNING id", ids)
        else:
            listed = json.dumps(ids)
            gone = session.rows(f"{erase} IN (SELECT value FROM json_each(?)) RETURNING id", listed)
        ids += [row[0] for row in gone if column == "parent_id"]
    session.run(f"{FORGET} AND created_at <= ?", now - kept)
    return ids


def cancel(session: Session, job: Job, command: CancelRequested, now: float) -> list[Job]:
    """Cancel a job and its parts at once, or ask for it; returns those that changed.

    `job` may be as it stood once: only its id counts, and whether it can have parts at all.
    """
    family: list[Job] = []
    if job.composite:
        rows = session.rows("SELECT id FROM job WHERE parent_id = ?", job.id)
        family = _lock(session, [row[0] for row in rows])
    changed: dict[str, Job] = {}
    for before in [*family, *_lock(session, [job.id])]:
        after = advance(before, command, now, _never)
        if after is not before:
            changed[after.id] = after
            _update(session, [after])
            _remember(session, [_history(after, command.actor)])
    changed |= {whole.id: whole for whole in settle_wholes(session, changed.values(), now)}
    return list(changed.values())


def repin(session: Session, job_id: str, digest: str, version: str, now: float) -> bool:
    """Pin a job that has not gone yet to another manifest of the same major version."""
    major = int(version.partition(".")[0])
    for job in _lock(session, [job_id]):
        if job.status == "queued" and job.dispatched_at is None and job.major == major:
            after = replace(
                job, manifest_digest=digest, service_version=version, updated_at=now,
                revision=job.revision + 1, fingerprint=None,
            )  # fmt: skip
            _update(session, [after])
            _remember(session, [_history(after, "")])
            return True
    return False


def ingest(session: Session, batch: Sequence[Change], now: float, backoff: Backoff) -> list[Job]:
    """Fold what happened into the jobs, in order, and return those that changed.

    An output is kept only where its very event made the job succeed. Unknown jobs are skipped.
    """
    jobs = {job.id: job for job in _lock(session, {job_id for job_id, _, _ in batch})}
    changed: dict[str, Job] = {}
    history: list[tuple[Any, ...]] = []
    outputs: list[tuple[str, str, bytes]] = []
    steps: list[Job] = []
    for job_id, event, output in batch:
        before = jobs.get(job_id)
        if before is None:
            continue
        after = advance(before, event, now, backoff)
        if after is before:
            continue
        jobs[job_id] = changed[job_id] = after
        steps.append(after)
        history.append(_history(after, before.worker or after.worker or ""))
        if after.status == "succeeded" and output is not None:
            outputs.append((job_id, "output", output))
    _update(session, changed.values(), steps)
    _remember(session, history)
    session.many(_rows_of(session, INSERT_PAYLOAD, 3), outputs)
    return [*changed.values(), *settle_wholes(session, changed.values(), now)]


def claim(
    session: Session, service: str, digest: str, limit: int, now: float
) -> list[tuple[Job, bytes]]:
    """Take the next jobs for the conveyor, with their inputs; nobody else can take them too."""
    sql = CLAIM_POSTGRESQL if session.postgresql else CLAIM_SQLITE
    rows = session.rows(sql, service, digest, now, limit, now)
    taken = [(job_of(row[:-1]), bytes(row[-1])) for row in rows]
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
    return [*released, *settle_wholes(session, released, now)]


def save_manifest(
    session: Session, digest: str, name: str, document: dict[str, Any], now: float
) -> None:
    """Keep a valid manifest, or only when it was last seen if it is kept already."""
    session.run(
        "INSERT INTO manifest (digest, name, document, seen_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (digest) DO UPDATE SET seen_at = excluded.seen_at",
        digest, name, json.dumps(document), now,
    )  # fmt: skip


def settle_wholes(session: Session, parts: Iterable[Job], now: float) -> list[Job]:
    """Fold what changed in parts into their composite jobs; returns those that changed too.

    The composite job is locked before its parts are read, so that of two orchestrators that end
    the last two parts, the later one sees both.
    """
    parents = {part.parent_id for part in parts if part.parent_id is not None}
    settled = []
    for parent in _lock(session, sorted(parents)) if parents else ():
        family = jobs_of(session.rows(f"{SELECT} WHERE parent_id = ?", parent.id))
        after = settle(parent, family, now)
        if after is not parent:
            settled.append(after)
    _update(session, settled)
    _remember(session, [_history(job, "") for job in settled])
    return settled


def _lock(session: Session, ids: Iterable[str]) -> list[Job]:
    """Return the jobs of these ids, on PostgreSQL locked until the commit."""
    if session.postgresql:
        return jobs_of(session.rows(LOCK_POSTGRESQL, list(ids)))
    return jobs_of(session.rows(LOCK_SQLITE, json.dumps(list(ids))))


def _update(session: Session, jobs: Collection[Job], steps: Sequence[Job] = ()) -> None:
    """Keep jobs as they stand now, and owe the webhooks of all `steps` that led there."""
    deliveries.enqueue(session, steps or jobs)
    sql = UPDATE_POSTGRESQL if session.postgresql else UPDATE_SQLITE
    session.many(sql, [(*row_of(job, MOVING), job.id) for job in jobs], UPDATE_TEMPLATE)


def _remember(session: Session, history: Iterable[tuple[Any, ...]]) -> None:
    session.many(_rows_of(session, INSERT_TRANSITION, 7), history)


def _rows_of(session: Session, sql: str, width: int) -> str:
    """Write an INSERT for `Session.many`."""
    return sql + ("%s" if session.postgresql else _marks(width))


def _insert(sql: str, rows: Sequence[Sequence[Any]]) -> tuple[str, Sequence[Any]]:
    """Write an INSERT of all these rows for `Session.together`."""
    marks = _marks(len(rows[0]))
    return sql + ", ".join([marks] * len(rows)), [*chain.from_iterable(rows)]


@lru_cache
def _marks(width: int) -> str:
    return f"({', '.join('?' * width)})"


def _history(job: Job, actor: str) -> tuple[Any, ...]:
    """Return the row that remembers how a job came to stand as it does."""
    # A job that will be tried again has no reason, but its last change has.
    again = job.status == "queued" and job.error is not None
    reason = (job.error or {}).get("code") if again else job.reason
    return (
        job.id, job.revision, job.status, reason and str(reason)[:64], job.attempt, job.updated_at,
        actor,
    )  # fmt: skip


def _never(attempt: int) -> float:
    """Stand in where no attempt can follow."""
    return 0.0
