"""The orchestrator's HTTP API, played on a real orchestrator with real workers."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
from openapi_spec_validator import validate
from psycopg2.extensions import parse_dsn
from stage import SEAL, TERMINAL, Stage, gallery, problem, read_sse

from runner.broker import queue_name
from runner.manifest import digest_of

WORKERS = ("echo", "slow", "counts_steps", "languages", "fails_in_run", "logs", "transient")

AUTHORED = """\
apiVersion: nlp-runner/v1
name: newcomer
version: 1.2.3
summary: Came while everything was running.
handler: newcomer_handler:run
input:
  type: object
  required: [text]
  properties:
    text: {type: string}
output:
  type: object
  required: [length]
  properties:
    length: {type: integer}
examples:
  - input: {text: abc}
    output: {length: 3}
"""
HANDLER = """\
def run(ctx, text):
    return {"length": len(text)}
"""


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a running platform; nothing on it may have met an unexpected error in the end."""
    with Stage(redis_url, tmp_path_factory.mktemp("app"), until) as stage:
        stage.orchestrator(MAX_WAIT=30)
        for name in WORKERS:
            stage.worker(name)
        stage.ready(*WORKERS)
        yield stage
        stage.sound()


@pytest.fixture
def occupied(stage: Stage) -> Iterator[str]:
    """Give the id of a job that keeps the only slot of `slow` busy for the length of a test."""
    job = stage.submit("slow", {"seconds": 50})
    stage.running(job["id"])
    yield job["id"]
    with contextlib.suppress(AssertionError):
        stage.http.post(f"/v1/jobs/{job['id']}/cancel")
        stage.finished(job["id"])


# --- submit --------------------------------------------------------------------------------------


def test_an_accepted_job_can_be_asked_for_at_once(stage: Stage) -> None:
    """Whoever has read 202 finds the job at its Location, however fast he asks."""

    def submit_and_ask(number: int) -> int:
        answer = stage.http.post("/v1/services/echo/jobs", json={"text": str(number)})
        assert answer.status_code == 202
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["location"] == answer.json()["links"]["self"]
        return stage.http.get(answer.headers["location"]).status_code

    with ThreadPoolExecutor(8) as callers:
        assert set(callers.map(submit_and_ask, range(60))) == {200}


def test_prefer_wait_answers_as_soon_as_there_is_an_answer(stage: Stage) -> None:
    """`Prefer: wait=25` answers with the output when the job ends, not 25 seconds later."""
    began = time.monotonic()
    answer = stage.http.post(
        "/v1/services/echo/jobs", json={"text": "abc"}, headers={"prefer": "respond-async, wait=25"}
    )
    assert time.monotonic() - began < 10
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=25"
    job = answer.json()
    assert job["status"] == "succeeded"
    assert job["output"] == {"text": "abc"}
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"


def test_prefer_wait_tells_of_a_failure(stage: Stage) -> None:
    """A job that fails while its caller waits is answered with its reason and its error."""
    job = stage.submit("fails-in-run", prefer="wait=25")
    assert job["status"] == "failed"
    assert job["reason"] == "handler_error"
    assert "ZeroDivisionError" in job["error"]["detail"]
    assert "gallery/fails_in_run.py" in job["error"]["at"]
    assert "output" not in job


def test_prefer_wait_gives_up_in_time(stage: Stage, occupied: str) -> None:
    """A caller who prefers to wait half a second has his 202 after half a second."""
    began = time.monotonic()
    answer = stage.http.post("/v1/services/slow/jobs", json={}, headers={"prefer": "wait=0.5"})
    assert 0.5 <= time.monotonic() - began < 5
    assert answer.status_code == 202
    job = answer.json()
    assert job["status"] == "queued"
    assert job["position"] == 0
    stage.http.post(job["links"]["cancel"])


def test_a_job_says_how_it_went(stage: Stage) -> None:
    """A finished job tells service, version, attempt, steps with times, and where its result is."""
    job = stage.run("counts-steps", {"documents": ["a b", "c"]})
    assert job["output"] == {"words": [2, 1]}
    manifest = gallery("counts_steps")
    assert job["service_version"] == "1.0.0"
    assert job["manifest_digest"] == manifest.digest
    assert (job["attempt"], job["attempts"], job["reason"], job["error"]) == (1, 3, None, None)
    assert job["progress"]["percent"] == 100
    steps = job["progress"]["steps"]
    assert [(s["name"], s["status"]) for s in steps] == [
        ("read", "succeeded"), ("count", "succeeded"), ("write", "succeeded"),
    ]  # fmt: skip
    times = [job["created_at"], job["started_at"], job["finished_at"]]
    assert times == sorted(times)
    assert all(time.endswith("Z") for time in times)
    assert stage.http.get(job["links"]["result"]).json() == job["output"]


