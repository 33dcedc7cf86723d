"""Clients that leave in the middle leave nothing behind: no waiter, no thread, no connection."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import invariants
import psutil
import pytest
from stage import Part, Stage

AT_ONCE, WAVES = 20, 5


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform with one slow job that everybody can follow."""
    with Stage(redis_url, tmp_path_factory.mktemp("leaving"), until) as stage:
        stage.orchestrator()
        stage.worker("slow")
        stage.worker("echo")
        stage.ready("slow", "echo")
        yield stage


@pytest.fixture(scope="module")
def followed(stage: Stage) -> Iterator[str]:
    """Give a job that runs as long as the tests do."""
    job_id = stage.submit("slow", {"seconds": 50})["id"]
    stage.running(job_id)
    yield job_id
    stage.http.post(f"/v1/jobs/{job_id}/cancel")


def held(stage: Stage, part: Part) -> dict[str, int]:
    """Count what an orchestrator holds: threads, files, callers' and Redis connections."""
    process = psutil.Process(part.pid)
    names = [client["name"] for client in stage.redis.client_list()]
    return {
        "threads": process.num_threads(),
        "files": process.num_fds(),
        "callers": len([c for c in process.net_connections() if c.laddr.port == stage.port]),
        "redis": len([name for name in names if "orchestrator" in name]),
    }


def head(stage: Stage, method: str, path: str, *headers: str) -> bytes:
    """Write the head of a request."""
    lines = (f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{stage.port}", *headers, "", "")
    return "\r\n".join(lines).encode()


def leave(stage: Stage, request: bytes, *, hear: bool) -> None:
    """Send a request and go away, where `hear` after the first word of the answer."""
    with socket.create_connection(("127.0.0.1", stage.port), timeout=10) as caller:
        caller.sendall(request)
        if hear:
            assert caller.recv(1)


BODY = json.dumps({"text": "a" * 200}).encode()
POST = (
    "POST", "/v1/services/echo/jobs", "Content-Type: application/json", "Cache-Control: no-store",
)  # fmt: skip
WAYS: dict[str, Callable[[Stage, str], tuple[bytes, bool]]] = {
    "before the end of the head": lambda stage, job: (b"POST /v1/ser", False),
    "before the end of the body": lambda stage, job: (
        head(stage, *POST, f"Content-Length: {len(BODY)}") + BODY[:50], False,
    ),
    "after the submit": lambda stage, job: (
        head(stage, *POST, f"Content-Length: {len(BODY)}") + BODY, False,
    ),
    "in a long wait for its submit": lambda stage, job: (
        head(stage, *POST, "Prefer: wait=50", f"Content-Length: {len(BODY)}") + BODY, False,
    ),
    "in a long poll": lambda stage, job: (head(stage, "GET", f"/v1/jobs/{job}?wait=50"), False),
    "in a stream": lambda stage, job: (head(stage, "GET", f"/v1/jobs/{job}/events"), True),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_who_leaves_is_forgotten(stage: Stage, followed: str, way: str) -> None:
    """A hundred callers leave at the same point; all that stays are pools of threads and of
    connections to Redis and the database, as wide as there were callers at once."""
    orchestrator = stage.parts[0]
    request, hear = WAYS[way](stage, followed)
    before = held(stage, orchestrator)

    def back() -> bool:
        now = held(stage, orchestrator)
        pooled = {"files": AT_ONCE + 10, "redis": AT_ONCE, "threads": 6}
        return all(now[what] <= before[what] + pooled.get(what, 1) for what in before)

    for _ in range(WAVES):
        for _ in range(AT_ONCE):
            leave(stage, request, hear=hear)
        stage.until(back, 20, f"{before}, it is {held(stage, orchestrator)}")
    assert stage.http.get("/livez").status_code == 200


def test_what_was_submitted_is_done_without_its_caller(stage: Stage, followed: str) -> None:
    """A submit that arrived whole is a job, whether or not its caller waited for the answer."""
    stage.http.post(f"/v1/jobs/{followed}/cancel")

    def echoed() -> int:
        listed = stage.http.get("/v1/jobs", params={"service": "echo", "limit": 200}).json()["jobs"]
        return len([job for job in listed if job["status"] == "succeeded"])

    stage.until(lambda: echoed() == min(200, 2 * AT_ONCE * WAVES), 60, "the jobs of those who left")
    done = stage.finished(followed)
    assert done["status"] == "canceled"
    stage.accepted += [row[0] for row in invariants.rows(stage.database, "SELECT id FROM job")]
    stage.check(most=1, whole=True)
    stage.sound()
