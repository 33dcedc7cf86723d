"""How work is asked for, played on a real orchestrator with real workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from stage import Stage, problem

WORKERS = ("echo", "slow", "tags", "fails_in_run")
ANY_AGE = {"cache-control": "max-age=3600"}


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a running platform; every job on it has ended well-behaved in the end."""
    with Stage(redis_url, tmp_path_factory.mktemp("asking"), until) as stage:
        stage.orchestrator(MAX_WAIT=30)
        for name in WORKERS:
            stage.worker(name)
        stage.ready(*WORKERS)
        yield stage
        stage.sound()


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


# --- once ----------------------------------------------------------------------------------------

ASKS = {
    "/v1/services/echo/jobs": {"text": "once"},
    "/v1/jobs": {"parts": {"echo": {"input": {"text": "once"}}}},
    "/v1/services/echo/jobs/bulk": {"inputs": [{"text": "a"}, {"text": "b"}]},
    "/nlp": {"documents": ["once"], "nlpConfig": {"keywordExtractionConfig": {}}},
}


@pytest.mark.parametrize("path", ASKS)
def test_a_request_sent_again_is_done_once(stage: Stage, path: str) -> None:
    """Whoever lost the answer sends the request again with its key and gets the same job."""
    key = {"idempotency-key": f"key of {path}"}
    first = stage.http.post(path, json=ASKS[path], headers=key)
    again = stage.http.post(path, json=ASKS[path], headers=key)
    assert first.status_code == again.status_code in (201, 202), first.text
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers.get("location") == first.headers.get("location")
    ids = [[one["id"] for one in answer.json().get("jobs", ())] for answer in (first, again)]
    assert ids[0] == ids[1]
    other = stage.http.post(path, json={**ASKS[path], "documents": ["x"]}, headers=key)
    problem(other, 422, "idempotency_mismatch")
    urgent = stage.http.post(f"{path}?priority=3", json=ASKS[path], headers=key)
    problem(urgent, 422, "idempotency_mismatch")


def test_many_at_once_with_one_key_make_one_job(stage: Stage) -> None:
    """Sixteen callers with the same key at the same instant get one job, and it is done once."""

    def ask(_: int) -> str:
        headers = {"idempotency-key": "sixteen", "prefer": "wait=20"}
        answer = stage.http.post("/v1/services/echo/jobs", json={"text": "x"}, headers=headers)
        assert (answer.status_code, answer.json()["output"]) == (200, {"text": "x"})
        return str(answer.json()["id"])

    with ThreadPoolExecutor(16) as callers:
        assert len(set(callers.map(ask, range(16)))) == 1


def test_a_key_is_answered_while_nobody_works(stage: Stage) -> None:
    """What was done under a key is told also after the last worker has gone."""
    path = stage.variant("echo", "fleeting")
    worker = stage.worker(path)
    stage.ready("fleeting")
    headers = {"idempotency-key": "fleeting", "prefer": "wait=20"}
    first = stage.http.post("/v1/services/fleeting/jobs", json={"text": "x"}, headers=headers)
    worker.stop()
    worker.wait()
    stage.until(
        lambda: stage.http.post("/v1/services/fleeting/jobs", json={"text": "y"}).status_code == 503
    )
    again = stage.http.post("/v1/services/fleeting/jobs", json={"text": "x"}, headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())
    unused = {"idempotency-key": "another"}
    answer = stage.http.post("/v1/services/fleeting/jobs", json={"text": "x"}, headers=unused)
    problem(answer, 503, "no_worker")


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("priority=10", {}),
        ("priority=high", {}),
        ("", {"cancel-after": "soon"}),
        ("", {"idempotency-key": "k" * 256}),
    ],
)
def test_wrong_terms_are_refused(stage: Stage, query: str, headers: dict[str, str]) -> None:
    """A priority, deadline or key that cannot be meant is refused before anything is kept."""
    for path, body in ASKS.items():
        answer = stage.http.post(f"{path}?{query}", json=body, headers=headers)
        problem(answer, 400, "bad_request")


# --- how urgent, until when ----------------------------------------------------------------------


def test_the_urgent_overtakes(stage: Stage) -> None:
    """Of what waits in the queue the most urgent is done first, and every job says how urgent."""
    occupied = stage.submit("slow", {"seconds": 1.5})
    stage.running(occupied["id"])
    waiting = [stage.submit("slow", {"seconds": 0.02}) for _ in range(6)]
    answer = stage.http.post("/v1/services/slow/jobs?priority=9", json={"seconds": 0.02})
    urgent = answer.json()
    assert urgent["priority"] == 9
    assert urgent["position"] < 6
    ends = {one["id"]: stage.finished(one["id"])["finished_at"] for one in (*waiting, urgent)}
    assert ends[urgent["id"]] < ends[waiting[-1]["id"]]