def test_a_failure_that_passes_is_tried_again(stage: Stage) -> None:
    """A job whose handler meets a passing failure succeeds on a later attempt, or fails by it."""
    lucky = stage.submit("transient", {"succeed_on": 2})
    unlucky = stage.submit("transient", {"succeed_on": 9})
    job = stage.finished(lucky["id"])
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    job = stage.finished(unlucky["id"])
    assert (job["status"], job["reason"], job["attempt"]) == ("failed", "transient", 3)
    assert [state for state, _, _ in stage.history(unlucky["id"])].count("failed") == 1


# --- several services at once --------------------------------------------------------------------


def test_parts_run_side_by_side_and_end_as_one(stage: Stage) -> None:
    """One request asks two services; its job ends with both outputs, and its list shows one job."""
    parts = {"a": {"service": "echo", "input": {"text": "é"}}, "slow": {"input": {"seconds": 0.2}}}
    answer = stage.http.post("/v1/jobs", json={"parts": parts}, headers={"prefer": "wait=25"})
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert (job["status"], job["service"], list(job["parts"])) == ("succeeded", None, ["a", "slow"])
    assert job["progress"]["percent"] == 100
    assert [step["status"] for step in job["progress"]["steps"]] == ["succeeded"] * 2
    assert job["output"]["parts"]["a"]["output"] == {"text": "é"}
    assert job["output"] == stage.http.get(job["links"]["result"]).json()
    part = job["parts"]["a"]
    assert (part["parent"], part["part"], part["service"]) == (job["id"], "a", "echo")
    listed = [one["id"] for one in stage.http.get("/v1/jobs?limit=5").json()["jobs"]]
    assert job["id"] in listed
    assert part["id"] not in listed


def test_a_part_that_fails_does_not_hide_the_others(stage: Stage) -> None:
    """The job has failed and says by which part; the result of the other part is there."""
    parts = {"good": {"service": "echo", "input": {"text": "a"}}, "fails-in-run": {"input": {}}}
    answer = stage.http.post("/v1/jobs", json={"parts": parts}, headers={"prefer": "wait=25"})
    job = answer.json()
    assert (job["status"], job["reason"]) == ("failed", "part_failed")
    assert job["error"]["parts"] == {"fails-in-run": "handler_error"}
    result = stage.http.get(f"/v1/jobs/{job['id']}/result").json()["parts"]
    assert result["good"]["output"] == {"text": "a"}
    assert result["fails-in-run"]["output"] is None
    assert result["fails-in-run"]["error"]["code"] == "handler_error"


def test_every_problem_of_every_part_is_told(stage: Stage) -> None:
    """A request with wrong parts is refused as a whole, each problem with its place."""
    parts = {"echo": {"input": {"text": 5}}, "x": {"service": "nobody", "input": {}}}
    answer = stage.http.post("/v1/jobs", json={"parts": parts})
    errors = problem(answer, 422, "input_invalid")["errors"]
    assert {one["pointer"] for one in errors} == {"/parts/echo/input/text", "/parts/x"}
    for wrong in ({}, {"parts": {}}, {"parts": {"a b": {"input": {}}}}, {"parts": {"echo": {}}}):
        problem(stage.http.post("/v1/jobs", json=wrong), 422, "input_invalid")


def test_canceling_the_whole_stops_its_parts(stage: Stage) -> None:
    """A cancel of a composite job reaches a part that runs and one that waits."""
    parts = {"one": {"service": "slow", "input": {"seconds": 50}},
             "two": {"service": "slow", "input": {"seconds": 50}}}  # fmt: skip
    job = stage.http.post("/v1/jobs", json={"parts": parts}).json()
    stage.running(job["parts"]["one"]["id"])
    assert stage.http.post(f"/v1/jobs/{job['id']}/cancel").status_code in (200, 202)
    ended = stage.finished(job["id"])
    assert (ended["status"], ended["reason"]) == ("canceled", "canceled_by_user")
    assert {part["status"] for part in ended["parts"].values()} == {"canceled"}
    part = ended["parts"]["one"]["id"]
    problem(stage.http.delete(f"/v1/jobs/{part}"), 409, "part_of_job")
    assert stage.http.delete(f"/v1/jobs/{job['id']}").status_code == 204
    problem(stage.http.get(f"/v1/jobs/{part}"), 404, "job_unknown")


def test_the_story_of_the_whole_is_that_of_its_parts(stage: Stage) -> None:
    """Who follows a composite job hears every part by its name, and one end."""
    parts = {
        "one": {"service": "slow", "input": {"seconds": 0.3}},
        "echo": {"input": {"text": "a"}},
    }
    job = stage.http.post("/v1/jobs", json={"parts": parts}).json()
    events = stage.story(job["id"])
    ends = [data["part"] for _, name, data in events if name == "part_completed"]
    assert sorted(ends) == ["echo", "one"]
    assert [name for _, name, _ in events][-1] == "completed"
    assert events[-1][2]["status"] == "succeeded"
    assert {data["part"] for _, name, data in events if name == "start"} == {"echo", "one"}


