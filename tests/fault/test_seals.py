"""A worker that has not the orchestrator's WIRE_SECRET: it gets no job, and everybody says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage import SECRET, Stage

ANOTHER = "It has another WIRE_SECRET than this orchestrator."
NONE = "It has no WIRE_SECRET, and this orchestrator has one."


def states(stage: Stage) -> dict[str, str | None]:
    """Return the states of the workers of `echo`, each with its error."""
    answer = stage.http.get("/v1/services/echo").json()
    return {worker["state"]: worker["error"] for worker in answer["workers"]}


def health(folder: Path) -> str:
    """Return what the health check says of the worker whose temporary folder this is."""
    done = subprocess.run(
        [sys.executable, "-m", "runner", "health", "--mode", "worker"],
        env={"TMPDIR": str(folder), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return f"{done.returncode} {done.stdout}{done.stderr}"


@pytest.mark.parametrize(("secret", "reason"), [("", NONE), ("another", ANOTHER)])
def test_a_worker_with_another_secret_eats_no_job(
    redis_url: str, until: Callable[..., Any], tmp_path: Path, secret: str, reason: str
) -> None:
    """Beside a good one, it is quarantined and says so in its log and health check; every job ends
    at its first attempt, at once and by the good one."""
    home = tmp_path / "wrong"
    home.mkdir()
    with Stage(redis_url, tmp_path, until) as stage:
        stage.orchestrator()
        good = stage.worker("echo")
        stage.ready("echo")
        wrong = stage.worker("echo", WIRE_SECRET=secret, TMPDIR=home)
        until(lambda: len(states(stage)) == 2, 30, "both workers")
        assert states(stage) == {"ready": None, "quarantined": reason}
        ids = [stage.submit("echo", {"text": str(number)})["id"] for number in range(20)]
        for job_id in ids:
            job = stage.finished(job_id, within=5)
            assert (job["status"], job["attempt"]) == ("succeeded", 1)
            assert stage.runner_pids(job_id) == [good.pid]
        until(lambda: reason in wrong.said(), 15, "the reason in its log")
        until(lambda: health(home).startswith("4 "), 15, "its health check")
        assert "quarantined" in health(home)
        log = stage.parts[0].said()
        assert "without our seal" not in log
        assert wrong.said().count(reason) == 1
        stage.check()
        stage.sound()


def test_a_secret_is_rolled_over(redis_url: str, until: Callable[..., Any], tmp_path: Path) -> None:
    """An orchestrator comes back with another secret while old workers live, jobs wait and one
    runs; once workers with the new one are there, every job succeeds."""
    with Stage(redis_url, tmp_path, until) as stage:
        before = stage.orchestrator()
        old = stage.worker("slow", CONCURRENCY="1")
        stage.ready("slow")
        ids = [stage.submit("slow", {"seconds": 1.0})["id"] for _ in range(4)]
        stage.running(ids[0])
        before.stop()
        before.wait()
        stage.orchestrator(WIRE_SECRET=f"not {SECRET}")
        until(lambda: ANOTHER in old.said(), 30, "the reason in its log")
        stage.worker("slow", WIRE_SECRET=f"not {SECRET}")
        for job_id in ids:
            assert stage.finished(job_id, within=90)["status"] == "succeeded"
        stage.sound()
