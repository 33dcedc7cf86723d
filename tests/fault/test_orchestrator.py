"""The orchestrator is killed between two steps that belong together, and two share a database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from proxy import Match, Proxy
from stage import Part, Stage

from runner import embedded


def before_publish(said: bytes, answer: bytes, service: bytes) -> bool:
    """Match the message on its way into the queue: the job is claimed and not sent."""
    return not answer and b"LPUSH" in said and b"q:%s:" % service in said


def after_publish(said: bytes, answer: bytes, service: bytes) -> bool:
    """Match Redis's word that it has the message: the job is sent, and the sender not told."""
    return bool(answer) and b"LPUSH" in said and b"q:%s:" % service in said


def results_read(said: bytes, answer: bytes, service: bytes) -> bool:
    """Match a result on its way to the orchestrator: read, and in no database."""
    return ended(answer, service)


def ended(answer: bytes, service: bytes) -> bool:
    """Say whether this answer of Redis tells the end of a job of the service."""
    return b'"succeeded"' in answer and b'"%s"' % service in answer


MOMENTS = {"before-publish": before_publish, "after-publish": after_publish, "read": results_read}


def at(moment: str) -> Match:
    """Return what tells the proxy when a moment has come for the service of that name."""
    service = moment.encode()
    if moment in MOMENTS:
        return lambda said, answer: MOMENTS[moment](said, answer, service)
    read: list[bool] = []

    def committed(said: bytes, answer: bytes) -> bool:
        """Match the first XACK after the result was read: it is in the database by then."""
        read.append(ended(answer, service))
        return any(read) and not answer and b"XACK" in said

    return committed


@pytest.fixture(scope="module")
def killed(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, dict[str, str]]]:
    """Kill one orchestrator after the other, each at its moment; give the job of each."""
    names = (*MOMENTS, "committed")
    with Stage(redis_url, tmp_path_factory.mktemp("killed"), until) as stage:
        for name in names:
            stage.worker(stage.variant("proves", name))
        jobs = {}
        for name in names:
            with Proxy(redis_url) as proxy:
                first = stage.orchestrator(SERVICES_BROKER=proxy.url)
                stage.ready(*names)
                proxy.hold(at(name))
                jobs[name] = stage.submit(name, {"text": name})["id"]
                assert proxy.held.wait(30), f"{name} never came"
                first.kill()
                first.wait()
                # It was killed where we wanted: the database knows the end after its commit only.
                stands = stage.history(jobs[name])[-1][0]
                assert (stands == "succeeded") == (name == "committed"), (name, stands)
        stage.orchestrator()
        yield stage, jobs


@pytest.mark.parametrize("moment", [*MOMENTS, "committed"])
def test_a_kill_between_two_steps_loses_and_doubles_nothing(
    killed: tuple[Stage, dict[str, str]], moment: str
) -> None:
    """Killed before or after a publish, or before or after the commit of a result: one run."""
    stage, jobs = killed
    done = stage.finished(jobs[moment])
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    output = stage.http.get(done["links"]["result"]).json()
    assert output["job_id"] == jobs[moment]


def test_after_the_kills_all_invariants_hold(killed: tuple[Stage, dict[str, str]]) -> None:
    """Nothing waits, nothing is held, no job ran twice after four kills."""
    stage, _ = killed
    stage.check(most=1, whole=True)
    stage.sound()


@pytest.mark.slow
def test_two_orchestrators_share_one_database(
    redis_url: str,
    until: Callable[..., Any],
    postgres_databases: Callable[[], str],
    tmp_path: Any,
) -> None:
    """Two on one PostgreSQL take jobs at once while workers are killed: no job ends twice, none is
    lost, and none runs more often than it was hurt."""
    with Stage(redis_url, tmp_path, until, database=postgres_databases()) as stage:
        other = embedded.free_port()
        stage.orchestrator()
        workers = [stage.worker("proves", CONCURRENCY=2) for _ in range(2)]
        stage.ready("proves")
        stage.orchestrator(PORT=other)
        urls = [f"http://127.0.0.1:{port}" for port in (stage.port, other)]
        until(lambda: available(urls[1]), 60, "the second orchestrator")

        def submit(number: int) -> str:
            answer = httpx.post(
                f"{urls[number % 2]}/v1/services/proves/jobs",
                json={"text": str(number), "seconds": 0.2}, timeout=30, trust_env=False,
            )  # fmt: skip
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

        with ThreadPoolExecutor(8) as callers:
            stage.accepted += callers.map(submit, range(60))
            hurt(workers.pop())
            workers.append(stage.worker("proves", CONCURRENCY=2))
            stage.accepted += callers.map(submit, range(60))
            hurt(workers.pop(0))
        for job_id in stage.accepted:
            assert stage.finished(job_id, within=90)["status"] == "succeeded"
        stage.check(most=3, whole=True)
        stage.sound()


def available(url: str) -> bool:
    """Say whether an orchestrator knows a worker of the service."""
    try:
        listed = httpx.get(f"{url}/v1/services/proves", trust_env=False).json()
    except httpx.HTTPError:
        return False
    return listed.get("status") == "available"


def hurt(part: Part) -> None:
    """Kill a worker with its children."""
    for pid in (part.pid, *part.children):
        os.kill(pid, 9)