# --- what is refused -----------------------------------------------------------------------------

REFUSED = [
    ("nothing", b"", "application/json", 400, "malformed_json"),
    ("cut off", b'{"text": "a', "application/json", 400, "malformed_json"),
    ("NaN", b'{"text": NaN}', "application/json", 400, "malformed_json"),
    ("too deep", b"[" * 5000 + b"]" * 5000, "application/json", 400, "malformed_json"),
    ("not UTF-8", b'{"text": "\xff"}', "application/json", 400, "malformed_json"),
    ("a list", b"[]", "application/json", 422, "input_invalid"),
    ("null", b"null", "application/json", 422, "input_invalid"),
    ("a form", b"text=abc", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ("XML", b"<text/>", "application/xml", 415, "unsupported_media_type"),
]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_a_wrong_body_is_refused_in_words(
    stage: Stage, body: bytes, kind: str, status: int, code: str
) -> None:
    """What is not a JSON object in UTF-8 is refused with a problem document, never a 500."""
    answer = stage.http.post("/v1/services/echo/jobs", content=body, headers={"content-type": kind})
    document = problem(answer, status, code)
    assert document["instance"] == "/v1/services/echo/jobs"
    assert document["request_id"] == answer.headers["x-request-id"]


def test_every_problem_is_told_at_once(stage: Stage) -> None:
    """An input with three faults is refused once, with three pointers; nothing is queued."""
    before = stage.http.get("/v1/jobs", params={"service": "echo", "limit": 1}).json()["jobs"]
    answer = stage.http.post(
        "/v1/services/echo/jobs", json={"text": 7, "reverse": "no", "colour": "red"}
    )
    errors = problem(answer, 422, "input_invalid")["errors"]
    assert {error["pointer"] for error in errors} == {"/text", "/reverse", "/colour"}
    assert all(error["message"] for error in errors)
    after = stage.http.get("/v1/jobs", params={"service": "echo", "limit": 1}).json()["jobs"]
    assert after == before


def test_language_is_looked_up(stage: Stage) -> None:
    """A region falls back to its language, and a language that is not offered is refused."""
    assert stage.run("languages", {"language": "fr-FR"})["output"] == {"language": "fr"}
    assert stage.run("languages")["output"] == {"language": "en"}
    answer = stage.http.post("/v1/services/languages/jobs", json={"language": "de"})
    (error,) = problem(answer, 422, "input_invalid")["errors"]
    assert error["pointer"] == "/language"
    assert error["expected"] == ["en", "fr"]


def test_a_large_body_is_refused_unread(stage: Stage) -> None:
    """A body that is declared too large is refused after its head, before a byte of it is sent."""
    head = (
        b"POST /v1/services/echo/jobs HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 50000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stage.port), timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"payload_too_large" in answer


def test_a_body_without_a_length_is_cut_off(stage: Stage) -> None:
    """A body that comes in chunks is refused once it is too large, wherever it would have ended."""
    chunks = (b" " * 1_000_000 for _ in range(12))
    answer = stage.http.post(
        "/v1/services/echo/jobs", content=chunks, headers={"content-type": "application/json"}
    )
    assert problem(answer, 413, "payload_too_large")["max_body"] == 10_000_000


def test_unknown_places_and_methods(stage: Stage) -> None:
    """A service, job, address or method that is not there is said in a problem document."""
    get, post = stage.http.get, stage.http.post
    found = problem(post("/v1/services/nobody/jobs", json={}), 404, "service_unknown")
    assert "echo" in found["detail"]
    problem(get("/v1/services/nobody"), 404, "service_unknown")
    for path in ("", "/result", "/events"):
        problem(get(f"/v1/jobs/nothing{path}"), 404, "job_unknown")
    problem(post("/v1/jobs/nothing/cancel"), 404, "job_unknown")
    problem(stage.http.delete("/v1/jobs/nothing"), 404, "job_unknown")
    problem(get("/nowhere"), 404, "not_found")
    problem(stage.http.put("/v1/jobs", json={}), 405, "method_not_allowed")
    assert stage.http.put("/v1/jobs").headers["allow"] == "GET, HEAD, POST"
    assert stage.http.put("/static/docs.js").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/jobs", {"limit": "0"}),
        ("/v1/jobs", {"limit": "201"}),
        ("/v1/jobs", {"limit": "ten"}),
        ("/v1/jobs", {"limit": "9" * 5000}),
        ("/v1/jobs", {"status": "done"}),
        ("/v1/jobs", {"cursor": "x"}),
        ("/v1/jobs", {"cursor": base64.urlsafe_b64encode(b"nan job").decode()}),
        ("/v1/jobs", {"cursor": base64.urlsafe_b64encode(b"\xff").decode()}),
        ("/v1/jobs/{id}", {"wait": "soon"}),
        ("/v1/jobs/{id}", {"wait": "-1"}),
        ("/v1/jobs/{id}", {"wait": "nan"}),
    ],
)
def test_a_wrong_question_is_refused(stage: Stage, path: str, query: dict[str, str]) -> None:
    """A parameter that cannot be meant is refused instead of guessed."""
    job = stage.submit("echo", {"text": "a"})
    problem(stage.http.get(path.format(id=job["id"]), params=query), 400, "bad_request")


