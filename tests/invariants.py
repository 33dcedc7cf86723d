"""What no fault may break, read off the database and Redis after a run: the invariants I1 to I8.

Each violation is a sentence that begins with the number of its invariant.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg2
import redis
from gallery.proves import proof

from runner.payload import unpack

TERMINAL = ("succeeded", "failed", "canceled")
RANKS = {"queued": 0, "running": 1, **dict.fromkeys(TERMINAL, 2)}
COMPOSITE = ""

LASTING = ("results", "instances", "_kombu")
"""The beginnings of our keys that may stay for ever: one stream, one index, Celery's bindings."""


class Job(NamedTuple):
    """What one row says about a job."""

    id: str
    service: str
    status: str
    attempt: int
    attempts: int
    revision: int
    parent: str | None
    reused: str | None
    canceled: bool


class Change(NamedTuple):
    """One row of a job's history."""

    revision: int
    status: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a database says about jobs; payloads by (job, kind), packed."""

    jobs: Mapping[str, Job]
    histories: Mapping[str, list[Change]]
    payloads: Mapping[tuple[str, str], bytes]


@dataclass(frozen=True, slots=True)
class Seen:
    """What callers and followers have seen: jobs that were accepted, and how often each started.

    `accepted` is None where nobody kept count. `most` is how often one job may be started.
    """

    accepted: Collection[str] | None = None
    starts: Mapping[str, int] = field(default_factory=dict)
    most: int = 9


def rows(url: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask or change the database at a `DATABASE_URL`; `sql` has a `?` for each value."""
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as file:
            return file.execute(sql, values).fetchall()
    with contextlib.closing(psycopg2.connect(url)) as server, server.cursor() as cursor:
        server.autocommit = True
        cursor.execute(sql.replace("?", "%s"), values)
        return list(cursor.fetchall()) if cursor.description else []


def facts(url: str) -> Facts:
    """Read a database whole."""
    jobs = rows(
        url,
        "SELECT id, service, status, attempt, attempts, revision, parent_id, "
        "reused_from, cancel_requested_at IS NOT NULL FROM job",
    )
    histories: dict[str, list[Change]] = defaultdict(list)
    told = "SELECT job_id, revision, status, attempt FROM transition ORDER BY job_id, revision"
    for job_id, *change in rows(url, told):
        histories[job_id].append(Change(*change))
    payloads = rows(url, "SELECT job_id, kind, body FROM payload")
    return Facts(
        {row[0]: Job(*row[:8], bool(row[8])) for row in jobs},
        histories,
        {(job_id, kind): bytes(body) for job_id, kind, body in payloads},
    )


def violations(known: Facts, seen: Seen | None = None) -> list[str]:
    """Return every broken invariant of a database in which nothing moves any more."""
    seen = seen or Seen()
    found: list[str] = []
    for job in known.jobs.values():
        history = known.histories.get(job.id, [])
        found += _ends_once(job, history)
        found += _never_goes_back(job, history)
        found += _has_its_result(job, known)
    found += _nothing_unexpected(known, seen)
    found += _runs_are_bounded(known, seen)
    return found


def _ends_once(job: Job, history: list[Change]) -> Iterator[str]:
    """I1: one terminal state, which is the last and that of the row."""
    ends = [change.status for change in history if change.status in TERMINAL]
    if job.status not in TERMINAL:
        yield f"I1: {job.id} never ended: it is {job.status}"
    elif ends != [job.status]:
        yield f"I1: {job.id} is {job.status} and its ends were {ends}"
    elif history[-1].status != job.status:
        yield f"I1: {job.id} went on after its end"


def _never_goes_back(job: Job, history: list[Change]) -> Iterator[str]:
    """I2: every revision is told, (attempt, rank) never falls, and attempts are bounded."""
    steps = [(change.attempt, RANKS[change.status]) for change in history]
    if steps != sorted(steps):
        yield f"I2: {job.id} went backwards: {steps}"
    if [change.revision for change in history] != list(range(1, job.revision + 1)):
        yield f"I2: {job.id} has a gap in its history"
    first = "succeeded" if job.reused else "queued"
    if history and (history[0].status, history[0].attempt) != (first, 1):
        yield f"I2: {job.id} did not begin as {first}"
    if history and history[-1].attempt != job.attempt:
        yield f"I2: {job.id} is at attempt {job.attempt}, and its history is not"
    if job.attempt > job.attempts:
        yield f"I2: {job.id} had attempt {job.attempt} of {job.attempts}"


