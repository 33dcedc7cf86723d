"""What breaks, and what is promised all the same: real processes are killed, frozen and stopped.

Most faults need time to show, some as long as a lease. They are done to one service each before the
first test, so that they take their time together; each test tells what came of one.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from stage import SEAL, Part, Stage, gallery

from runner.broker import VISIBILITY, Producer, queue_name
from runner.connection import connect
from runner.embedded import running_redis
from runner.payload import pack

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
"""A handler that not even the stop of its worker ends."""

LOADS = "import threading\nthreading.Event().wait(100)\n"
"""A handler that takes its time to load."""

GALLERY = ("dies", "memory", "ignores_cancel", "overruns")
ALONE = ("one-child", "last-try", "short")
TWICE = ("killed", "frozen", "long", "deaf", "lasting")
"""Services like `slow`, with one worker and with two."""

INPUTS: dict[str, dict[str, Any]] = {
    "killed": {"seconds": 3},
    "last-try": {"seconds": 3},
    "frozen": {"seconds": 3},
    "one-child": {"seconds": 2},
    "long": {"seconds": 4},
    "deaf": {"seconds": 12},
    "dies": {"attempts": 99},
    "overruns": {"seconds": 50, "deaf": True},
    "ignores-cancel": {"seconds": 50},
    "lasting": {"seconds": VISIBILITY + 7},
}
"""What is submitted to each service before it is hurt; one is only given time."""

MESSAGE = 100
"""Bytes that a message to a process has at least; its length is written before it."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A job that was hurt, and the worker that ran it then."""

    job_id: str
    part: Part


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a running platform with everybody who will be hurt, and a second worker for some."""
    with Stage(redis_url, tmp_path_factory.mktemp("fault"), until) as stage:
        (stage.folder / "deaf.py").write_text(DEAF)
        changes: dict[str, Any] = {
            "last-try": {"limits": {"timeout": "60s", "attempts": 1}},
            "deaf": {"handler": "deaf:run"},
        }
        stage.orchestrator()
        for name in (*ALONE, *TWICE):
            path = stage.variant("slow", name, **changes.get(name, {}))
            level = "debug" if name == "frozen" else "info"  # its late success is to be seen
            for _ in range(1 + (name in TWICE)):
                stage.worker(path, LOG_LEVEL=level)
        for name in GALLERY:
            stage.worker(name)
        slots = len(stage.parts) - 1
        stage.until(lambda: sum(s["slots"] for s in stage.services()) == slots, 60, "all workers")
        yield stage


@pytest.fixture(scope="module", autouse=True)
def victims(stage: Stage) -> dict[str, Victim]:
    """Submit a job to each service and hurt it while it runs."""
    jobs = {name: stage.submit(name, inputs)["id"] for name, inputs in INPUTS.items()}
    found = {
        name: Victim(job_id, stage.runner(job_id))
        for name, job_id in jobs.items() if name != "dies"
    }  # fmt: skip
    found["dies"] = Victim(jobs["dies"], next(p for p in stage.parts if p.name == "dies"))
    for name in ("killed", "last-try"):
        part = found[name].part
        for pid in (part.pid, *part.children):
            part.kill(pid)
    stage.worker(stage.folder / "last-try.yaml")
    frozen = found["frozen"].part
    for pid in (frozen.pid, *frozen.children):
        os.kill(pid, signal.SIGSTOP)
    (child,) = found["one-child"].part.children
    found["one-child"].part.kill(child)
    for name in ("long", "deaf"):
        found[name].part.stop()
    answer = stage.http.post(f"/v1/jobs/{jobs['ignores-cancel']}/cancel")
    assert answer.status_code == 202
    return found


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
def _early(flushed: Shaken, restarted: Shaken) -> None:
    """Let these take their time too."""


def succeeds(stage: Stage, service: str, inputs: dict[str, Any]) -> None:
    """Prove that a service still works."""
    assert stage.run(service, inputs)["status"] == "succeeded"


# --- what shows soon -----------------------------------------------------------------------------


def test_a_handler_without_memory_fails_alone(stage: Stage) -> None:
    """A `MemoryError` fails its job at once, without another try, and not the worker."""
    job = stage.run("memory", {"megabytes": 0})
    assert (job["status"], job["reason"], job["attempt"]) == ("failed", "out_of_memory", 1)
    succeeds(stage, "memory", {"megabytes": 2})
    (part,) = [part for part in stage.parts if part.name == "memory"]
    assert part.process.poll() is None


def test_a_forged_message_runs_nothing_and_stops_nobody(stage: Stage) -> None:
    """Messages of jobs, tasks and forms that are none of ours are thrown away one by one."""
    manifest = gallery("memory")
    queue = queue_name("memory", manifest.digest, SEAL)
    client = connect(stage.redis_url, "forger")
    producer = Producer(stage.redis_url, stage.namespace, client)
    producer.send("forged", 1, "memory", "0" * 64)
    sample: Any = client.lpop(f"{stage.namespace}:{queue_name('memory', '0' * 64)}")
    sound = json.loads(sample)
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
    deep, odd_forms = b"[" * 200_000, (b"[]", b"5", b'{"body": 1}', b'{"headers": []}')
    for raw in (b"", b"no JSON", b"\xff\x00", deep, *odd_forms):
        client.lpush(f"{stage.namespace}:{queue}", raw)
    tagless = {"properties": {**sound["properties"], "delivery_tag": None}}
    for change in (tagless, {"body": "!"}, {"content-type": "application/x-python"}):
        client.lpush(f"{stage.namespace}:{queue}", json.dumps({**sound, **change}))
    # And one that looks like ours in every way but its seal, with an input laid ready.
    key = f"{stage.namespace}:job:forged"
    client.hset(key, mapping={"attempt": 1, "input": pack({"megabytes": 1}), "seal": b"0" * 64})
    client.lpush(f"{stage.namespace}:{queue}", json.dumps(sound))
    succeeds(stage, "memory", {"megabytes": 1})
    assert client.hget(key, "done") is None
    client.delete(key, f"{stage.namespace}:lease:forged")
    (part,) = [part for part in stage.parts if part.name == "memory"]
    assert "has not our seal" in part.said()
    assert part.process.poll() is None
    assert stage.messages(manifest) == 0
    producer.close()
    client.close()


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


def unread(pid: int) -> int:
    """Return how many bytes wait in the pipes of a process."""
    total = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if path.is_fifo():
            pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            size = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
            total += int.from_bytes(size, sys.byteorder)
            os.close(pipe)
    return total


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
def test_a_job_given_out_at_the_last_moment_does_not_hold_its_worker(
    stage: Stage, then: signal.Signals
) -> None:
    """SIGTERM between handing a job to a process and hearing that it began: the worker still hears
    the end of it, or runs it elsewhere if the process dies, and leaves by itself."""
    name = f"given-{then.name.lower()}"
    path = stage.variant("slow", name)
    part = stage.worker(path, SHUTDOWN_GRACE=60)
    stage.ready(name)
    (child,) = part.children
    os.kill(child, signal.SIGSTOP)
    job = stage.submit(name, {"seconds": 0.1})
    given = stage.until(lambda: (size := unread(child)) > MESSAGE and size, 20, "a message")
    part.stop()
    stage.until(lambda: unread(child) > given, 20, "the word that there is nothing more to do")
    os.kill(child, then)
    assert part.wait(15) == 0
    if then == signal.SIGKILL:
        stage.worker(path)
    done = stage.finished(job["id"])
    assert (done["status"], done["attempt"]) == ("succeeded", 1)


def test_a_worker_that_is_loading_stops_at_once(stage: Stage) -> None:
    """SIGTERM during a long load ends all processes of a worker in seconds: nothing was begun."""
    (stage.folder / "loads.py").write_text(LOADS)
    part = stage.worker(stage.variant("slow", "loads", handler="loads:run", examples=[]))
    url = "/v1/services/loads"
    stage.until(lambda: stage.http.get(url).json().get("status") == "starting", 30)
    (child,) = stage.until(lambda: part.children, 10)
    part.stop()
    assert part.wait(5) == 0
    stage.until(lambda: not Path(f"/proc/{child}").exists(), 5, "the end of the child")
    stage.until(lambda: stage.http.get(url).json()["status"] == "unavailable", 5)


# --- the process that runs the handler dies -------------------------------------------------------


def test_a_killed_child_costs_one_attempt(stage: Stage, victims: dict[str, Victim]) -> None:
    """When only the process of a handler is killed, its worker lives and the job runs again."""
    victim = victims["one-child"]
    done = stage.finished(victim.job_id, within=20)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert stage.runner_pids(victim.job_id) == [victim.part.pid] * 2
    assert ("queued", "worker_lost", 2) in stage.history(victim.job_id)


def test_a_handler_that_ends_its_process_uses_up_its_attempts(
    stage: Stage, victims: dict[str, Victim]
) -> None:
    """A handler that always takes its process down fails with `worker_lost`, and harms no other."""
    done = stage.finished(victims["dies"].job_id, within=40)
    assert (done["status"], done["reason"], done["attempt"]) == ("failed", "worker_lost", 3)
    assert "died" in done["error"]["detail"]
    succeeds(stage, "dies", {"attempts": 0})
    assert victims["dies"].part.process.poll() is None


# --- the handler does not listen ------------------------------------------------------------------


def test_a_deaf_handler_is_ended_when_it_is_canceled(
    stage: Stage, victims: dict[str, Victim]
) -> None:
    """A handler that never looks up is ended some seconds after the cancel, and the job says so."""
    done = stage.finished(victims["ignores-cancel"].job_id, within=15)
    assert (done["status"], done["reason"]) == ("canceled", "canceled_by_user")
    assert done["error"]["forced"] is True
    succeeds(stage, "ignores-cancel", {"seconds": 0.1})


def test_a_deaf_handler_is_ended_when_its_time_is_up(
    stage: Stage, victims: dict[str, Victim]
) -> None:
    """A handler that runs past `limits.timeout` without a checkpoint ends as `timed_out`."""
    done = stage.finished(victims["overruns"].job_id, within=15)
    assert (done["status"], done["reason"], done["attempt"]) == ("failed", "timed_out", 1)
    assert done["error"]["forced"] is True
    assert done["error"]["clock"] == "timeout"
    succeeds(stage, "overruns", {"seconds": 0.1})


# --- the worker is asked to stop ------------------------------------------------------------------


def test_a_stopped_worker_hands_back_what_is_long(stage: Stage, victims: dict[str, Victim]) -> None:
    """SIGTERM ends a job that needs longer than the grace; it is run elsewhere from the start."""
    victim = victims["long"]
    done = stage.finished(victim.job_id, within=30)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert ("queued", "interrupted", 2) in stage.history(victim.job_id)
    first, second = stage.runner_pids(victim.job_id)
    assert first == victim.part.pid != second
    assert victim.part.wait(1) == 0


def test_a_deaf_handler_does_not_keep_its_worker(stage: Stage, victims: dict[str, Victim]) -> None:
    """A handler that catches even the stop of its worker is ended, and its job runs elsewhere."""
    victim = victims["deaf"]
    assert victim.part.wait(15) == 0
    done = stage.finished(victim.job_id, within=30)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert ("queued", "interrupted", 2) in stage.history(victim.job_id)


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
        jobs = [stage.submit("slow", {"seconds": 0.7})["id"] for _ in range(6)]
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
        stage.check()  # a submit without an answer may be a job too
        stage.sound()
        second.stop()
        assert second.wait() == 0


# --- what only time can tell ----------------------------------------------------------------------


def test_a_job_outlives_its_worker(stage: Stage, victims: dict[str, Victim]) -> None:
    """A job whose worker was killed with all its processes is run again by another one."""
    victim = victims["killed"]
    done = stage.finished(victim.job_id, within=40)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    first, second = stage.runner_pids(victim.job_id)
    assert first == victim.part.pid != second


def test_a_last_attempt_that_is_lost_fails(stage: Stage, victims: dict[str, Victim]) -> None:
    """A job whose worker was killed in its last attempt fails as `worker_lost`, and never hangs."""
    done = stage.finished(victims["last-try"].job_id, within=40)
    assert (done["status"], done["reason"], done["attempt"]) == ("failed", "worker_lost", 1)
    succeeds(stage, "last-try", {"seconds": 0.1})


def test_a_worker_that_comes_back_is_too_late(stage: Stage, victims: dict[str, Victim]) -> None:
    """A worker frozen for longer than its lease finds its job done, and changes nothing."""
    victim = victims["frozen"]
    done = stage.finished(victim.job_id, within=40)
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    before = victim.part.said()
    for pid in (victim.part.pid, *victim.part.children):
        os.kill(pid, signal.SIGCONT)
    stage.until(lambda: victim.job_id in victim.part.said().removeprefix(before), 20, "a late word")
    assert stage.job(victim.job_id) == done
    for _ in range(4):
        succeeds(stage, "frozen", {"seconds": 0.1})


def test_a_job_that_outlasts_its_message_runs_once(
    stage: Stage, victims: dict[str, Victim]
) -> None:
    """A job that runs for longer than Redis keeps its message from others is not run by two."""
    victim = victims["lasting"]
    done = stage.finished(victim.job_id, within=60)
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    assert stage.runner_pids(victim.job_id) == [victim.part.pid]


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
    stage.check(whole=True)
    stage.sound()


def test_everything_has_ended_once(stage: Stage) -> None:
    """After all of this every job has ended exactly once, and Redis holds nothing of them."""
    stage.check(within=60, whole=True)
    stage.sound(but="memory")  # Celery says more of forged messages than we would