@pytest.mark.parametrize("preference", ["wait=soon", "wait=-1", "wait=nan", "wait"])
def test_a_wrong_preference_is_refused(stage: Stage, preference: str) -> None:
    """A wait that is no number of seconds is refused before anything is queued."""
    answer = stage.http.post(
        "/v1/services/echo/jobs", json={"text": "a"}, headers={"prefer": preference}
    )
    problem(answer, 400, "bad_request")


# --- ask -----------------------------------------------------------------------------------------


def test_wait_answers_at_the_end(stage: Stage) -> None:
    """`?wait=25` answers when the job has finished, and at once when it has long finished."""
    job = stage.submit("slow", {"seconds": 0.4})
    began = time.monotonic()
    done = stage.job(job["id"], wait=25)
    assert done["status"] == "succeeded"
    again = stage.job(job["id"], wait=25)
    assert again == done
    assert time.monotonic() - began < 10


def test_a_result_is_there_or_its_absence_explained(stage: Stage, occupied: str) -> None:
    """A result is 200, or 409 because it is early or the job failed, or 410 once it is erased."""
    early = problem(stage.http.get(f"/v1/jobs/{occupied}/result"), 409, "result_not_ready")
    assert early["job_status"] == "running"
    failed = stage.run("fails-in-run")
    answer = problem(stage.http.get(failed["links"]["result"]), 409, "job_failed")
    assert answer["reason"] == "handler_error"
    assert answer["job_error"] == failed["error"]
    done = stage.run("echo", {"text": "gone soon"})
    assert stage.http.get(done["links"]["result"]).json() == {"text": "gone soon"}
    database = sqlite3.connect(stage.folder / "jobs.db", timeout=10)
    with contextlib.closing(database), database:
        database.execute("DELETE FROM payload WHERE kind = 'output' AND job_id = ?", (done["id"],))
    problem(stage.http.get(done["links"]["result"]), 410, "result_gone")
    stage.http.delete(done["links"]["self"])


def test_an_unchanged_job_is_not_sent_again(stage: Stage) -> None:
    """Who polls with the ETag of what he has is answered 304."""
    job = stage.run("echo", {"text": "a"})
    first = stage.http.get(f"/v1/jobs/{job['id']}")
    again = stage.http.get(
        f"/v1/jobs/{job['id']}", headers={"if-none-match": first.headers["etag"]}
    )
    assert again.status_code == 304


# --- follow --------------------------------------------------------------------------------------


def test_a_story_is_told_as_it_happens(stage: Stage) -> None:
    """A follower hears the start before the end, every step, and exactly one `completed`, last."""
    job = stage.submit("slow", {"seconds": 1})
    told: list[tuple[str, float]] = []
    for _, name, data in stage.follow(job["id"]):
        told.append((name, time.monotonic()))
        last = data
    names = [name for name, _ in told if name != "status"]
    assert names[0] == "start"
    assert names[-1] == "completed"
    assert names.count("completed") == 1
    assert names.count("step") == 2
    assert names.count("progress") >= 2
    assert told[-1][1] - dict(reversed(told))["start"] > 0.5
    assert last["status"] == "succeeded"
    assert last["id"] == job["id"]


def test_a_broken_stream_is_taken_up_where_it_broke(stage: Stage) -> None:
    """`Last-Event-ID` replays what came after it, whenever one comes back, and nothing twice."""
    job = stage.run("logs", {"lines": 20})
    whole = [event for event in stage.story(job["id"]) if event[0] is not None]
    assert len(whole) > 20
    assert len({number for number, _, _ in whole}) == len(whole)
    for index in (0, 7, len(whole) - 2):
        rest = stage.story(job["id"], **{"last-event-id": str(whole[index][0])})
        assert [event for event in rest if event[0] is not None] == whole[index + 1 :]
        assert rest[-1][1] == "completed"
    # Whoever has heard even the end still gets one, so that he stops to come back.
    (status, completed) = stage.story(job["id"], **{"last-event-id": str(whole[-1][0])})
    assert (status[1], completed[1]) == ("status", "completed")
    assert completed[2]["status"] == "succeeded"