def _has_its_result(job: Job, known: Facts) -> Iterator[str]:
    """I3, I4, I8: who succeeded has a readable result that is his; no other has one."""
    packed = known.payloads.get((job.id, "output"))
    if job.service == COMPOSITE or job.status != "succeeded":
        if packed is not None:
            number = "I8" if job.canceled or job.status == "canceled" else "I3"
            yield f"{number}: {job.id} is {job.status} and has a result"
        return
    if packed is None:
        yield f"I3: {job.id} succeeded and its result is lost"
        return
    try:
        output = unpack(packed)
        inputs = unpack(known.payloads[job.id, "input"])
    except (ValueError, KeyError, zlib.error):
        yield f"I3: {job.id} has a result or an input that cannot be read"
        return
    if isinstance(output, dict) and {"job_id", "attempt", "sha256", "code"} <= output.keys():
        wanted = proof(job.id, job.attempt, inputs, output["code"])
        wrong = [key for key, value in wanted.items() if output[key] != value]
        if wrong:
            yield f"I4: {job.id} has the result of other work: {', '.join(wrong)}"


def _nothing_unexpected(known: Facts, seen: Seen) -> Iterator[str]:
    """I5: what was accepted is there, and nothing else; a whole ends after its parts."""
    if seen.accepted is not None:
        for job_id in sorted(set(seen.accepted) - known.jobs.keys()):
            yield f"I5: {job_id} was accepted and is gone"
        alone = {job.id for job in known.jobs.values() if job.parent is None}
        for job_id in sorted(alone - set(seen.accepted)):
            yield f"I5: {job_id} was never accepted"
    for job_id in sorted(known.histories.keys() - known.jobs.keys()):
        yield f"I5: {job_id} has a history and no row"
    for job_id, kind in sorted(known.payloads.keys()):
        if job_id not in known.jobs:
            yield f"I5: {job_id} has an {kind} and no row"
    for job in known.jobs.values():
        whole = known.jobs.get(job.parent or "")
        if whole and whole.status in TERMINAL and job.status not in TERMINAL:
            yield f"I5: {whole.id} ended before its part {job.id}"


def _runs_are_bounded(known: Facts, seen: Seen) -> Iterator[str]:
    """I6: an attempt is taken up once, or again by another worker, but not without end."""
    for job_id, history in known.histories.items():
        begun = Counter(change.attempt for change in history if change.status == "running")
        # The wish to cancel is a change of a running job too.
        wish = job_id in known.jobs and known.jobs[job_id].canceled
        for attempt, times in begun.items():
            if times > seen.most + wish:
                yield f"I6: attempt {attempt} of {job_id} was taken up {times} times"
    for job_id, times in seen.starts.items():
        if times > seen.most:
            yield f"I6: {job_id} was started {times} times"


# --- redis ---------------------------------------------------------------------------------------


def left_over(client: redis.Redis, namespace: str) -> list[str]:
    """Return the broken I7 of a Redis at rest: what waits, what is held, what would stay."""
    found = []
    for raw in client.scan_iter(f"{namespace}:*", count=1000):
        key = raw.decode()
        name = key.removeprefix(f"{namespace}:")
        if name.startswith("q:"):
            found.append(f"I7: messages wait in {key}")
        elif name.startswith("lease:"):
            found.append(f"I7: somebody holds {key}")
        elif name.endswith((":unacked", ":unacked_index")):
            found.append(f"I7: messages are held in {key}")
        elif name == "results" and _held(client, key):
            found.append(f"I7: {_held(client, key)} results are not acknowledged")
        elif client.ttl(key) == -1 and not name.startswith(LASTING):
            found.append(f"I7: {key} would stay for ever")
    return found


def _held(client: redis.Redis, key: str) -> int:
    return int(str(client.xlen(key)))


def starts(client: redis.Redis, namespace: str, job_ids: Iterable[str]) -> dict[str, int]:
    """Count how often each job was started, as the streams of those who follow tell it."""
    counted = {}
    for job_id in job_ids:
        entries: Any = client.xrange(f"{namespace}:live:{job_id}")
        told = [json.loads(fields[b"event"])["event"] for _, fields in entries]
        counted[job_id] = told.count("started")
    return counted
