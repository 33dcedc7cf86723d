"""What keeps a worker from becoming ready, and what it says: no memory, no Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stage, problem

from runner import memory

HUNGRY = """
import resource
from runner import Service

class Hungry(Service):
    def __init__(self, config):
        super().__init__(config)
        used = 4096 * int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2)
        self.model = bytearray(500_000_000)

    def __call__(self, ctx, seconds):
        return {"done": 1}
"""
"""A handler that may not have the memory that its model needs."""


@pytest.fixture
def stage(redis_url: str, until: Callable[..., Any], tmp_path: Path) -> Iterator[Stage]:
    """Give a platform on the shared Redis, with nothing running yet."""
    with Stage(redis_url, tmp_path, until) as stage:
        yield stage


def unhealthy(stage: Stage, service: str) -> dict[str, Any]:
    """Return what is listed of a service once its worker has given up."""

    def look() -> dict[str, Any] | None:
        told = {one["name"]: one for one in stage.services()}.get(service, {})
        return told if told.get("status") == "unhealthy" else None

    found: dict[str, Any] = stage.until(look, 30, f"{service} to be unhealthy")
    return found


# --- too little memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2])
def test_a_worker_whose_processes_die_while_they_load_gives_up(stage: Stage, slots: int) -> None:
    """Three that are killed in a row are an error with its reason, for the log and for callers."""
    stage.orchestrator()
    part = stage.worker("dies_in_setup", CONCURRENCY=slots)
    reason = "its process was killed by signal 9 while it loaded, 3 times; out of memory?"
    assert unhealthy(stage, "dies-in-setup")["reason"].count(reason) == 1
    answer = stage.http.post("/v1/services/dies-in-setup/jobs", json={})
    assert reason in problem(answer, 503, "no_worker")["detail"]
    assert part.wait() == 3
    assert part.said().count(f" error: dies-in-setup cannot be served: {reason}") == 1
    assert part.said().count(" error: ") == 1
    assert "child process" not in part.said()
    assert part.said().count("while it loaded; trying again") == 2
    assert "ForkPoolWorker" not in part.said()


def test_a_handler_that_may_not_have_its_memory_says_so(stage: Stage) -> None:
    """Where the system refuses memory instead of killing, the worker gives up at once."""
    (stage.folder / "hungry.py").write_text(HUNGRY)
    stage.orchestrator()
    part = stage.worker(stage.variant("slow", "hungry", handler="hungry:Hungry", examples=[]))
    assert "MemoryError" in unhealthy(stage, "hungry")["reason"]
    assert part.wait() == 3


def test_a_process_that_dies_later_is_replaced(stage: Stage) -> None:
    """Deaths of processes that were ready are told one by one and are no reason to give up."""
    stage.orchestrator()
    part = stage.worker("slow")
    stage.ready("slow")
    for number in range(1, 5):
        (child,) = stage.until(lambda: part.children, 10)
        part.kill(child)
        told = r"slow: its process \d+ was killed by signal 9; another one takes its place"
        stage.until(lambda told=told, n=number: len(re.findall(told, part.said())) == n, 10, told)
        assert stage.run("slow", {"seconds": 0.1})["status"] == "succeeded"
    assert part.process.poll() is None


@pytest.mark.parametrize(
    ("file", "text", "size"),
    [
        ("memory.max", "104857600\n", "100 MB"),
        ("memory/memory.limit_in_bytes", "2097152", "2 MB"),
        ("memory.max", "max\n", ""),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", ""),
        ("nothing", "", ""),
    ],
)
def test_the_limit_of_a_container_is_named(tmp_path: Path, file: str, text: str, size: str) -> None:
    """Both versions of cgroups are read; what does not limit is not named."""
    (tmp_path / "memory").mkdir()
    (tmp_path / file).write_text(text)
    said = f" This container may use {size}." if size else ""
    assert memory.suspicion(-9, tmp_path) == f"; out of memory?{said}"
    assert memory.suspicion(-15, tmp_path) == memory.suspicion(1, tmp_path) == ""