@pytest.mark.parametrize("number", ["abc", "1-", "-1", "1-2-3", "1.5", "9" * 30])
def test_a_foreign_event_id_is_refused(stage: Stage, number: str) -> None:
    """A `Last-Event-ID` that this API never gave out is refused."""
    job = stage.run("echo", {"text": "a"})
    answer = stage.http.get(f"/v1/jobs/{job['id']}/events", headers={"last-event-id": number})
    problem(answer, 400, "bad_request")


def test_lines_of_json_tell_the_same(stage: Stage) -> None:
    """With `Accept: application/x-ndjson` the same story comes as one JSON object a line."""
    job = stage.run("counts-steps", {"documents": ["a b"]})
    answer = stage.http.get(
        f"/v1/jobs/{job['id']}/events", headers={"accept": "application/x-ndjson"}
    )
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines() if line]
    story = stage.story(job["id"])
    assert [line["event"] for line in lines] == [name for _, name, _ in story]
    assert [{k: v for k, v in line.items() if k != "event"} for line in lines] == [
        data for _, _, data in story
    ]


def test_percent_never_falls_and_100_means_success(stage: Stage) -> None:
    """Progress only grows; 100 is said of a success and of nothing else."""
    done = stage.submit("slow", {"seconds": 1.2})
    stopped = stage.submit("slow", {"seconds": 30})
    failed = stage.submit("fails-in-run")
    percents = _percents(stage.story(done["id"]))
    assert percents == sorted(percents)
    assert len(percents) > 3
    assert [p for p in percents if p == 100] == percents[-1:]
    stage.running(stopped["id"])
    stage.http.post(stopped["links"]["cancel"])
    for job_id in (stopped["id"], failed["id"]):
        percents = _percents(stage.story(job_id))
        assert percents == sorted(percents)
        assert max(percents) < 100


def _percents(story: list[Any]) -> list[float]:
    told = [data["progress"]["percent"] for _, _, data in story if data.get("progress")]
    assert told
    return told


# --- cancel and erase ----------------------------------------------------------------------------


def test_a_queued_job_is_canceled_at_once(stage: Stage, occupied: str) -> None:
    """A job that waits is canceled by the answer itself, sent to a worker or not; again is fine."""
    waiting = [stage.submit("slow", {"seconds": 0.1}) for _ in range(6)]
    for job in waiting:
        answer = stage.http.post(job["links"]["cancel"])
        assert answer.status_code == 200
        assert answer.json()["status"] == "canceled"
        assert answer.json()["reason"] == "canceled_by_user"
        again = stage.http.post(job["links"]["cancel"])
        assert (again.status_code, again.json()) == (200, answer.json())
    stage.http.post(f"/v1/jobs/{occupied}/cancel")
    stage.finished(occupied)
    # The worker has thrown the messages away, and works.
    assert stage.run("slow", {"seconds": 0.02})["status"] == "succeeded"
    for job in waiting:
        assert stage.job(job["id"])["status"] == "canceled"
        assert stage.job(job["id"])["started_at"] is None


def test_a_running_job_is_canceled_at_its_next_checkpoint(stage: Stage) -> None:
    """A job that runs is canceled within seconds; its result never comes, its slot is free."""
    job = stage.submit("slow", {"seconds": 50})
    stage.running(job["id"])
    first = stage.http.post(job["links"]["cancel"])
    assert first.status_code == 202
    assert first.json()["cancel_requested_at"]
    second = stage.http.post(job["links"]["cancel"])
    assert second.status_code in (200, 202)
    done = stage.finished(job["id"], within=10)
    assert (done["status"], done["reason"]) == ("canceled", "canceled_by_user")
    assert done["error"]["code"] == "canceled_by_user"
    assert done["progress"]["steps"][0]["status"] == "canceled"
    problem(stage.http.get(job["links"]["result"]), 409, "job_failed")
    assert stage.run("slow", {"seconds": 0.02})["status"] == "succeeded"


def test_a_finished_job_cannot_be_canceled(stage: Stage) -> None:
    """Canceling what has succeeded or failed is refused, and changes nothing."""
    for job in (stage.run("echo", {"text": "a"}), stage.run("fails-in-run")):
        before = stage.job(job["id"])
        answer = problem(stage.http.post(job["links"]["cancel"]), 409, "job_finished")
        assert answer["job_status"] == job["status"]
        assert stage.job(job["id"]) == before


def test_deleting_erases(stage: Stage, occupied: str) -> None:
    """A deleted job is gone with its input, result and history, wherever it stood."""
    secret = "c3nsored"
    done = stage.run("echo", {"text": secret})
    waiting = stage.submit("slow", {"seconds": 0.5})
    for job_id in (done["id"], waiting["id"], occupied):
        assert stage.http.delete(f"/v1/jobs/{job_id}").status_code == 204
        for path in ("", "/result", "/events"):
            problem(stage.http.get(f"/v1/jobs/{job_id}{path}"), 404, "job_unknown")
        problem(stage.http.delete(f"/v1/jobs/{job_id}"), 404, "job_unknown")
        assert stage.history(job_id) == []
        key = f"{stage.namespace}:job:{job_id}"
        assert stage.redis.hget(key, "input") is None
        assert not stage.redis.exists(f"{stage.namespace}:live:{done['id']}")
    # The worker of the erased job has heard of it.
    assert stage.run("slow", {"seconds": 0.02})["status"] == "succeeded"