def test_a_deadline_ends_what_runs(stage: Stage) -> None:
    """A job that runs at its deadline fails in seconds, its slot is free, the error explains."""
    job = stage.submit("slow", {"seconds": 50}, **{"cancel-after": "3s"})
    assert seconds_between(job["created_at"], job["deadline_at"]) == pytest.approx(3, abs=0.01)
    stage.running(job["id"])
    ended = stage.finished(job["id"], within=10)
    assert (ended["status"], ended["reason"]) == ("failed", "deadline_exceeded")
    assert seconds_between(ended["created_at"], ended["finished_at"]) < 6
    error = ended["error"]
    assert (error["clock"], error["set_by"], error["seconds"]) == ("deadline", "request", 3)
    assert error["waited_seconds"] + error["ran_seconds"] == pytest.approx(3.5, abs=1.5)
    assert ended["progress"]["steps"][0]["status"] in ("failed", "skipped")
    assert stage.run("slow", {"seconds": 0.02})["status"] == "succeeded"
    assert stage.job(job["id"]) == ended


def test_a_deadline_out_of_reach_is_refused(stage: Stage) -> None:
    """A deadline that the queue ahead makes impossible is refused at once, with the estimate."""
    for _ in range(3):
        stage.run("slow", {"seconds": 0.5})
    waiting = [stage.submit("slow", {"seconds": 0.5}) for _ in range(12)]
    answer = stage.http.post(
        "/v1/services/slow/jobs", json={"seconds": 0.5}, headers={"cancel-after": "0.6"}
    )
    document = problem(answer, 422, "deadline_unreachable")
    assert document["eta_seconds"] > document["deadline_seconds"] == 0.6
    for job in waiting:
        stage.http.post(job["links"]["cancel"])
    for job in waiting:
        stage.finished(job["id"])


# --- many ----------------------------------------------------------------------------------------


def test_many_inputs_become_many_jobs(stage: Stage) -> None:
    """One request makes a job for each input, in their order, each with a place in the queue."""
    inputs = [{"text": f"text {number}"} for number in range(40)]
    answer = stage.http.post("/v1/services/echo/jobs/bulk", json={"inputs": inputs})
    assert answer.status_code == 202, answer.text
    jobs = answer.json()["jobs"]
    places = [job["position"] for job in jobs]
    assert places == list(range(places[0], places[0] + 40))
    for job, asked in zip(jobs, inputs, strict=True):
        stage.finished(job["id"])
        assert stage.http.get(job["links"]["result"]).json() == asked


def test_many_inputs_or_none(stage: Stage) -> None:
    """When inputs are wrong, nothing is kept, and every fault of every input has its pointer."""
    before = stage.http.get("/v1/jobs?service=echo&limit=1").json()["jobs"]
    inputs = [{"text": "right"}, {"text": 7}, {"text": "right"}, {"colour": "red"}]
    answer = stage.http.post("/v1/services/echo/jobs/bulk", json={"inputs": inputs})
    errors = problem(answer, 422, "input_invalid")["errors"]
    assert {e["pointer"] for e in errors} == {
        "/inputs/1/text", "/inputs/3/text", "/inputs/3/colour",
    }  # fmt: skip
    for wrong in ({}, {"inputs": []}, {"inputs": [5]}, {"inputs": [{"text": ""}] * 1001}):
        answer = stage.http.post("/v1/services/echo/jobs/bulk", json=wrong)
        problem(answer, 422, "input_invalid")
    answer = stage.http.post("/v1/services/nobody/jobs/bulk", json={"inputs": [{}]})
    problem(answer, 404, "service_unknown")
    assert stage.http.get("/v1/jobs?service=echo&limit=1").json()["jobs"] == before


# --- again ---------------------------------------------------------------------------------------


