"""A cancel meets its job at every moment: the first word counts, and no result comes after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from stage import TERMINAL, Stage


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform with one slot for slow jobs and two for quick ones."""
    with Stage(redis_url, tmp_path_factory.mktemp("cancel"), until) as stage:
        stage.orchestrator()
        stage.worker("slow")
        stage.worker("proves", CONCURRENCY=2)
        stage.ready("slow", "proves")
        yield stage


def cancel(stage: Stage, job_id: str) -> httpx.Response:
    """Ask for the end of a job."""
    return stage.http.post(f"/v1/jobs/{job_id}/cancel")


@pytest.fixture
def busy(stage: Stage) -> Iterator[list[str]]:
    """Give eight jobs for one slot: the first runs, some are sent, the last are not."""
    jobs = [stage.submit("slow", {"seconds": 30})["id"] for _ in range(8)]
    stage.running(jobs[0])
    yield jobs
    for job_id in jobs:
        cancel(stage, job_id)
    for job_id in jobs:
        assert stage.finished(job_id)["status"] == "canceled"


@pytest.mark.parametrize(("place", "at_once"), [(-1, True), (1, True), (0, False)])
def test_a_cancel_works_wherever_the_job_is(
    stage: Stage, busy: list[str], place: int, at_once: bool
) -> None:
    """Not sent yet, sent and waiting at a worker: canceled at once. Running: in a moment."""
    job_id = busy[place]
    answer = cancel(stage, job_id)
    assert answer.status_code == (200 if at_once else 202), answer.text
    assert (stage.finished(job_id, within=10)["status"]) == "canceled"
    began = [state for state, _, _ in stage.history(job_id) if state == "running"]
    assert len(began) == (0 if at_once else 2)  # its start, and the wish
    assert cancel(stage, job_id).status_code == 200


def test_many_cancels_are_one(stage: Stage, busy: list[str]) -> None:
    """Ten at once, of a job that runs and of one that waits, end each of them once."""
    with ThreadPoolExecutor(10) as callers:
        for job_id in (busy[0], busy[-1]):
            answers = callers.map(lambda _, one=job_id: cancel(stage, one).status_code, range(10))
            assert set(answers) <= {200, 202}
            stage.finished(job_id, within=10)
            ends = [state for state, _, _ in stage.history(job_id) if state in TERMINAL]
            assert ends == ["canceled"]


def test_a_cancel_at_the_finish_loses_or_wins_whole(stage: Stage) -> None:
    """At the moment of its end a job is either canceled, without a result, or done, with it."""
    jobs = []

    def race(number: int) -> tuple[str, int]:
        job_id = stage.submit("proves", {"seconds": 0.02 * (number % 4)})["id"]
        if number % 3:  # let it get further than the queue
            with contextlib.suppress(httpx.HTTPError):
                stage.job(job_id, wait=0.03 * (number % 5))
        return job_id, cancel(stage, job_id).status_code

    with ThreadPoolExecutor(4) as callers:
        jobs = list(callers.map(race, range(60)))
    ends = set()
    for job_id, status in jobs:
        done = stage.finished(job_id)
        ends.add(done["status"])
        assert done["status"] in ("succeeded", "canceled")
        if status in (200, 409):  # what the answer said is how it is
            assert (done["status"] == "canceled") == (status == 200)
        result = stage.http.get(f"/v1/jobs/{job_id}/result").status_code
        assert (result == 200) == (done["status"] == "succeeded")
    assert ends == {"succeeded", "canceled"}
    stage.check(most=1, whole=True)


@pytest.mark.slow
def test_a_cancel_outlives_the_worker(stage: Stage) -> None:
    """A job that was to be canceled when its worker was killed is canceled, and not run again."""
    victim = stage.worker(stage.variant("slow", "doomed"))
    stage.ready("doomed")
    job_id = stage.submit("doomed", {"seconds": 30})["id"]
    stage.running(job_id)
    for pid in (victim.pid, *victim.children):
        os.kill(pid, 9)
    assert cancel(stage, job_id).status_code == 202
    stage.worker(stage.folder / "doomed.yaml")
    done = stage.finished(job_id, within=60)
    assert (done["status"], done["attempt"]) == ("canceled", 1)


def test_after_all_cancels_the_invariants_hold(stage: Stage) -> None:
    """No canceled job has a result, and nothing is left on the conveyor."""
    stage.check(most=1, whole=True)
    stage.sound()
