"""The checker of the fault tests is itself checked: it finds every lie in a good database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import invariants
import pytest
import redis
from gallery.proves import proof
from invariants import Seen
from stage import Stage

from runner.payload import pack, unpack

SUCCEEDED = "(SELECT id FROM job WHERE status = 'succeeded' AND service = 'proves' LIMIT 1)"
CANCELED = "(SELECT id FROM job WHERE status = 'canceled' LIMIT 1)"
FAILED = "(SELECT id FROM job WHERE status = 'failed' LIMIT 1)"
LAST = f"(SELECT MAX(revision) FROM transition WHERE job_id = {SUCCEEDED})"
OUTPUT = "INSERT INTO payload (job_id, kind, body) VALUES ({}, 'output', x'00')"
CHANGE = "INSERT INTO transition VALUES ({}, {} + 1, '{}', NULL, {}, 0, '')"


@pytest.fixture(scope="module")
def good(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform after a quiet day: jobs that succeeded, failed, were canceled, had parts."""
    with Stage(redis_url, tmp_path_factory.mktemp("good"), until) as stage:
        stage.orchestrator()
        stage.worker("proves")
        stage.worker("dies")
        stage.ready("proves", "dies")
        jobs = [stage.submit("proves", {"text": f"{n} é"})["id"] for n in range(4)]
        late = stage.submit("proves", {"seconds": 30})["id"]
        jobs.append(stage.submit("dies", {"attempts": 99})["id"])
        whole = {"parts": {name: {"service": "proves", "input": {}} for name in "ab"}}
        answer = stage.http.post("/v1/jobs", json=whole)
        assert answer.status_code == 202, answer.text
        stage.accepted.append(answer.json()["id"])
        stage.running(late)
        assert stage.http.post(f"/v1/jobs/{late}/cancel").status_code == 202
        for job_id in stage.accepted:
            stage.finished(job_id)
        yield stage


def test_a_good_day_breaks_nothing(good: Stage) -> None:
    """What the platform leaves when nothing goes wrong breaks no invariant, and each job ran."""
    good.check(most=3, whole=True)
    states = {job.status for job in invariants.facts(good.database).jobs.values()}
    assert states == {"succeeded", "failed", "canceled"}