def test_an_equal_input_is_answered_at_once(stage: Stage) -> None:
    """An input that was answered before is answered with that result, and the answer says so."""
    first = stage.run("echo", {"text": "the same", "reverse": True})
    # The order of the keys does not matter, nor does a default that is spelt out.
    answer = stage.http.post(
        "/v1/services/echo/jobs", json={"reverse": True, "text": "the same"}, headers=ANY_AGE
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-status"] == "nlp-runner; hit"
    job = answer.json()
    assert (job["status"], job["reused_from"]) == ("succeeded", first["id"])
    assert job["id"] != first["id"]
    assert job["output"] == first["output"]
    assert stage.http.get(job["links"]["result"]).json() == first["output"]
    assert [name for _, name, _ in stage.story(job["id"])] == ["status", "completed"]
    assert stage.history(job["id"]) == [("succeeded", None, 1)]
    anew = stage.run("echo", {"text": "the same", "reverse": True})
    assert anew["reused_from"] is None
    parts = {"parts": {"a": {"service": "echo", "input": {"text": "the same", "reverse": True}}}}
    whole = stage.http.post("/v1/jobs", json=parts, headers=ANY_AGE)
    assert whole.status_code == 200
    assert whole.json()["output"]["parts"]["a"]["output"] == first["output"]


def test_a_finished_job_can_be_asked_again(stage: Stage) -> None:
    """A retry is a new job of the same input that names the old one, which stays as it is."""
    failed = stage.run("fails-in-run")
    again = stage.http.post(f"/v1/jobs/{failed['id']}/retry", headers={"prefer": "wait=20"})
    assert again.status_code == 200, again.text
    job = again.json()
    assert (job["status"], job["retry_of"], job["attempt"]) == ("failed", failed["id"], 1)
    assert stage.job(failed["id"])["finished_at"] == failed["finished_at"]
    done = stage.run("echo", {"text": "again"})
    again = stage.http.post(
        f"/v1/jobs/{done['id']}/retry?priority=4", headers={"prefer": "wait=20", **ANY_AGE}
    )
    job = again.json()
    assert (job["output"], job["reused_from"], job["priority"]) == ({"text": "again"}, None, 4)
    key = {"idempotency-key": "retry", "prefer": "wait=20"}
    once = [stage.http.post(f"/v1/jobs/{done['id']}/retry", headers=key) for _ in range(2)]
    assert once[0].json()["id"] == once[1].json()["id"]
    waiting = stage.submit("slow", {"seconds": 30})
    answer = stage.http.post(f"/v1/jobs/{waiting['id']}/retry")
    assert problem(answer, 409, "job_unfinished")["job_status"] in ("queued", "running")
    stage.http.post(waiting["links"]["cancel"])
    stage.finished(waiting["id"])
    problem(stage.http.post("/v1/jobs/nothing/retry"), 404, "job_unknown")


def test_of_a_whole_only_what_failed_is_done_again(stage: Stage) -> None:
    """A retry of a composite job takes over the parts that succeeded."""
    parts = {"good": {"service": "echo", "input": {"text": "a"}}, "fails-in-run": {"input": {}}}
    first = stage.http.post("/v1/jobs", json={"parts": parts}, headers={"prefer": "wait=25"}).json()
    assert first["reason"] == "part_failed"
    again = stage.http.post(
        f"/v1/jobs/{first['id']}/retry", headers={"prefer": "wait=25", **ANY_AGE}
    ).json()
    assert (again["retry_of"], again["reason"]) == (first["id"], "part_failed")
    assert again["parts"]["good"]["reused_from"] == first["parts"]["good"]["id"]
    assert again["parts"]["fails-in-run"]["reused_from"] is None


def test_the_dead_can_be_listed_by_their_reason(stage: Stage) -> None:
    """`?status=failed&reason=…` lists the jobs that ended so, and no others."""
    failed = stage.run("fails-in-run")
    stage.run("echo", {"text": "fine"})
    query = {"status": "failed", "reason": "handler_error", "limit": "50"}
    listed = stage.http.get("/v1/jobs", params=query).json()["jobs"]
    assert failed["id"] in [job["id"] for job in listed]
    assert {job["reason"] for job in listed} == {"handler_error"}
    assert stage.http.get("/v1/jobs?reason=poisoned").json()["jobs"] == []
    problem(stage.http.get("/v1/jobs?reason=No+such!"), 400, "bad_request")


# --- the end -------------------------------------------------------------------------------------


def test_a_cancel_leaves_a_receipt(stage: Stage) -> None:
    """A canceled job says who asked, when, at which step it stopped, and how."""
    job = stage.submit("slow", {"seconds": 50})
    assert job["cancel"] is None
    stage.running(job["id"])
    asked = stage.http.post(job["links"]["cancel"]).json()["cancel"]
    assert asked["by"]
    ended = stage.finished(job["id"])
    assert ended["cancel"] == {**asked, "step": asked["step"], "ended": "at_checkpoint"}
    assert ended["cancel"]["step"] == ended["progress"]["steps"][0]["name"]
    assert ended["cancel"]["requested_at"] == ended["cancel_requested_at"]


def test_every_job_says_when_it_goes(stage: Stage) -> None:
    """A finished job says when it will be erased: a week after its end, by default."""
    began = time.time()
    job = stage.run("echo", {"text": "a"})
    assert seconds_between(job["finished_at"], job["expires_at"]) == pytest.approx(
        7 * 86400, abs=time.time() - began + 1
    )
    running = stage.submit("slow", {"seconds": 0.05})
    assert running["expires_at"] is None
    stage.finished(running["id"])
    stage.check()
