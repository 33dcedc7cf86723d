"""What keeps a worker from becoming ready, and what it says: no memory, no Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from stage import Part, Stage, problem

from runner import memory, pulse
from runner.connection import connect, trouble
from runner.embedded import free_port, running_redis
from runner.errors import Unavailable

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


# --- no Redis ------------------------------------------------------------------------------------


def health(part: Part) -> str:
    """Return what the health check of a worker's container would say."""
    try:
        return pulse.feel(part.log.parent / "pulse")
    except Unavailable as error:
        return str(error)


def worker(stage: Stage, **settings: object) -> Part:
    """Start a worker whose pulse no other test feels."""
    (stage.folder / "pulse").mkdir(exist_ok=True)
    return stage.worker("echo", TMPDIR=stage.folder / "pulse", **settings)


def test_a_worker_without_redis_waits_and_says_so_in_one_voice(
    until: Callable[..., Any], tmp_path: Path
) -> None:
    """Ready and healthy it is when Redis knows it; a loss of Redis later is told and borne."""
    port = free_port()
    with Stage(f"redis://127.0.0.1:{port}/0", tmp_path, until) as stage:
        part = worker(stage)
        until(lambda: "echo 1.0.0 loaded in" in part.said(), 20)
        assert re.search(r"echo 1\.0\.0 loaded in \d\.\d s; waiting for Redis", part.said())
        assert "starting" in health(part)
        again = (
            f"warning: Redis at 127.0.0.1:{port} does not answer (SERVICES_BROKER). Trying again."
        )
        until(lambda: again in part.said())
        with running_redis(tmp_path / "redis", port, durable=False):
            until(lambda: "echo 1.0.0 is ready after" in part.said(), 40)
            assert "Redis answers again." in part.said()
            until(lambda: health(part) == "ready")
            before = part.said().count(again)
        until(lambda: part.said().count(again) > before)
        assert health(part) == "ready"
        said = {line[9:] for line in part.said().splitlines()}
        assert len(said) == 4, part.said()
        part.stop()
        part.wait()


def test_a_worker_that_is_told_no_redis_says_that(stage: Stage) -> None:
    """Where nobody has named a Redis, the sentence says so."""
    part = worker(stage, SERVICES_BROKER="")
    stage.until(lambda: "loaded in" in part.said() or "is ready" in part.said(), 20)
    if "is ready" not in part.said():  # a Redis may run at its own port
        assert "SERVICES_BROKER is not set" in part.said()
    part.stop()
    assert part.wait(5) == 0


def test_whoever_meets_a_trouble_has_one_sentence_for_it() -> None:
    """Silence is silence, however it is met; what a refused command held is not said."""
    client = redis.Redis.from_url("redis://:secret@redis/0")
    refused = redis.exceptions.NoPermissionError("Command # 1 (SET …) caused error: no SET.")
    for error in (TimeoutError("x"), ConnectionError("y"), redis.TimeoutError("z"), OSError()):
        said = trouble(client, error, chosen=False)
        assert said == "Redis at redis:6379 does not answer (SERVICES_BROKER is not set)."
    said = trouble(client, refused)
    assert said == "Redis at redis:6379 refuses a command of user `default`: no SET."


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("worker-ner:wrong@", "refuses user `worker-ner` or its password"),
        (":wrong@", "refuses user `default` or its password"),
        ("", "asks for a password"),
        ("mute:right@", "refuses a command of user `mute`: "),
    ],
)
def test_a_refused_worker_says_which_settings_to_look_at(
    until: Callable[..., Any], tmp_path: Path, user: str, said: str
) -> None:
    """A wrong password is one sentence, and none is ever printed."""
    with running_redis(tmp_path / "redis", durable=False) as (url, _):
        admin = connect(url, "admin")
        admin.execute_command("ACL", "SETUSER", "mute", "on", ">right", "+ping", "+client")
        admin.config_set("requirepass", "hush")
        place = urlsplit(url).netloc
        with Stage(f"redis://{user}{place}/0", tmp_path, until) as stage:
            part = worker(stage)
            until(lambda: "waiting for Redis" in part.said(), 20)
            part.stop()
            assert part.wait(5) == 0
        assert f"warning: Redis at {place} {said}" in part.said()
        assert len({line[9:] for line in part.said().splitlines() if "again" in line}) == 1
        assert not any(word in part.said() for word in ("hush", "wrong", "right", "consumer:"))
        assert "starting" in health(part) or "sign of life" in health(part)
        admin.close()
