"""What breaks, and what is promised all the same: real processes are killed, frozen and stopped.

What only time can tell, because it takes as long as a lease, is done before the first test; the
tests of what came of it stand last.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from stage import Part, Stage, gallery

from runner.broker import Producer, queue_name
from runner.embedded import running_redis
from runner.wire import connect

DEAF = """
import time
from contextlib import suppress
from threading import Event

def run(ctx, seconds):
    end, done = time.monotonic() + seconds, 0
    with ctx.step("wait"):
        while time.monotonic() < end:
            with suppress(BaseException):
                done += not Event().wait(0.02)
    return {"done": done}
"""

GALLERY = ("dies", "memory", "ignores_cancel", "overruns")


@dataclass(frozen=True, slots=True)
class Silenced:
    """Jobs whose workers were killed or frozen while they ran, and who else could run them."""

    killed: str
    last_try: str
    frozen: str
    frozen_part: Part
    deaf: str
    deaf_part: Part
    at: float


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a running platform with everybody who will be hurt, and two of some."""
    with Stage(redis_url, tmp_path_factory.mktemp("fault"), until) as stage:
        stage.orchestrator()
        twice = [stage.variant("slow", name) for name in ("killed", "frozen", "long")]
        (stage.folder / "deaf.py").write_text(DEAF)
        twice.append(stage.variant("slow", "deaf", handler="deaf:run"))
        once = [
            stage.variant("slow", "last-try", limits={"timeout": "60s", "attempts": 1}),
            stage.variant("slow", "short"),
        ]
        parts = [stage.worker(path) for path in (*twice, *twice, *once)]
        parts += [stage.worker(name) for name in GALLERY]
        stage.ready(*GALLERY, "killed", "frozen", "long", "deaf", "last-try", "short")
        stage.until(lambda: sum(s["slots"] for s in stage.services()) == len(parts), 30, "all")
        yield stage


@dataclass(frozen=True, slots=True)
class Shaken:
    """A platform whose Redis lost everything while one job ran and others waited."""

    stage: Stage
    jobs: list[str]


@contextlib.contextmanager
def shaken(folder: Path, until: Callable[..., Any], *, restart: bool) -> Iterator[Shaken]:
    """Let a Redis forget all it knows, or die and come back empty, while it carries jobs."""
    with contextlib.ExitStack() as stack:
        url, process = stack.enter_context(running_redis(folder / "redis", durable=False))
        stage = stack.enter_context(Stage(url, folder, until))
        stage.orchestrator()
        stage.worker("slow")
        stage.ready("slow")
        jobs = [stage.submit("slow", {"seconds": 2})["id"] for _ in range(5)]
        stage.running(jobs[0])
        if restart:
            process.kill()
            process.wait()
            port = urlsplit(url).port
            stack.enter_context(running_redis(folder / "again", port, durable=False))
        else:
            stage.redis.flushall()
        yield Shaken(stage, jobs)


@pytest.fixture(scope="module")
def flushed(
    until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shaken]:
    """Give what a FLUSHALL left."""
    with shaken(tmp_path_factory.mktemp("flushed"), until, restart=False) as found:
        yield found


@pytest.fixture(scope="module")
def restarted(
    until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shaken]:
    """Give what the death of a Redis without a disk left."""
    with shaken(tmp_path_factory.mktemp("restarted"), until, restart=True) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def _early(flushed: Shaken, restarted: Shaken, silenced: Silenced) -> None:
    """Do these faults before the first test."""


@pytest.fixture(scope="module")
def silenced(stage: Stage) -> Silenced:
    """Do now what shows only after a lease has run out."""
    names = ("killed", "last-try", "frozen", "deaf")
    jobs = [stage.submit(name, {"seconds": 3 if name != "deaf" else 12}) for name in names]
    killed, last, frozen, deaf = (job["id"] for job in jobs)
    parts = [stage.runner(job["id"]) for job in jobs]
    for part in parts[:2]:
        for pid in (part.pid, *part.children):
            part.kill(pid)
    for pid in (parts[2].pid, *parts[2].children):
        os.kill(pid, signal.SIGSTOP)
    parts[3].stop()
    stage.worker(stage.folder / "last-try.yaml")
    return Silenced(killed, last, frozen, parts[2], deaf, parts[3], time.monotonic())


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


