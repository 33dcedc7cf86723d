"""Webhooks survive what breaks: orchestrators are killed, and several share one database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from receiver import Handler, Receiver, hang, status
from stage import Stage

from runner import embedded

SETTINGS = {
    "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "WEBHOOK_ALLOW": "127.0.0.1:*",
}


@pytest.fixture
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform with one orchestrator."""
    with Stage(redis_url, tmp_path_factory.mktemp("webhooks"), until) as stage:
        stage.orchestrator(**SETTINGS)
        stage.worker("echo")
        stage.ready("echo")
        yield stage
        stage.check()


def submit_many(stage: Stage, receiver: Receiver, count: int) -> set[str]:
    """Submit jobs that tell the receiver, wait for their end, and return their ids."""
    headers = {"webhook-url": receiver.url}
    ids = {stage.submit("echo", {"text": str(n)}, **headers)["id"] for n in range(count)}
    for job_id in ids:
        stage.finished(job_id)
    return ids


def test_a_killed_orchestrator_owes_its_webhooks(stage: Stage) -> None:
    """Killed while some messages hang and others wait, it tells each job after its restart."""
    well = threading.Event()

    def moody(handler: Handler) -> None:
        (status(200) if well.is_set() else hang)(handler)

    with Receiver(moody) as receiver:
        ids = submit_many(stage, receiver, 24)
        stage.until(lambda: len(receiver.received) >= 8, why="messages that hang")
        killed = stage.parts.pop(0)
        killed.kill()
        killed.wait()
        begun = list(receiver.received)
        assert len(begun) < len(ids), "some had not begun"
        well.set()
        stage.orchestrator(**SETTINGS)
        stage.ready("echo")

        def rest() -> bool:
            fresh = {one.event["subject"] for one in receiver.received[len(begun) :]}
            return fresh == ids

        stage.until(rest, 60, "a message of each job")
        told = {(one.event["subject"], one.id, one.body) for one in receiver.received}
        assert len(told) == len(ids), "what is told again is the same"
        assert len(receiver.received) == len(begun) + len(ids)


def test_two_orchestrators_tell_once(stage: Stage) -> None:
    """Two orchestrators on one database send one message for each job, whoever saw its end."""
    stage.orchestrator(PORT=embedded.free_port(), **SETTINGS)
    with Receiver() as receiver:
        ids = submit_many(stage, receiver, 60)
        stage.until(lambda: len(receiver.received) >= len(ids), why="all messages")
        stage.until(lambda: all(settled(stage, job_id) for job_id in ids), why="a quiet outbox")
        assert {one.event["subject"] for one in receiver.received} == ids
        assert len(receiver.received) == len(ids)


def settled(stage: Stage, job_id: str) -> bool:
    found = stage.http.get(f"/v1/jobs/{job_id}/webhooks").json()["webhooks"]
    return [one["status"] for one in found] == ["delivered"]