def test_a_follower_of_a_deleted_job_hears_its_end(stage: Stage) -> None:
    """Who follows or waits for a job while it is deleted is told, in every form."""
    for accept in ("text/event-stream", "application/x-ndjson"):
        job = stage.submit("slow", {"seconds": 50})
        stage.running(job["id"])
        with ThreadPoolExecutor(1) as waiter:
            waiting = waiter.submit(stage.http.get, f"/v1/jobs/{job['id']}?wait=25")
            with stage.http.stream(
                "GET", job["links"]["events"], headers={"accept": accept}
            ) as answer:
                lines = answer.iter_lines()
                next(lines)
                assert stage.http.delete(job["links"]["self"]).status_code == 204
                rest = [line for line in lines if line]
            assert waiting.result(timeout=10).status_code == 404
        last = json.loads(rest[-1].removeprefix("data: "))
        assert (last["id"], last["status"]) == (job["id"], "canceled")


# --- list ----------------------------------------------------------------------------------------


def test_pages_stay_right_while_jobs_come(stage: Stage) -> None:
    """Pages taken while jobs come and go hold every older job exactly once, the newest first."""
    for number in range(23):
        stage.submit("echo", {"text": str(number)})
    first = stage.http.get("/v1/jobs", params={"limit": 200}).json()
    expected = [job["id"] for job in first["jobs"]]
    seen: list[str] = []
    cursor = None
    while True:
        page = stage.http.get(
            "/v1/jobs", params={"limit": 7, **({"cursor": cursor} if cursor else {})}
        ).json()
        assert len(page["jobs"]) <= 7
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        stage.submit("echo", {"text": "new"})
        stage.http.delete(f"/v1/jobs/{seen[-1]}")
    assert len(seen) == len(set(seen))
    assert seen[: len(expected)] == expected
    created = [job["created_at"] for job in first["jobs"]]
    assert created == sorted(created, reverse=True)


def test_lists_are_filtered(stage: Stage) -> None:
    """A list can be of one service or one status, and says `canceled` for both spellings."""
    stage.run("echo", {"text": "a"})
    failed = stage.run("fails-in-run")
    canceled = stage.submit("slow", {"seconds": 40})
    stage.http.post(canceled["links"]["cancel"])
    stage.finished(canceled["id"])

    def listed(**query: str) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = stage.http.get("/v1/jobs", params=query).json()["jobs"]
        assert jobs
        return jobs

    assert {job["service"] for job in listed(service="echo")} == {"echo"}
    assert {job["status"] for job in listed(status="succeeded")} == {"succeeded"}
    assert failed["id"] in {job["id"] for job in listed(status="failed", service="fails-in-run")}
    assert listed(status="canceled") == listed(status="cancelled")
    assert canceled["id"] in {job["id"] for job in listed(status="canceled")}
    assert stage.http.get("/v1/jobs", params={"service": "nobody"}).json() == {
        "jobs": [], "next_cursor": None,
    }  # fmt: skip


# --- services ------------------------------------------------------------------------------------


def test_services_say_who_serves_them(stage: Stage) -> None:
    """Every service is listed with its manifest's words, its workers and its slots."""
    listed = {service["name"]: service for service in stage.services()}
    assert {name.replace("_", "-") for name in WORKERS} <= set(listed)
    echo = listed["echo"]
    assert (echo["status"], echo["slots"], echo["version"]) == ("available", 1, "1.0.0")
    assert echo["reason"] is None
    (worker,) = echo["workers"]
    assert worker["state"] == "ready"
    assert worker["load_seconds"] >= 0
    whole = stage.http.get("/v1/services/echo").json()
    assert whole["manifest"] == gallery("echo").document
    assert "manifest" not in echo


def test_linto_clients_find_what_they_know(stage: Stage) -> None:
    """`/list-services` and `/status/{id}` answer in the shape of LinTO's services."""
    listed = stage.http.get("/list-services").json()
    (languages,) = listed["languages"]
    assert languages["service_language"] == "en|fr"
    assert languages["service_name"] == "languages"
    (instance,) = languages["instances"]
    assert instance["concurrency"] == 1
    assert instance["version"] == "1.0.0"
    job = stage.run("echo", {"text": "a"})
    assert stage.http.get(f"/status/{job['id']}").json() == stage.job(job["id"])