# --- the message is forged ------------------------------------------------------------------------


def test_a_forged_message_runs_nothing_and_stops_nobody(stage: Stage) -> None:
    """Messages of jobs, tasks and forms that are none of ours are thrown away one by one."""
    manifest = gallery("memory")
    queue = queue_name("memory", manifest.digest)
    client = connect(stage.redis_url, "forger")
    producer = Producer(stage.redis_url, stage.namespace, client)
    producer.send("forged", 1, "memory", "0" * 64)
    sample = client.lpop(f"{stage.namespace}:{queue_name('memory', '0' * 64)}")
    sound = json.loads(sample)  # type: ignore[arg-type]
    sound["properties"]["delivery_info"] = {"exchange": queue, "routing_key": queue}
    empty = base64.b64encode(b"[[], {}, {}]").decode()
    odd = base64.b64encode(b'[[], {"job": 1, "attempt": "x"}, {}]').decode()
    for body, headers in (
        (sound["body"], {}),
        (sound["body"], {"id": "abc"}),
        (sound["body"], {"task": "os.system"}),
        (sound["body"], {"task": "celery.backend_cleanup"}),
        (empty, {}),
        (empty, {"id": "abc"}),
        (odd, {"id": "abc.x"}),
    ):
        forged = {**sound, "body": body, "headers": {**sound["headers"], **headers}}
        client.lpush(f"{stage.namespace}:{queue}", json.dumps(forged))
    succeeds(stage, "memory", {"megabytes": 1})
    (part,) = [part for part in stage.parts if part.name == "memory"]
    assert part.process.poll() is None
    assert stage.messages(manifest) == 0
    producer.close()
    client.close()


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


def test_a_worker_that_is_loading_stops_at_once(stage: Stage, tmp_path: Path) -> None:
    """SIGTERM during a long load ends all processes of a worker in seconds: nothing was begun."""
    (stage.folder / "loads.py").write_text("import threading\nthreading.Event().wait(100)\n")
    part = stage.worker(stage.variant("slow", "loads", handler="loads:run", examples=[]))
    url = "/v1/services/loads"
    stage.until(lambda: stage.http.get(url).json().get("status") == "starting", 30)
    (child,) = stage.until(lambda: part.children, 10)
    part.stop()
    assert part.wait(5) == 0
    stage.until(lambda: not Path(f"/proc/{child}").exists(), 5, "the end of the child")
    stage.until(lambda: stage.http.get(url).json()["status"] == "unavailable", 5)


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


def test_a_deaf_handler_does_not_keep_its_worker(stage: Stage, silenced: Silenced) -> None:
    """A handler that catches even the stop of its worker is ended, and its job runs elsewhere."""
    assert silenced.deaf_part.wait(1) == 0
    done = stage.finished(silenced.deaf, within=60)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert ("queued", "interrupted", 2) in stage.history(silenced.deaf)


@pytest.mark.parametrize("kind", ["flushed", "restarted"])
def test_a_redis_that_loses_everything_loses_no_job(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """After FLUSHALL, or a Redis that died and came back empty, what ran is finished, what waited
    runs, each once; and the platform works on without a restart."""
    shaken: Shaken = request.getfixturevalue(kind)
    stage = shaken.stage
    for job_id in shaken.jobs:
        done = stage.finished(job_id, within=60)
        assert (done["status"], done["attempt"]) == ("succeeded", 1)
    stage.ready("slow")
    succeeds(stage, "slow", {"seconds": 0.1})
    stage.check()
    stage.sound()


def test_everything_has_ended_once(stage: Stage) -> None:
    """After all of this every job has ended exactly once, and Redis holds nothing of them."""
    stage.check(within=60)
    stage.sound()
