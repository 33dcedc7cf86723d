"""Every question that the store knows, as functions of a session: SQL on the tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from peewee import SQL, Tuple

from runner.orchestrator.jobs import TERMINAL, Job
from runner.orchestrator.rows import (
    ALL,
    FINISHED_JOBS,
    INPUT,
    MOVING_JOBS,
    OPEN_JOBS,
    SELECT,
    WAITING_JOBS,
    job_of,
    jobs_of,
)
from runner.orchestrator.session import Session
from runner.orchestrator.tables import JobRow
from runner.payload import unpack


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


def get(session: Session, job_id: str) -> Job | None:
    """Return the job, or None where there is none."""
    found = jobs_of(session.rows(SELECT + " WHERE id = ?", job_id))
    return found[0] if found else None


def parts(session: Session, job_id: str) -> list[Job]:
    """Return the parts of a composite job, in the order in which they were asked for."""
    return jobs_of(session.rows(f"{SELECT} WHERE parent_id = ? ORDER BY id", job_id))


def payload(session: Session, job_id: str, kind: str) -> bytes | None:
    """Return the `input` or `output` as it is kept, or None where there is none."""
    found = session.rows("SELECT body FROM payload WHERE job_id = ? AND kind = ?", job_id, kind)
    return bytes(found[0][0]) if found else None


def output(session: Session, job_id: str) -> Any:
    """Return the output as a value, or None where there is none."""
    packed = payload(session, job_id, "output")
    return None if packed is None else unpack(packed)


def transitions(session: Session, job_id: str) -> list[Transition]:
    """Return the changes of a job, oldest first."""
    found = session.rows(
        "SELECT revision, status, reason, attempt, at, actor FROM transition "
        "WHERE job_id = ? ORDER BY revision",
        job_id,
    )
    return [Transition(*row) for row in found]


def ahead(session: Session, job: Job) -> tuple[int, int]:
    """Return how many jobs of the service are queued before this one, and how many run."""
    [(before, running)] = session.rows(
        "SELECT COALESCE(SUM(CASE WHEN status = 'queued' AND (priority > ? OR (priority = ? AND "
        "(created_at, id) < (?, ?))) THEN 1 ELSE 0 END), 0), "
        "COALESCE(SUM(CASE WHEN status = 'running' THEN 1 ELSE 0 END), 0) "
        f"FROM job WHERE {OPEN_JOBS} AND service = ?",
        job.priority, job.priority, job.created_at, job.id, job.service,
    )  # fmt: skip
    return (int(before), int(running)) if job.status == "queued" else (0, int(running))


def mean_seconds(session: Session, service: str) -> float | None:
    """Return how long the latest jobs of a service that succeeded have run, if any did."""
    [(mean,)] = session.rows(
        "SELECT AVG(seconds) FROM (SELECT finished_at - started_at AS seconds FROM job "
        "WHERE service = ? AND status = 'succeeded' AND started_at IS NOT NULL "
        "ORDER BY created_at DESC, id DESC LIMIT 20) AS latest",
        service,
    )
    return None if mean is None else float(mean)


def recent(
    session: Session,
    *,
    limit: int,
    before: tuple[float, str] | None,
    status: str | None,
    service: str | None,
    owner: str | None,
    reason: str | None,
) -> list[Job]:
    """Return the newest jobs that match, newest first; `before` is (created_at, id) of the last."""
    query = JobRow.select().order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    for column, wanted in (
        (JobRow.status, status),
        (JobRow.service, service),
        (JobRow.owner, owner),
        (JobRow.reason, reason),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if service is None:  # the parts of a composite job stand under it
        query = query.where(JobRow.parent_id.is_null())
    if status in TERMINAL:
        query = query.where(SQL(FINISHED_JOBS))
    if before is not None:
        query = query.where(Tuple(JobRow.created_at, JobRow.id) < before)
    return jobs_of(session.select(query))


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
        f"SELECT {ALL}, {INPUT} FROM job WHERE {WAITING_JOBS} "
        "AND service = ? AND manifest_digest = ? ORDER BY priority DESC, created_at, id LIMIT ?",
        service, digest, limit,
    )  # fmt: skip
    return [(job_of(row[:-1]), unpack(row[-1])) for row in rows]


def queue_ages(session: Session, now: float) -> dict[str, tuple[int, float]]:
    """Return for each service that has any how many jobs are queued, and the oldest's wait in s.

    A job that is tried again waits from when its next attempt may start.
    """
    counted = "SELECT service, COUNT(*) AS jobs, MIN(available_at) AS since FROM job WHERE "
    rows = session.rows(
        "SELECT service, SUM(jobs), MIN(since) FROM ("
        f"{counted} {WAITING_JOBS} GROUP BY service UNION ALL "
        f"{counted} {MOVING_JOBS} AND status = 'queued' GROUP BY service) AS held GROUP BY service"
    )
    return {service: (int(jobs), max(0.0, now - since)) for service, jobs, since in rows}


def in_progress(session: Session) -> dict[str, int]:
    """Return how many jobs of each service run; a composite one does not itself."""
    rows = session.rows(
        f"SELECT service, COUNT(*) FROM job WHERE {MOVING_JOBS} AND status = 'running' "
        "AND service <> '' GROUP BY service"
    )
    return dict(rows)


def dispatched(session: Session, before: float) -> list[Job]:
    """Return what was dispatched before that time and has not started."""
    sql = f"{SELECT} WHERE {MOVING_JOBS} AND status = 'queued' AND dispatched_at < ?"
    return jobs_of(session.rows(sql, before))


def running(session: Session) -> list[Job]:
    """Return what runs."""
    return jobs_of(session.rows(f"{SELECT} WHERE {MOVING_JOBS} AND status = 'running'"))


def overdue(session: Session, now: float) -> list[Job]:
    """Return what is queued past its latest start."""
    sql = f"{SELECT} WHERE {OPEN_JOBS} AND status = 'queued' AND queue_deadline_at < ?"
    return jobs_of(session.rows(sql, now))


def past_deadline(session: Session, now: float) -> list[Job]:
    """Return what has not ended at its deadline; composite jobs end with their parts."""
    return jobs_of(
        session.rows(f"{SELECT} WHERE {OPEN_JOBS} AND service <> '' AND deadline_at <= ?", now)
    )


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


def manifest(session: Session, digest: str) -> dict[str, Any] | None:
    """Return the document of a manifest that was kept, or None."""
    found = session.rows("SELECT document FROM manifest WHERE digest = ?", digest)
    return json.loads(found[0][0]) if found else None


def manifests(session: Session) -> list[tuple[str, dict[str, Any], float]]:
    """Return the digest, document and time of last sight of every manifest ever kept."""
    rows = session.rows("SELECT digest, document, seen_at FROM manifest ORDER BY name, seen_at")
    return [(digest, json.loads(document), seen_at) for digest, document, seen_at in rows]
