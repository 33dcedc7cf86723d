"""What a worker and a server say line by line: JSON where that was asked for, and nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import GALLERY, Part, Stage

from runner.embedded import free_port, running_redis


@pytest.fixture
def stage(redis_url: str, until: Callable[..., Any], tmp_path: Path) -> Iterator[Stage]:
    """Give a deployment with nothing running yet."""
    with Stage(redis_url, tmp_path, until) as stage:
        yield stage


def lines(part: Part) -> list[dict[str, Any]]:
    """Return what a part has printed, on both streams; each line must be a JSON object."""
    return [json.loads(line) for line in part.said().splitlines()]


# --- how much ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_success_is_told_with_debug_only(stage: Stage, level: str) -> None:
    """What goes well is many lines; what fails is told at once."""
    stage.orchestrator()
    part = stage.worker("rejects", LOG_LEVEL=level)
    stage.ready("rejects")
    good = stage.run("rejects", {"text": "level"})["id"]
    bad = stage.run("rejects", {"text": "abc"})["id"]
    stage.until(lambda: f"job {bad} attempt 1 failed after" in part.said(), 10)
    assert (f"job {good} attempt 1 succeeded after" in part.said()) == (level == "debug")
    assert (good in part.said()) == (level == "debug")


# --- for machines --------------------------------------------------------------------------------


def test_every_line_of_a_worker_is_json(until: Callable[..., Any], tmp_path: Path) -> None:
    """From its start over the death of a process and the loss of Redis to its stop."""
    port = free_port()
    with Stage(f"redis://127.0.0.1:{port}/0", tmp_path, until) as stage:
        with running_redis(tmp_path / "redis", port, durable=False):
            part = stage.worker("echo", LOG_FORMAT="json")
            until(lambda: "is ready" in part.said(), 20)
            (child,) = part.children
            part.kill(child)
            until(lambda: "another one takes its place" in part.said())
        until(lambda: "does not answer" in part.said())
        with running_redis(tmp_path / "again", port, durable=False):
            until(lambda: stage.redis.exists(f"{stage.namespace}:instances"), 20)
            part.stop()
            assert part.wait() == 0
        said = lines(part)
    assert said[-1]["message"] == "echo takes no more jobs; those that run have 2 s"
    assert {line["logger"].split(".")[0] for line in said} == {"runner"}
    for words in ("is ready", "was killed by signal 9", "does not answer"):
        assert sum(words in line["message"] for line in said) == 1


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_stopped_says_so_once(stage: Stage, sig: signal.Signals) -> None:
    """What Celery prints at a stop is left out, whatever the signal and the form."""
    part = stage.worker("echo")
    stage.until(lambda: "is ready" in part.said(), 20)
    part.process.send_signal(sig)
    part.wait()
    said = [line[9:] for line in part.said().splitlines()]
    assert len(said) == 2, part.said()
    assert said[1] == "echo takes no more jobs; those that run have 2 s"


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--manifest", "nothing.yaml"], {}, "nothing.yaml"),
        (["--manifest", str(GALLERY / "echo.yaml"), "--mode", "worker"], {"PORT": "x"}, "PORT"),
        (["orchestrator"], {"DATABASE_URL": "mysql://x"}, "DATABASE_URL"),
        (["orchestrator", "--log-format", "json"], {"PORT": "x", "LOG_FORMAT": ""}, "PORT"),
    ],
)
def test_the_error_that_ends_a_server_is_json_too(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    """Also where a setting is wrong, and nothing is set up yet."""
    ran = subprocess.run(
        [sys.executable, "-m", "runner", *arguments], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "LOG_FORMAT": "json", **environ}, check=False,
    )  # fmt: skip
    assert ran.returncode in (2, 3)
    (line,) = [json.loads(line) for line in ran.stderr.splitlines()]
    assert line["level"] == "error"
    assert said in line["message"]


def test_a_command_for_people_speaks_to_them(tmp_path: Path) -> None:
    """The form of the log is none of a command that serves nothing."""
    command = [sys.executable, "-m", "runner", "services", "--url", "http://127.0.0.1:1"]
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "LOG_FORMAT": "json"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stderr.startswith("error: ")
