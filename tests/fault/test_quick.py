"""What breaks, and what is promised all the same: real processes are killed, frozen and stopped.

Faults that only time can tell of, a silence as long as a lease, are done to three services before
the first test; the tests of what came of it stand last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stage import Part, Stage

GALLERY = ("dies", "memory", "ignores_cancel", "overruns")


@dataclass(frozen=True, slots=True)
class Silenced:
    """Jobs whose workers were killed or frozen while they ran, and who else could run them."""

    killed: str
    last_try: str
    frozen: str
    frozen_part: Part
    at: float


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a running platform with everybody who will be hurt, and two of some."""
    with Stage(redis_url, tmp_path_factory.mktemp("fault"), until) as stage:
        stage.orchestrator()
        twice = [stage.variant("slow", name) for name in ("killed", "frozen", "long")]
        once = [
            stage.variant("slow", "last-try", limits={"timeout": "60s", "attempts": 1}),
            stage.variant("slow", "short"),
        ]
        parts = [stage.worker(path) for path in (*twice, *twice, *once)]
        parts += [stage.worker(name) for name in GALLERY]
        stage.ready(*GALLERY, "killed", "frozen", "long", "last-try", "short")
        stage.until(lambda: sum(s["slots"] for s in stage.services()) == len(parts), 30, "all")
        yield stage


@pytest.fixture(scope="module", autouse=True)
def silenced(stage: Stage) -> Silenced:
    """Do now what shows only after a lease has run out."""
    jobs = [stage.submit(name, {"seconds": 3}) for name in ("killed", "last-try", "frozen")]
    killed, last, frozen = (job["id"] for job in jobs)
    parts = [stage.runner(job_id) for job_id in (killed, last, frozen)]
    for part in parts[:2]:
        for pid in (part.pid, *part.children):
            part.kill(pid)
    for pid in (parts[2].pid, *parts[2].children):
        os.kill(pid, signal.SIGSTOP)
    stage.worker(stage.folder / "last-try.yaml")
    return Silenced(killed, last, frozen, parts[2], time.monotonic())


def succeeds(stage: Stage, service: str, inputs: dict[str, Any]) -> None:
    """Prove that a service still works."""
    assert stage.run(service, inputs)["status"] == "succeeded"


# --- the process that runs the handler dies -------------------------------------------------------


def test_a_killed_child_costs_one_attempt(stage: Stage) -> None:
    """When only the process of a handler is killed, its worker lives and the job runs again."""
    job = stage.submit("short", {"seconds": 2})
    part = stage.runner(job["id"])
    (child,) = part.children
    part.kill(child)
    done = stage.finished(job["id"], within=20)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert part.process.poll() is None
    states = [(state, reason) for state, reason, _ in stage.history(job["id"])]
    assert ("queued", "worker_lost") in states


def test_a_handler_that_ends_its_process_uses_up_its_attempts(stage: Stage) -> None:
    """A handler that always takes its process down fails with `worker_lost`, and harms no other."""
    job = stage.submit("dies", {"attempts": 99})
    done = stage.finished(job["id"], within=40)
    assert (done["status"], done["reason"], done["attempt"]) == ("failed", "worker_lost", 3)
    assert "died" in done["error"]["detail"]
    succeeds(stage, "dies", {"attempts": 0})


def test_a_handler_without_memory_fails_alone(stage: Stage) -> None:
    """A `MemoryError` fails its job at once, without another try, and not the worker."""
    job = stage.run("memory", {"megabytes": 0})
    assert (job["status"], job["reason"], job["attempt"]) == ("failed", "out_of_memory", 1)
    succeeds(stage, "memory", {"megabytes": 2})
    (part,) = [part for part in stage.parts if part.name == "memory"]
    assert part.process.poll() is None


# --- the handler does not listen ------------------------------------------------------------------


def test_a_deaf_handler_is_ended_when_it_is_canceled(stage: Stage) -> None:
    """A handler that never looks up is ended some seconds after the cancel, and the job says so."""
    job = stage.submit("ignores-cancel", {"seconds": 50})
    stage.running(job["id"])
    assert stage.http.post(job["links"]["cancel"]).status_code == 202
    done = stage.finished(job["id"], within=15)
    assert (done["status"], done["reason"]) == ("canceled", "canceled_by_user")
    assert done["error"]["forced"] is True
    succeeds(stage, "ignores-cancel", {"seconds": 0.1})


