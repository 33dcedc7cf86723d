"""What the wire does to jobs: lost replies, silence, resets. Real servers, and a proxy between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from proxy import Proxy
from stage import Stage

from runner.wire import LEASE

until_ = Callable[..., Any]


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    """Give a wire to cut."""
    with Proxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
def stage(redis_url: str, until: until_, tmp_path: Any) -> Iterator[Stage]:
    """Give a deployment that nobody has joined yet."""
    with Stage(redis_url, tmp_path, until) as stage:
        yield stage


def all_end(stage: Stage, jobs: list[str], within: float = 60) -> None:
    """Prove that every job succeeds, and that nothing is left behind."""
    for job_id in jobs:
        assert stage.finished(job_id, within=within)["status"] == "succeeded"
    stage.check(whole=True)


def test_a_lost_answer_to_a_publish_makes_no_second_run(stage: Stage, proxy: Proxy) -> None:
    """The message was taken and the orchestrator was not told: the job still runs once."""
    stage.orchestrator(SERVICES_BROKER=proxy.url)
    stage.worker("echo")
    stage.ready("echo")
    proxy.lose(lambda said, answer: b"LPUSH" in said and answer.startswith(b":"))
    job = stage.submit("echo", {"text": "a"})
    assert proxy.lost.wait(20)
    done = stage.finished(job["id"], within=60)
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    stage.check(whole=True)


def test_a_message_lost_on_its_way_to_a_worker_is_sent_again(stage: Stage, proxy: Proxy) -> None:
    """Redis gave the message away and nobody got it: Celery has lost it, the database has not."""
    stage.orchestrator()
    stage.worker("echo", SERVICES_BROKER=proxy.url)
    stage.ready("echo")
    proxy.lose(lambda said, answer: b"BRPOP" in said and b"runner.run" in answer)
    job = stage.submit("echo", {"text": "a"})
    assert proxy.lost.wait(20)
    done = stage.finished(job["id"], within=60)
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    stage.check(whole=True)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        pytest.param(True, 8, id="reset"),
        pytest.param(False, 8, id="silence"),
        pytest.param(False, 2 * LEASE + 5, id="longer-than-leases", marks=pytest.mark.slow),
    ],
)
def test_a_cut_wire_costs_time_and_no_job(
    stage: Stage, proxy: Proxy, reset: bool, seconds: int
) -> None:
    """While Redis cannot be reached jobs are accepted at once; afterwards all of them end."""
    stage.orchestrator(SERVICES_BROKER=proxy.url)
    stage.worker("slow", SERVICES_BROKER=proxy.url)
    stage.ready("slow")
    jobs = [stage.submit("slow", {"seconds": 1})["id"] for _ in range(3)]
    stage.running(jobs[0])
    proxy.fall_silent()
    if reset:
        proxy.hang_up()
    began = time.monotonic()
    for _ in range(seconds):
        asked = time.monotonic()
        jobs.append(stage.submit("slow", {"seconds": 0.1})["id"])
        assert stage.http.get("/livez").status_code == 200
        assert time.monotonic() - asked < 1.5
        threading.Event().wait(1)
    assert time.monotonic() - began > seconds
    proxy.heal()
    all_end(stage, jobs)
    assert all(part.process.poll() is None for part in stage.parts)


def test_killed_connections_are_replaced(stage: Stage) -> None:
    """Redis ends every connection, again and again; every job ends all the same, in few runs."""
    stage.orchestrator()
    stage.worker("slow")
    stage.ready("slow")
    jobs = [stage.submit("slow", {"seconds": 1})["id"] for _ in range(4)]
    for _ in range(4):
        stage.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        threading.Event().wait(1.5)
    all_end(stage, jobs)
    for job_id in jobs:
        assert len([1 for state, _, _ in stage.history(job_id) if state == "running"]) <= 5
