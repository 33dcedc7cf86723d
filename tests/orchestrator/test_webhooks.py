"""Webhooks as callers and receivers meet them: a real orchestrator, real workers, a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from receiver import Received, Receiver
from stage import Stage
from standardwebhooks import Webhook

from runner import embedded

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform that may call this machine, while one secret replaces another."""
    with Stage(redis_url, tmp_path_factory.mktemp("webhooks"), until) as stage:
        stage.orchestrator(WEBHOOK_SECRET=f"{NEW} {OLD}", WEBHOOK_ALLOW="127.0.0.1:*")
        for name in ("echo", "slow", "fails_in_run"):
            stage.worker(name)
        stage.ready("echo", "slow", "fails_in_run")
        yield stage
        stage.sound()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give somebody who is glad to hear."""
    with Receiver() as receiver:
        yield receiver


def submit(stage: Stage, receiver: Receiver, service: str, inputs: Any, events: str = "") -> Any:
    """Submit a job that tells the receiver."""
    headers = {"webhook-url": receiver.url + "?key=hush"}
    headers |= {"webhook-events": events} if events else {}
    return stage.submit(service, inputs, **headers)


def told(stage: Stage, receiver: Receiver, job_id: str, count: int = 1) -> list[Received]:
    """Return what the receiver was told of a job, once that is so much."""
    stage.until(lambda: len(receiver.of(job_id)) >= count, why=f"{count} webhooks of {job_id}")
    return receiver.of(job_id)


def log(stage: Stage, job_id: str) -> list[dict[str, Any]]:
    answer = stage.http.get(f"/v1/jobs/{job_id}/webhooks")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["webhooks"]
    return found


def delivered(stage: Stage, job_id: str) -> list[dict[str, Any]]:
    """Return the delivery log of a job once nothing is owed any more."""
    stage.until(lambda: {one["status"] for one in log(stage, job_id)} == {"delivered"})
    return log(stage, job_id)


def test_each_end_arrives_once_signed_and_final(stage: Stage, receiver: Receiver) -> None:
    """Succeeded, failed or canceled: one message, for either secret, with the job as it stays."""
    jobs = {
        "succeeded": submit(stage, receiver, "echo", {"text": "a"})["id"],
        "failed": submit(stage, receiver, "fails-in-run", {})["id"],
        "canceled": submit(stage, receiver, "slow", {"seconds": 50})["id"],
    }
    stage.running(jobs["canceled"])
    stage.http.post(f"/v1/jobs/{jobs['canceled']}/cancel")
    for word, job_id in jobs.items():
        job = stage.finished(job_id)
        (one,) = told(stage, receiver, job_id)
        for secret in (OLD, NEW):
            event = Webhook(secret).verify(one.body, one.headers)
        assert event["type"] == f"org.nlp-runner.job.{word}.v1"
        assert event["data"] == job == stage.job(job_id)
        assert one.headers["user-agent"].startswith("nlp-runner/")
        (entry,) = delivered(stage, job_id)
        assert (entry["id"], entry["event"], entry["next_attempt_at"]) == (one.id, word, None)
        assert entry["attempts"][0]["status_code"] == 204
        assert entry["url"] == f"{receiver.url}?…"
    assert len(receiver.received) == 3


def test_only_what_was_asked_for_is_told(stage: Stage, receiver: Receiver) -> None:
    """`Webhook-Events` chooses among start and the kinds of end."""
    loud = submit(stage, receiver, "echo", {"text": "a"}, "start, succeeded")["id"]
    quiet = submit(stage, receiver, "echo", {"text": "a"}, "failed,canceled")["id"]
    stage.finished(quiet)
    kinds = {one.event["type"] for one in told(stage, receiver, loud, 2)}
    assert kinds == {f"org.nlp-runner.job.{word}.v1" for word in ("started", "succeeded")}
    assert log(stage, quiet) == receiver.of(quiet) == []


def test_a_composite_job_tells_of_the_whole(stage: Stage, receiver: Receiver) -> None:
    """Several services asked at once are one message, when the last one has answered."""
    answer = stage.http.post(
        "/v1/jobs",
        json={"parts": {"echo": {"input": {"text": "a"}}, "fails-in-run": {"input": {}}}},
        headers={"webhook-url": receiver.url},
    )
    assert answer.status_code == 202, answer.text
    job = stage.finished(answer.json()["id"])
    (one,) = told(stage, receiver, job["id"])
    data = one.event["data"]
    assert {key: job[key] for key in data if key not in ("progress", "parts")} == {
        key: value for key, value in data.items() if key not in ("progress", "parts")
    }
    assert len(receiver.received) == 1


def test_what_fails_is_tried_again_and_counted(stage: Stage) -> None:
    """A receiver that fails once is told five seconds later, and the log and metrics say so."""
    with Receiver(500, 200) as receiver:
        job_id = submit(stage, receiver, "echo", {"text": "a"})["id"]
        first, second = told(stage, receiver, job_id, 2)
        assert (first.id, first.body) == (second.id, second.body)
        (entry,) = delivered(stage, job_id)
    assert [one["status_code"] for one in entry["attempts"]] == [500, 200]
    assert [one["error"] for one in entry["attempts"]] == ["the receiver answered 500", None]
    figures = stage.http.get("/metrics").text
    for outcome in ("retried", "delivered"):
        assert f'nlp_webhook_deliveries_total{{outcome="{outcome}"}}' in figures
    said = stage.parts[0].said()
    assert f"http://127.0.0.1:{receiver.port}" in said
    assert "hush" not in said


def test_a_message_can_be_sent_again(stage: Stage, receiver: Receiver) -> None:
    """A replay brings the same message; one that does not exist is told apart from a job."""
    job_id = submit(stage, receiver, "echo", {"text": "a"})["id"]
    (first,) = told(stage, receiver, job_id)
    (entry,) = delivered(stage, job_id)
    answer = stage.http.post(entry["links"]["replay"])
    assert answer.status_code == 202, answer.text
    first, second = told(stage, receiver, job_id, 2)
    assert (first.id, first.body) == (second.id, second.body)
    stage.until(lambda: len(delivered(stage, job_id)[0]["attempts"]) == 2)
    for path, code in (
        (f"/v1/jobs/{job_id}/webhooks/other/replay", "webhook_unknown"),
        (f"/v1/jobs/other/webhooks/{first.id}/replay", "job_unknown"),
    ):
        answer = stage.http.post(path)
        assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert stage.http.get("/v1/jobs/other/webhooks").json()["code"] == "job_unknown"


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"webhook-url": "ftp://hooks.example/"}, "Webhook-URL is not called"),
        ({"webhook-url": "https://10.0.0.1/"}, "not on the public internet"),
        ({"webhook-url": "https://me:hush@hooks.example/"}, "must not hold a user"),
        ({"webhook-url": ""}, "must start with https"),
        ({"webhook-url": "https://hooks.example/" + "a" * 2000}, "at most 2,000"),
        ({"webhook-url": "https://hooks.example/", "webhook-events": "done"}, "must be of start"),
        ({"webhook-url": "https://hooks.example/", "webhook-events": "step"}, "links.events"),
        ({"webhook-events": "start"}, "must say whom"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/services/echo/jobs", "/v1/jobs"])
def test_a_wrong_webhook_is_refused_and_nothing_is_run(
    stage: Stage, path: str, headers: dict[str, str], words: str
) -> None:
    """What could never be told is said at the submit, before there is a job."""
    newest = stage.http.get("/v1/jobs", params={"limit": 1}).json()["jobs"]
    body = {"text": "a"} if "echo" in path else {"parts": {"echo": {"input": {"text": "a"}}}}
    answer = stage.http.post(path, json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "webhook_refused"), answer.text
    assert words in answer.json()["detail"]
    assert stage.http.get("/v1/jobs", params={"limit": 1}).json()["jobs"] == newest


def test_without_a_secret_the_operator_is_asked_for_one(stage: Stage) -> None:
    """An orchestrator that cannot sign refuses webhooks, names the setting, and does all else."""
    port = embedded.free_port()
    stage.orchestrator(PORT=port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

        def up() -> bool:
            try:
                return client.get("/v1/services/echo").json().get("status") == "available"
            except httpx.TransportError:
                return False

        stage.until(up, 60)
        headers = {"webhook-url": "https://hooks.example/"}
        answer = client.post("/v1/services/echo/jobs", json={"text": "a"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "webhook_refused")
        assert "WEBHOOK_SECRET" in answer.json()["detail"]
        assert client.post("/v1/services/echo/jobs", json={"text": "a"}).status_code in (200, 202)
    stage.parts[-1].stop()
    assert stage.parts[-1].wait() == 0