def test_a_deaf_handler_is_ended_when_its_time_is_up(stage: Stage) -> None:
    """A handler that runs past `limits.timeout` without a checkpoint ends as `timed_out`."""
    done = stage.run("overruns", {"seconds": 50, "deaf": True})
    assert (done["status"], done["reason"], done["attempt"]) == ("failed", "timed_out", 1)
    assert done["error"]["forced"] is True
    assert done["error"]["clock"] == "timeout"
    succeeds(stage, "overruns", {"seconds": 0.1})


# --- the worker is asked to stop ------------------------------------------------------------------


def test_a_stopped_worker_finishes_what_is_short(stage: Stage) -> None:
    """SIGTERM lets a job finish that needs less than the grace; the next one is not begun."""
    running = stage.submit("short", {"seconds": 1})
    part = stage.runner(running["id"])
    waiting = stage.submit("short", {"seconds": 0.1})
    part.stop()
    done = stage.finished(running["id"], within=15)
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    assert part.wait() == 0
    assert stage.job(waiting["id"])["status"] == "queued"
    stage.worker(stage.folder / "short.yaml")
    done = stage.finished(waiting["id"])
    assert (done["status"], done["attempt"]) == ("succeeded", 1)


def test_a_stopped_worker_hands_back_what_is_long(stage: Stage) -> None:
    """SIGTERM ends a job that needs longer than the grace; it is run elsewhere from the start."""
    job = stage.submit("long", {"seconds": 6})
    part = stage.runner(job["id"])
    part.stop()
    began = time.monotonic()
    part.wait()
    assert time.monotonic() - began < 10
    done = stage.finished(job["id"], within=30)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert ("queued", "interrupted", 2) in stage.history(job["id"])
    assert stage.runner_pids(job["id"])[-1] != part.pid


# --- the orchestrator dies ------------------------------------------------------------------------


def test_a_killed_orchestrator_loses_nothing(
    redis_url: str, until: Callable[..., Any], tmp_path: Path
) -> None:
    """Jobs that run, wait or are just being accepted outlive `kill -9` of the orchestrator."""
    with Stage(redis_url, tmp_path, until) as stage:
        first = stage.orchestrator()
        stage.worker("slow")
        stage.worker("echo")
        stage.ready("slow", "echo")
        jobs = [stage.submit("slow", {"seconds": 1})["id"] for _ in range(6)]
        stage.running(jobs[0])
        accepted: list[str] = []

        def submit_on_and_on(number: int) -> None:
            with contextlib.suppress(Exception):
                while True:
                    accepted.append(stage.submit("echo", {"text": str(number)})["id"])

        with ThreadPoolExecutor(3) as callers:
            pending = [callers.submit(submit_on_and_on, number) for number in range(3)]
            until(lambda: len(accepted) > 20, 20)
            first.kill()
            for one in pending:
                one.result()
        first.wait()
        second = stage.orchestrator()
        for job_id in (*jobs, *accepted):
            done = stage.finished(job_id)
            assert (done["status"], done["attempt"]) == ("succeeded", 1)
            assert stage.http.get(done["links"]["result"]).status_code == 200
        stage.check()
        stage.sound()
        second.stop()
        assert second.wait() == 0


# --- what only time can tell ----------------------------------------------------------------------


def test_a_job_outlives_its_worker(stage: Stage, silenced: Silenced) -> None:
    """A job whose worker was killed with all its processes is run again by another one."""
    done = stage.finished(silenced.killed, within=60)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert time.monotonic() - silenced.at < 90


def test_a_last_attempt_that_is_lost_fails(stage: Stage, silenced: Silenced) -> None:
    """A job whose worker was killed in its last attempt fails as `worker_lost`, and never hangs."""
    done = stage.finished(silenced.last_try, within=60)
    assert (done["status"], done["reason"], done["attempt"]) == ("failed", "worker_lost", 1)
    succeeds(stage, "last-try", {"seconds": 0.1})


def test_a_worker_that_comes_back_is_too_late(stage: Stage, silenced: Silenced) -> None:
    """A worker frozen for longer than its lease finds its job done, and changes nothing."""
    done = stage.finished(silenced.frozen, within=60)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    part = silenced.frozen_part
    before = part.said()
    for pid in (part.pid, *part.children):
        os.kill(pid, signal.SIGCONT)
    stage.until(lambda: silenced.frozen in part.said().removeprefix(before), 20, "a late word")
    assert stage.job(silenced.frozen) == done
    for _ in range(4):
        succeeds(stage, "frozen", {"seconds": 0.1})


def test_everything_has_ended_once(stage: Stage) -> None:
    """After all of this every job has ended exactly once, and Redis holds nothing of them."""
    stage.check(within=60)
    stage.sound()