LIES = {
    "never ended": ("I1", f"UPDATE job SET status = 'running' WHERE id = {SUCCEEDED}"),
    "ended twice": ("I1", CHANGE.format(SUCCEEDED, LAST, "failed", 1)),
    "ended and went on": ("I1", CHANGE.format(SUCCEEDED, LAST, "running", 1)),
    "ended as something else": ("I1", f"UPDATE job SET status = 'failed' WHERE id = {SUCCEEDED}"),
    "no history": ("I1", f"DELETE FROM transition WHERE job_id = {SUCCEEDED}"),
    "attempt fell": (
        "I2", f"UPDATE transition SET attempt = 0 WHERE job_id = {SUCCEEDED} AND revision = {LAST}",
    ),
    "begun in the middle": (
        "I2", f"UPDATE transition SET attempt = 2 WHERE job_id = {SUCCEEDED} AND revision = 1",
    ),
    "a gap": ("I2", f"DELETE FROM transition WHERE job_id = {SUCCEEDED} AND revision = 1"),
    "too many attempts": ("I2", f"UPDATE job SET attempts = 0 WHERE id = {SUCCEEDED}"),
    "result lost": (
        "I3", f"DELETE FROM payload WHERE kind = 'output' AND job_id = {SUCCEEDED}",
    ),
    "result unreadable": (
        "I3", f"UPDATE payload SET body = x'00' WHERE kind = 'output' AND job_id = {SUCCEEDED}",
    ),
    "failed with a result": ("I3", OUTPUT.format(FAILED)),
    "canceled with a result": ("I8", OUTPUT.format(CANCELED)),
    "input changed": (
        "I4", f"UPDATE payload SET body = :other WHERE kind = 'input' AND job_id = {SUCCEEDED}",
    ),
    "another job's result": (
        "I4", f"UPDATE payload SET body = :stolen WHERE kind = 'output' AND job_id = {SUCCEEDED}",
    ),
    "another attempt's result": (
        "I4", f"UPDATE payload SET body = :late WHERE kind = 'output' AND job_id = {SUCCEEDED}",
    ),
    "accepted and gone": ("I5", f"DELETE FROM job WHERE id = {SUCCEEDED}"),
    "never accepted": (
        "I5", f"UPDATE job SET id = 'stranger' WHERE id = {SUCCEEDED}",
    ),
    "a result without a job": ("I5", "INSERT INTO payload VALUES ('nobody', 'output', x'00')"),
    "a history without a job": ("I5", CHANGE.format("'nobody'", 0, "queued", 1)),
    "the whole before its part": (
        "I5", "UPDATE job SET status = 'queued' WHERE id = "
              "(SELECT id FROM job WHERE parent_id IS NOT NULL LIMIT 1)",
    ),
    "taken up without end": (
        "I6", "WITH RECURSIVE n (i) AS (SELECT 90 UNION ALL SELECT i + 1 FROM n WHERE i < 110) "
              f"INSERT INTO transition SELECT {SUCCEEDED}, i, 'running', NULL, 1, 0, '' FROM n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_in_the_database_is_found(good: Stage, tmp_path: Path, lie: str) -> None:
    """One lie in a copy of a good database is told, under the number of what it breaks."""
    number, sql = LIES[lie]
    source = good.database.removeprefix("sqlite:///")
    copy = str(tmp_path / "copy.db")
    with contextlib.closing(sqlite3.connect(source)) as one:
        one.execute("VACUUM INTO ?", [copy])
    known = invariants.facts(f"sqlite:///{copy}")
    ((job_id,),) = invariants.rows(f"sqlite:///{copy}", f"SELECT {SUCCEEDED}")
    attempt, inputs = known.jobs[job_id].attempt, unpack(known.payloads[job_id, "input"])
    forged = {
        "other": pack({**inputs, "text": "forged"}),
        "stolen": pack(proof("another", attempt, inputs, "1.0.0")),
        "late": pack(proof(job_id, attempt + 1, inputs, "1.0.0")),
    }
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as lying:
        lying.execute("DROP TRIGGER job_finished_is_final")
        used = {key: value for key, value in forged.items() if f":{key}" in sql}
        lying.execute(sql, used)
        assert lying.total_changes > 0
    found = invariants.violations(invariants.facts(f"sqlite:///{copy}"), Seen(good.accepted))
    assert [told for told in found if told.startswith(number)], found


def test_runs_without_end_are_found(good: Stage) -> None:
    """A job that was started more often than its faults explain is told."""
    known = invariants.facts(good.database)
    seen = Seen(good.accepted, {good.accepted[0]: 4}, most=3)
    assert [told[:2] for told in invariants.violations(known, seen)] == ["I6"]


@pytest.mark.parametrize(
    ("key", "put"),
    [
        ("q:echo:0123", lambda client, key: client.lpush(key, "x")),
        ("lease:a", lambda client, key: client.set(key, "x", ex=60)),
        ("echo:unacked", lambda client, key: client.hset(key, "a", "x")),
        ("echo:unacked_index", lambda client, key: client.zadd(key, {"a": 1})),
        ("results", lambda client, key: client.xadd(key, {"a": "b"})),
        ("job:a", lambda client, key: client.hset(key, "a", "x")),
        ("live:a", lambda client, key: client.xadd(key, {"a": "b"})),
    ],
)
def test_what_is_left_in_redis_is_found(
    raw: redis.Redis, namespace: str, key: str, put: Callable[[redis.Redis, str], Any]
) -> None:
    """A message, a lease, an unacknowledged result or a key without an end is told."""
    raw.set(f"{namespace}:job:fine", "x", ex=60)
    raw.sadd(f"{namespace}:instances", "x")
    assert invariants.left_over(raw, namespace) == []
    put(raw, f"{namespace}:{key}")
    (told,) = invariants.left_over(raw, namespace)
    assert told.startswith("I7")
    assert key in told or key == "results"
