"""A service goes from 1.0.0 to 1.1.0 and back while callers go on: nothing is lost or mixed up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import invariants
from stage import Part, Stage

from runner.payload import unpack


@contextlib.contextmanager
def callers(stage: Stage, number: int) -> Iterator[list[int]]:
    """Submit jobs on and on from so many threads; give the statuses of what was refused."""
    over = threading.Event()
    refused: list[int] = []

    def call(name: int) -> None:
        with httpx.Client(base_url=stage.http.base_url, timeout=30, trust_env=False) as http:
            count = 0
            while not over.wait(0.1):
                count += 1
                body = {"text": f"{name} {count}", "seconds": 0.1}
                answer = http.post("/v1/services/proves/jobs", json=body)
                if answer.status_code == 202:
                    stage.accepted.append(answer.json()["id"])
                else:
                    refused.append(answer.status_code)

    with ThreadPoolExecutor(number) as pool:
        calling = [pool.submit(call, one) for one in range(number)]
        try:
            yield refused
        finally:
            over.set()
    for one in calling:
        one.result()


def test_an_upgrade_and_its_rollback_lose_nothing(
    redis_url: str, until: Callable[..., Any], tmp_path: Path
) -> None:
    """Under load 1.1.0 comes, 1.0.0 goes, and back: no submit is refused, every job succeeds, and
    the code that ran each is that of the version its row names."""
    with Stage(redis_url, tmp_path, until) as stage:
        older = tmp_path / "gallery" / "proves.yaml"
        newer = stage.variant("proves", "proves", version="1.1.0", handler="gallery.proves:newer")
        stage.orchestrator()
        first = stage.worker(older, SHUTDOWN_GRACE=10)  # longer than a stop without a push needs
        stage.ready("proves")

        def serves(version: str) -> bool:
            return str(stage.http.get("/v1/services/proves").json()["version"]) == version

        def replaced(before: Part, path: Path, version: str) -> Part:
            """Start the other version beside the one that runs, then stop that."""
            so_far = len(stage.accepted)
            until(lambda: len(stage.accepted) > so_far + 5, 20, "some load")
            after = stage.worker(path, SHUTDOWN_GRACE=10)
            until(lambda: len(living(stage)) == 2, 30, "both versions")
            before.stop()
            assert before.wait() == 0
            until(lambda: serves(version), 20, version)
            so_far = len(stage.accepted)
            until(lambda: len(stage.accepted) > so_far + 5, 20, "more load")
            return after

        with callers(stage, 3) as refused:
            second = replaced(first, newer, "1.1.0")
            replaced(second, older, "1.0.0")
        assert refused == []
        for job_id in stage.accepted:
            done = stage.finished(job_id, within=90)
            assert (done["status"], done["attempt"]) == ("succeeded", 1)
        stage.check(most=1, whole=True)
        stage.sound()
        ran = {job_id: code_of(stage, job_id) for job_id in stage.accepted}
        versions = dict(invariants.rows(stage.database, "SELECT id, service_version FROM job"))
        assert ran == versions
        assert set(ran.values()) == {"1.0.0", "1.1.0"}


def living(stage: Stage) -> list[dict[str, Any]]:
    """Return the workers of the service that take jobs."""
    workers = stage.http.get("/v1/services/proves").json()["workers"]
    return [worker for worker in workers if worker["state"] == "ready"]


def code_of(stage: Stage, job_id: str) -> str:
    """Return which code says that it did a job."""
    sql = "SELECT body FROM payload WHERE kind = 'output' AND job_id = ?"
    ((body,),) = invariants.rows(stage.database, sql, job_id)
    return str(unpack(bytes(body))["code"])
