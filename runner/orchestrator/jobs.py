"""What a job is, and the pure fold that moves it on: `advance(job, event)`."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner import errors
from runner.events import Canceled, Event, Failed, Started, Succeeded

OPEN = ("queued", "running")
TERMINAL = ("succeeded", "failed", "canceled")
RANK = {"queued": 0, "running": 1, "succeeded": 2, "failed": 2, "canceled": 2}
"""`(attempt, RANK[status])` of a job only grows."""

COMPOSITE = ""
"""What stands for the service in a composite job; no manifest can have this name."""

BACKOFF_BASE = 1.0
BACKOFF_CAP = 60.0

Backoff = Callable[[int], float]
"""Seconds to wait after the attempt of that number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request and where it stands; its input and output lie apart.

    Times are seconds since the epoch (UTC). `attempts` is the most there may be; `attempt` counts
    from 1. Before `available_at` nothing is dispatched; after `queue_deadline_at` nothing starts.
    `dispatched_at` says that the conveyor holds the job. `input_bytes` is the size before
    compression. `revision` grows by one with each change that a reader can see.

    A composite job has no service of its own but parts, which are jobs: each knows it by
    `parent_id` and is called `part` in it.

    A finished job is erased after `retention` seconds, at `expires_at`; None keeps it. Past
    `deadline_at`, which `deadline_from` has set (the `request` or the `manifest`), it ends wherever
    it is. `fingerprint` says what was asked of what, where its output may answer the same again.
    """

    id: str
    owner: str = ""
    service: str
    service_version: str
    major: int
    manifest_digest: str
    status: str = "queued"
    reason: str | None = None
    attempt: int = 1
    attempts: int = 3
    priority: int = 0
    created_at: float
    available_at: float
    dispatched_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float
    queue_deadline_at: float | None = None
    expires_at: float | None = None
    cancel_requested_at: float | None = None
    cancel_actor: str | None = None
    worker: str | None = None
    progress: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    input_bytes: int = 0
    revision: int = 1
    parent_id: str | None = None
    part: str | None = None
    retention: float | None = None
    deadline_at: float | None = None
    deadline_from: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    reused_from: str | None = None
    retry_of: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the job has reached the state it will keep."""
        return self.status in TERMINAL

    @property
    def composite(self) -> bool:
        """Whether the work is done by other jobs, its parts."""
        return self.service == COMPOSITE


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the job to end; `revoked` says that its message is off the conveyor."""

    actor: str
    revoked: bool = False


def new_id(clock: Callable[[], int] = time.time_ns) -> str:
    """Return a UUID version 7 (RFC 9562) as text; ids sort by their time, `clock` in nanoseconds.

    The 12 bits after the milliseconds hold their fraction, so that ids of one process keep their
    order within a millisecond as well.
    """
    milliseconds, rest = divmod(clock(), 1_000_000)
    fraction = rest * 4096 // 1_000_000
    chance = int.from_bytes(os.urandom(8), "big") >> 2
    bits = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | chance
    return str(uuid.UUID(int=bits))


def backoff_delay(attempt: int, random: Callable[[], float]) -> float:
    """Return the seconds before the next attempt: exponential, capped, with full jitter.

    `random` returns a number in [0, 1).
    """
    return random() * min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt - 1, 30))


def advance(job: Job, event: Event | CancelRequested, now: float, backoff: Backoff) -> Job:
    """Return the job as it stands after the event; the same object when nothing changes.

    A finished job never changes, and an event of another attempt than the job's never lands.
    """
    if job.finished:
        return job
    if isinstance(event, CancelRequested):
        return _cancel(job, event, now)
    if event.attempt != job.attempt:
        return job
    match event:
        case Started():
            return _start(job, event, now)
        case Succeeded():
            return _finish(job, event, now, "succeeded", None, progress=event.progress, error=None)
        case Failed():
            return _fail(job, event, now, backoff)
        case Canceled():
            return _finish(job, event, now, "canceled", _code(event.error), **_ending(job, event))
    return job


def settle(job: Job, parts: Sequence[Job], now: float) -> Job:
    """Return a composite job as its parts leave it; the same object when nothing changes.

    It runs once one of them has begun, and ends with the last one: failed if any failed, else
    canceled if any was, else succeeded.
    """
    if job.finished or not parts:
        return job
    began = [part.started_at or now for part in parts if part.status != "queued"]
    started = min(began, default=None)
    if not all(part.finished for part in parts):
        if job.status == "queued" and started is not None:
            return _changed(job, now, status="running", started_at=started)
        return job
    ended = max(part.finished_at or now for part in parts)
    statuses = {part.status for part in parts}
    status = next(word for word in ("failed", "canceled", "succeeded") if word in statuses)
    error: dict[str, Any] | None = None
    if status != "succeeded":
        codes = {str(part.part): part.reason for part in parts if part.status == status}
        named = ", ".join(f"{name} ({reason})" for name, reason in codes.items())
        kind = errors.PartFailed if status == "failed" else errors.Canceled
        error = kind(f"Of {len(parts)} parts, {status}: {named}.", parts=codes).to_problem()
    return _changed(
        job, now, status=status, reason=error and error["code"], error=error,
        started_at=job.started_at or started, finished_at=ended, expires_at=expiry(job, now),
    )  # fmt: skip


def _start(job: Job, event: Started, now: float) -> Job:
    worker = str(event.worker)[:200]
    if job.status == "queued":
        started = _when(event, job.created_at, now)
        # It can start though it was taken back, when its message was late and not lost.
        sent = started if job.dispatched_at is None else job.dispatched_at
        return _changed(
            job, now, status="running", started_at=started, dispatched_at=sent, worker=worker
        )
    if worker != job.worker:
        return _changed(job, now, worker=worker)
    return job


def _fail(job: Job, event: Failed, now: float, backoff: Backoff) -> Job:
    code = _code(event.error)
    if code == errors.Expired.code and job.status != "queued":
        return job  # The reconciler saw it wait too long just before its start was told.
    if code in errors.RETRYABLE:
        if job.cancel_requested_at is not None:
            problem = errors.Canceled(
                "The job was canceled instead of tried again.", attempt_lost=_code(event.error)
            ).to_problem()
            return _finish(job, event, now, "canceled", problem["code"], error=problem)
        again_at = now + max(0.0, backoff(job.attempt))
        in_time = job.deadline_at is None or again_at < job.deadline_at
        if job.attempt < job.attempts and in_time:
            return _retry(job, event, now, again_at)
    return _finish(job, event, now, "failed", code, **_ending(job, event))


def _retry(job: Job, event: Failed, now: float, available_at: float) -> Job:
    """Queue the next attempt; it may wait for its start as long as the one before."""
    deadline = job.queue_deadline_at
    return _changed(
        job,
        now,
        status="queued",
        attempt=job.attempt + 1,
        available_at=available_at,
        queue_deadline_at=deadline and available_at + (deadline - job.available_at),
        dispatched_at=None,
        started_at=None,
        worker=None,
        progress=None,
        error=_problem(event.error),
    )


def _cancel(job: Job, command: CancelRequested, now: float) -> Job:
    asked: dict[str, Any] = {}
    if job.cancel_requested_at is None:
        asked = {"cancel_requested_at": now, "cancel_actor": command.actor[:200]}
    waiting = job.status == "queued" and (job.dispatched_at is None or command.revoked)
    if waiting and not job.composite:  # a composite one ends with its parts
        problem = errors.Canceled("The job was canceled before it started.").to_problem()
        return _changed(
            job, now, status="canceled", reason=problem["code"], error=problem, finished_at=now,
            expires_at=expiry(job, now), **asked,
        )  # fmt: skip
    return _changed(job, now, **asked) if asked else job


def _finish(
    job: Job, event: Event, now: float, status: str, reason: str | None, **fields: Any
) -> Job:
    finished = _when(event, job.started_at or job.created_at, now)
    return _changed(
        job, now, status=status, reason=reason, finished_at=finished, expires_at=expiry(job, now),
        **fields,
    )  # fmt: skip


def expiry(job: Job, now: float) -> float | None:
    """Return when a job that ends now is to be erased; the parts of another one go with it."""
    return job.expires_at if job.retention is None else now + job.retention


def _ending(job: Job, event: Failed | Canceled) -> dict[str, Any]:
    """Return the fields that an ending without an output leaves behind."""
    return {"error": _problem(event.error), "progress": event.progress or job.progress}


def _changed(job: Job, now: float, **fields: Any) -> Job:
    return replace(job, updated_at=now, revision=job.revision + 1, **fields)


def _when(event: Event, earliest: float, now: float) -> float:
    """Return when the event happened, or `now` where the worker's clock cannot be believed."""
    at = event.at
    return float(at) if isinstance(at, int | float) and earliest <= at <= now else now


def _problem(error: Any) -> dict[str, Any]:
    """Return the problem document; a worker of another make may have sent anything."""
    return error if isinstance(error, dict) else errors.RunnerError().to_problem()


def _code(error: Any) -> str:
    """Return the code of a problem document, or `internal` where it has none."""
    code = _problem(error).get("code")
    return code[:64] if isinstance(code, str) and code else errors.RunnerError.code