def test_a_service_that_cannot_load_is_said_to_be_unhealthy(stage: Stage) -> None:
    """A worker that fails to load shows its reason in the list and in the refusal of its jobs."""
    part = stage.worker("fails_in_setup")
    url = "/v1/services/fails-in-setup"
    found = stage.until(
        lambda: (now := stage.http.get(url).json()).get("status") == "unhealthy" and now,
        20, "the failure to be listed",
    )  # fmt: skip
    assert "/nowhere/model.bin" in found["reason"]
    assert found["slots"] == 0
    (worker,) = found["workers"]
    assert worker["state"] == "unhealthy"
    answer = stage.http.post(f"{url}/jobs", json={})
    refused = problem(answer, 503, "no_worker")
    assert "/nowhere/model.bin" in refused["detail"]
    assert int(answer.headers["retry-after"]) > 0
    assert part.wait() == 3
    assert "fails_in_setup.py" in part.said()


def test_a_service_comes_and_goes_while_everything_runs(stage: Stage, tmp_path: Path) -> None:
    """A manifest and a handler in a folder become a service within 2 s of its worker's start, in
    the list and in a valid OpenAPI document, and are unavailable 2 s after the worker is stopped.
    """
    (tmp_path / "newcomer.yaml").write_text(AUTHORED)
    (tmp_path / "newcomer_handler.py").write_text(HANDLER)
    path = "/v1/services/newcomer/jobs"
    problem(stage.http.post(path, json={"text": "four"}), 404, "service_unknown")
    assert path not in stage.http.get("/openapi.json").json()["paths"]
    (orchestrator,) = [part for part in stage.parts if part.name == "orchestrator"]
    worker = stage.worker(tmp_path / "newcomer.yaml")
    stage.until(lambda: "is ready" in worker.said(), 30, "the newcomer to load")
    ready = time.monotonic()
    stage.ready("newcomer", within=10)
    document = stage.http.get("/openapi.json").json()
    assert time.monotonic() - ready < 2
    validate(document)
    operation = document["paths"][path]["post"]
    assert not operation.get("x-unavailable")
    assert stage.run("newcomer", {"text": "four"})["output"] == {"length": 4}

    worker.stop()
    asked = time.monotonic()

    def gone() -> bool:
        return stage.http.get("/v1/services/newcomer").json()["status"] != "available"

    stage.until(gone, 10, "the newcomer to leave")
    assert time.monotonic() - asked < 2
    assert worker.wait() == 0
    stage.until(
        lambda: stage.http.get("/v1/services/newcomer").json()["status"] == "unavailable", 5
    )
    answer = stage.http.post(path, json={"text": "four"})
    assert "No worker of newcomer is alive" in problem(answer, 503, "no_worker")["detail"]
    assert int(answer.headers["retry-after"]) > 0
    document = stage.http.get("/openapi.json").json()
    validate(document)
    assert document["paths"][path]["post"] != operation
    assert orchestrator.process.poll() is None


