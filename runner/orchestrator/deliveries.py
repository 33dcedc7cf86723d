"""The webhooks of jobs in the database: whom to tell what, and how often that was tried."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runner.orchestrator.database import Database
from runner.orchestrator.jobs import Job
from runner.orchestrator.resource import job_resource
from runner.orchestrator.session import Session
from runner.stream import when

COMPLETED = ("succeeded", "failed", "canceled")

LARGEST = 20_000
"""Bytes of a body; a job that says more is told without its progress and the details of its end."""

LOGGED = 30
"""Attempts that a delivery remembers."""

COLUMNS = ("id", "job_id", "event", "url", "target", "traceparent", "body", "status", "attempts",
           "failures", "log", "created_at", "due_at")  # fmt: skip
ALL = ", ".join(COLUMNS)
INSERT_WEBHOOK = "INSERT INTO webhook (job_id, url, events, traceparent) VALUES (?, ?, ?, ?)"
INSERT = f"INSERT INTO webhook_delivery ({ALL}) VALUES {{row}} ON CONFLICT (id) DO NOTHING"
DUE = "FROM webhook_delivery WHERE status = 'pending' AND due_at <= ? AND {free}"
CLAIM = (
    f"WITH picked AS MATERIALIZED (SELECT id AS picked_id {DUE} "
    "ORDER BY due_at, id LIMIT ?{lock}) "
    "UPDATE webhook_delivery SET attempts = attempts + 1, due_at = ? FROM picked "
    f"WHERE id = picked_id RETURNING {ALL}"
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom a job tells of which events; `traceparent` is the submit's, if it had one."""

    url: str
    events: tuple[str, ...]
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message and what became of it.

    `target` is the host, `attempts` counts all tries, and `failures` those that the plan of
    retries goes by. `log` tells of the latest tries, `due_at` when the next one may be.
    """

    id: str
    job_id: str
    event: str
    url: str
    target: str
    traceparent: str | None
    body: str
    status: str
    attempts: int
    failures: int
    log: tuple[dict[str, Any], ...]
    created_at: float
    due_at: float | None


# --- in the transactions of jobs -----------------------------------------------------------------


def keep(job_id: str, webhook: Webhook | None) -> list[tuple[str, Sequence[Any]]]:
    """Return the statements that keep the webhook of a new job."""
    if webhook is None:
        return []
    row = (job_id, webhook.url, " ".join(webhook.events), webhook.traceparent)
    return [(INSERT_WEBHOOK, row)]


def enqueue(session: Session, jobs: Iterable[Job]) -> None:
    """Owe a message for every job that has come to tell something to somebody.

    Called in the very transaction of the change, so that neither is there without the other.
    """
    telling = [job for job in jobs if job.finished or job.status == "running"]
    if not telling:
        return
    ids = list({job.id for job in telling})
    which = (
        "job_id = ANY(?)" if session.postgresql else "job_id IN (SELECT value FROM json_each(?))"
    )
    found = session.rows(
        f"SELECT job_id, url, events, traceparent FROM webhook WHERE {which}",
        ids if session.postgresql else json.dumps(ids),
    )
    webhooks = {row[0]: Webhook(row[1], tuple(row[2].split()), row[3]) for row in found}
    rows = [
        _row(job, webhooks[job.id])
        for job in telling
        if job.id in webhooks and _wanted(job, webhooks[job.id])
    ]
    row = "%s" if session.postgresql else f"({', '.join('?' * len(COLUMNS))})"
    session.many(INSERT.format(row=row), rows)


def _wanted(job: Job, webhook: Webhook) -> bool:
    words = {job.status, "completed"} if job.finished else {"start"}
    return not words.isdisjoint(webhook.events)


def _row(job: Job, webhook: Webhook) -> tuple[Any, ...]:
    event = job.status if job.finished else "started"
    # One id for one change, whoever finds it: a message that is owed already is not owed twice.
    message_id = f"{job.id}-{'completed' if job.finished else f'started-{job.attempt}'}"
    body = _body(job, event, message_id)
    return (
        message_id, job.id, event, webhook.url, _target(webhook.url), webhook.traceparent,
        body, "pending", 0, 0, "[]", job.updated_at, job.updated_at,
    )  # fmt: skip


def _target(url: str) -> str:
    """Return the part of a URL that may stand in a log; it fails for none, as jobs depend on it."""
    found = re.match(r"[^/?#]*//[^/?#]*", url)
    return found[0] if found else ""


def _body(job: Job, event: str, message_id: str) -> str:
    """Return a CloudEvent (1.0, structured mode) whose data is the job as it stands now."""
    data = job_resource(job)
    envelope = {
        "specversion": "1.0",
        "id": message_id,
        "type": f"org.nlp-runner.job.{event}.v1",
        "source": "/v1/jobs",
        "subject": job.id,
        "time": when(job.updated_at),
        "datacontenttype": "application/json",
    }
    # Escaped to ASCII: a worker's words may hold lone surrogates, which no UTF-8 can say.
    body = json.dumps({**envelope, "data": data}, separators=(",", ":"))
    if len(body) <= LARGEST:
        return body
    error = data["error"] and {
        key: value[: 1000 if key == "detail" else 100] if isinstance(value, str) else value
        for key, value in data["error"].items()
        if key in ("type", "title", "status", "detail", "code") and isinstance(value, str | int)
    }
    data |= {"progress": None, "error": error}
    return json.dumps({**envelope, "data": data}, separators=(",", ":"))


# --- in transactions of their own ----------------------------------------------------------------


def claim(
    session: Session, now: float, until: float, limit: int, busy: Sequence[str]
) -> list[Delivery]:
    """Take what is due, but for busy targets; nobody else can take it too before `until`."""
    free, targets = _free(session, busy)
    lock = " FOR UPDATE SKIP LOCKED" if session.postgresql else ""
    rows = session.rows(CLAIM.format(free=free, lock=lock), now, targets, limit, until)
    return sorted(map(_delivery, rows), key=lambda one: (one.created_at, one.id))


def due(session: Session, now: float, busy: Sequence[str]) -> bool:
    """Tell whether there is anything to claim."""
    free, targets = _free(session, busy)
    return bool(session.rows(f"SELECT 1 {DUE.format(free=free)} LIMIT 1", now, targets))


def _free(session: Session, busy: Sequence[str]) -> tuple[str, Any]:
    """Return the condition that a target is not one of these, and its value."""
    if session.postgresql:
        return "target <> ALL(?)", [*busy, ""]  # an empty array would have no type
    return "target NOT IN (SELECT value FROM json_each(?))", json.dumps(busy)


def settle(
    session: Session, delivery: Delivery, status: str, failures: int, due_at: float | None,
    entry: dict[str, Any],
) -> bool:  # fmt: skip
    """Write down how a claimed try went, unless a later one has begun; tells whether it was."""
    log = json.dumps([*delivery.log, entry][-LOGGED:])
    return bool(
        session.run(
            "UPDATE webhook_delivery SET status = ?, failures = ?, due_at = ?, log = ? "
            "WHERE id = ? AND attempts = ? AND status = 'pending'",
            status, failures, due_at, log, delivery.id, delivery.attempts,
        )
    )  # fmt: skip


def stop(session: Session, job_id: str) -> None:
    """Tell nobody any more about this job: who was told does not want to be."""
    session.run("DELETE FROM webhook WHERE job_id = ?", job_id)
    session.run(
        "UPDATE webhook_delivery SET status = 'failed', due_at = NULL "
        "WHERE job_id = ? AND status = 'pending'",
        job_id,
    )


def of_job(session: Session, job_id: str) -> list[Delivery]:
    """Return the messages of a job, oldest first."""
    rows = session.rows(
        f"SELECT {ALL} FROM webhook_delivery WHERE job_id = ? ORDER BY created_at, id", job_id
    )
    return [_delivery(row) for row in rows]


def replay(session: Session, job_id: str, delivery_id: str, now: float) -> bool:
    """Owe a message again, now and with a whole plan of retries; tells whether there is one."""
    return bool(
        session.run(
            "UPDATE webhook_delivery SET status = 'pending', failures = 0, due_at = ? "
            "WHERE id = ? AND job_id = ?",
            now, delivery_id, job_id,
        )
    )  # fmt: skip


def _delivery(row: Sequence[Any]) -> Delivery:
    fields = dict(zip(COLUMNS, row, strict=True))
    return Delivery(**{**fields, "log": tuple(json.loads(fields["log"]))})


class Deliveries:
    """The messages of an orchestrator's database, asked and changed from asyncio."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, now: float, until: float, limit: int, busy: Sequence[str]
    ) -> list[Delivery]:
        """Take what is due; see `claim`. Without anything due nothing is written."""
        if not await self._database.read(partial(due, now=now, busy=busy)):
            return []
        return await self._database.write(
            partial(claim, now=now, until=until, limit=limit, busy=busy)
        )

    async def settle(
        self, delivery: Delivery, status: str, failures: int, due_at: float | None,
        entry: dict[str, Any], *, last: bool = False,
    ) -> bool:  # fmt: skip
        """Write down how a try went; `last` says that the job should tell nobody any more."""

        def work(session: Session) -> bool:
            settled = settle(session, delivery, status, failures, due_at, entry)
            if last:
                stop(session, delivery.job_id)
            return settled

        return await self._database.write(work)

    async def of_job(self, job_id: str) -> list[Delivery]:
        """Return the messages of a job, oldest first."""
        return await self._database.read(partial(of_job, job_id=job_id))

    async def replay(self, job_id: str, delivery_id: str, now: float) -> bool:
        """Owe a message again; tells whether there is one."""
        return await self._database.write(
            partial(replay, job_id=job_id, delivery_id=delivery_id, now=now)
        )