def test_the_openapi_document_is_valid_and_cheap_to_watch(stage: Stage) -> None:
    """The document describes every service and validates; with its ETag it is sent once."""
    answer = stage.http.get("/openapi.json")
    validate(answer.json())
    paths = answer.json()["paths"]
    for name in WORKERS:
        assert f"/v1/services/{name.replace('_', '-')}/jobs" in paths
    again = stage.http.get("/openapi.json", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


def test_a_hostile_registry_harms_nobody(stage: Stage) -> None:
    """Who can write to Redis can make a worker that is in quarantine, and text that stays text;
    everybody else is served as before."""
    prefix = f"{stage.namespace}:"
    script = "<script>alert(1)</script>"
    evil = {**gallery("echo").document, "name": "evil", "summary": script, "handler": "os:system"}
    wrong = {**evil, "name": "wrong", "input": {"$ref": "http://127.0.0.1:9/x"}}
    for document in (evil, wrong):
        name, digest = document["name"], digest_of(document)
        record = {
            "instance": f"{name}@1", "service": name, "version": "1.0.0", "digest": digest,
            "state": "ready", "slots": 1, "started_at": 0, "error": script,
            "seal": SEAL,
        }  # fmt: skip
        stage.redis.set(f"{prefix}manifest:{digest}", json.dumps(document), ex=60)
        stage.redis.set(f"{prefix}instance:{name}:{name}@1", json.dumps(record), ex=60)
        stage.redis.sadd(f"{prefix}instances", f"{prefix}instance:{name}:{name}@1")
    for channel in ("registry", "done"):
        for _ in range(50):
            stage.redis.publish(f"{prefix}{channel}", b"\xff\x00" * 1000)
    stage.ready("evil", within=10)
    listed = stage.http.get("/v1/services")
    assert listed.headers["content-type"] == "application/json"
    assert listed.headers["x-content-type-options"] == "nosniff"
    (stranger,) = [w for w in listed.json()["quarantined"] if w["service"] == "wrong"]
    assert stranger["state"] == "quarantined"
    assert "$ref" in stranger["error"]
    problem(stage.http.post("/v1/services/wrong/jobs", json={}), 404, "service_unknown")
    validate(stage.http.get("/openapi.json").json())
    docs = stage.http.get("/docs")
    assert script not in docs.text
    assert "default-src 'self'" in docs.headers["content-security-policy"]
    waits = stage.submit("evil", {"text": "rm"})
    assert stage.run("echo", {"text": "a"})["output"] == {"text": "a"}
    assert stage.http.post(waits["links"]["cancel"]).json()["status"] == "canceled"
    for name in ("evil", "wrong"):
        stage.redis.delete(f"{prefix}instance:{name}:{name}@1")
    stage.redis.delete(f"{prefix}{queue_name('evil', digest_of(evil), SEAL)}")


# --- about itself --------------------------------------------------------------------------------


def test_requests_keep_the_id_they_were_given(stage: Stage) -> None:
    """A request's id comes back on every answer; one that could forge a log line does not."""
    given = stage.http.get("/livez", headers={"x-request-id": "abc-123"})
    assert given.headers["x-request-id"] == "abc-123"
    hostile = stage.http.get("/livez", headers={"x-request-id": "a b\tc"})
    assert hostile.headers["x-request-id"] not in ("", "a b\tc")
    made = {stage.http.get("/livez").headers["x-request-id"] for _ in range(5)}
    assert len(made) == 5


def test_pages_for_people_and_machines(stage: Stage) -> None:
    """The root leads on, the documentation is a page, and Prometheus finds its figures."""
    root = stage.http.get("/").json()
    for link in root["links"].values():
        assert stage.http.get(link).status_code == 200
    assert stage.http.get("/docs").headers["content-type"].startswith("text/html")
    stage.run("echo", {"text": "a"})
    figures = stage.http.get("/metrics").text
    assert "nlp_workers{" in figures
    assert 'service="echo"' in figures


def test_ready_means_that_a_promise_can_be_kept(
    postgres_databases: Callable[[], str], until: Callable[..., Any], tmp_path: Path
) -> None:
    """Without Redis jobs are still taken and `/readyz` says so; without the database it is 503."""
    url = postgres_databases()
    with Stage("redis://127.0.0.1:1/0", tmp_path, until, database=url) as stage:
        stage.orchestrator()
        stage.until(lambda: _status(stage, "/readyz"), 30, "the orchestrator")
        answer = stage.http.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["checks"]["database"] == "ok"
        said = "Redis at 127.0.0.1:1 does not answer (SERVICES_BROKER)."
        assert answer.json()["checks"]["broker"] == said
        until(lambda: f"{said} Trying again." in stage.parts[0].said(), 5, "the log to say so")
        assert answer.json()["warnings"] == ["no service has a living worker"]
        name = parse_dsn(url)["dbname"]
        with contextlib.closing(psycopg2.connect(postgres_databases())) as admin:
            admin.autocommit = True
            cursor = admin.cursor()
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            answer = stage.http.get("/readyz")
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert answer.json()["checks"]["database"] != "ok"
            problem(stage.http.get("/v1/jobs"), 503, "store_unavailable")
            assert stage.http.get("/livez").status_code == 200
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        stage.until(lambda: stage.http.get("/readyz").status_code == 200, 20, "to be ready again")
        stage.sound()


def _status(stage: Stage, path: str) -> int:
    with contextlib.suppress(httpx.TransportError):
        return stage.http.get(path).status_code
    return 0


def test_a_stop_ends_streams_and_waits(stage: Stage, tmp_path: Path) -> None:
    """An orchestrator that is asked to stop does so in seconds, whoever follows or waits."""
    other = Stage(stage.redis_url, tmp_path, stage.until, database=stage.database)
    other.namespace = stage.namespace
    with other:
        part = other.orchestrator(SHUTDOWN_GRACE=5)
        other.ready("slow")
        job = other.submit("slow", {"seconds": 50})
        other.running(job["id"])
        with other.http.stream("GET", job["links"]["events"]) as answer:
            events = read_sse(answer.iter_lines())
            assert next(events)[1] == "status"
            began = time.monotonic()
            part.stop()
            assert "completed" not in [name for _, name, _ in events]
        assert part.wait(20) == 0
        assert time.monotonic() - began < 10
        other.sound()
    # The job goes on, and the other orchestrator knows it.
    assert stage.job(job["id"])["status"] == "running"
    stage.http.post(job["links"]["cancel"])
    assert stage.finished(job["id"])["status"] == "canceled"


def test_everything_has_ended_once(stage: Stage) -> None:
    """After all of this every job has ended exactly once, and Redis holds nothing of them."""
    for status in ("queued", "running"):
        for job in stage.http.get("/v1/jobs", params={"status": status}).json()["jobs"]:
            assert stage.finished(job["id"])["status"] in TERMINAL
    stage.check()
