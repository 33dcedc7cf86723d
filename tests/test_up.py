"""What `nlp-runner up` promises: one command brings a platform, one signal takes it away whole."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
from rich.console import Console
from stage import GALLERY

from runner import embedded, up
from runner import manifest as manifests
from runner.client import Client
from runner.manifest import Example
from runner.settings import BY_NAME

Start = Callable[..., "Platform"]


class Platform:
    """A running `nlp-runner up`, with all that it prints."""

    def __init__(self, folder: Path, until: Callable[..., Any], *words: object) -> None:
        self.folder, self.data, self._until = folder, folder / "data", until
        command = [sys.executable, "-m", "runner", "up", *map(str, words)]
        environ = {name: text for name, text in os.environ.items() if name not in BY_NAME}
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(self.data)], cwd=folder, text=True,
            env={**environ, "PORT": "0", "WHOSE": str(folder)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return "".join(self._lines)

    def says(self, pattern: str, within: float = 40.0) -> str:
        """Wait until it prints something, and return the first group of what was found."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.said)
            assert match or self.process.poll() is None, self.said
            return match

        match: re.Match[str] = self._until(found, within, f"{pattern!r} in:\n{self.said}")
        return match[1] if match.groups() else match[0]

    def client(self) -> Client:
        """Return a client of it, once it is ready."""
        return Client(self.says(r"Ready after [\d.]+ s: (http://\S+)/docs"))

    def wait(self, within: float = 20.0) -> int:
        """Return its exit status once it has ended and its last line is read."""
        status = self.process.wait(within)
        self._reader.join(within)
        return status

    def family(self) -> list[str]:
        """Return what runs on its behalf; its Redis is known by its folder alone."""
        return [
            " ".join(process.info["cmdline"] or [])
            for process in psutil.process_iter(["cmdline", "environ", "cwd", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and (
                (process.info["environ"] or {}).get("WHOSE") == str(self.folder)
                or process.info["cwd"] == str(self.data / "redis")
            )
        ]


@contextmanager
def started(folder: Path, until: Callable[..., Any], *words: object) -> Iterator[Platform]:
    """Start a platform, and see to it that it is gone."""
    platform = Platform(folder, until, *words)
    try:
        yield platform
    finally:
        platform.process.kill()
        platform.process.wait()
        until(lambda: platform.family() == [], 20, f"the end of {platform.family()}")


@pytest.fixture
def start(tmp_path: Path, until: Callable[..., Any]) -> Iterator[Start]:
    """Give a way to start a platform on services of the gallery, with flags, in its own folder."""
    with ExitStack() as running:

        def begin(*services: str, flags: str = "") -> Platform:
            words = [*(GALLERY / f"{service}.yaml" for service in services), *flags.split()]
            return running.enter_context(started(tmp_path, until, *words))

        yield begin


@pytest.fixture(scope="module")
def platform(
    tmp_path_factory: pytest.TempPathFactory, until: Callable[..., Any]
) -> Iterator[Platform]:
    """Give one platform for the tests that leave it as it is, and for the last, which ends it."""
    folder = tmp_path_factory.mktemp("up")
    # The password is that of another Redis; the one that `up` brings along has none.
    (folder / ".env").write_text("BROKER_PASS=hush\nNAMESPACE=theirs\n")
    flags = ("--namespace", "mine", "--shutdown-grace", "1")
    paths = [GALLERY / f"{name}.yaml" for name in ("echo", "slow", "exits")]
    with started(folder, until, *paths, *flags) as platform:
        yield platform


# --- a platform that runs ------------------------------------------------------------------------


def test_it_becomes_ready_and_runs_a_job(platform: Platform) -> None:
    """With nothing installed but Python, a job goes through Redis, a worker and a database."""
    client = platform.client()
    job = client.run("echo", {"text": "Où ?"}, lambda name, data: None)
    assert client.result(job["id"]) == {"text": "Où ?"}
    assert (platform.data / "jobs.db").stat().st_size > 0
    assert re.search(r"✓ echo 1\.0\.0 is ready \(loaded in [\d.]+ s, 1 at a time\)", platform.said)
    assert httpx.get(f"{client.url}/docs", trust_env=False).status_code == 200


def test_its_parts_are_told_apart(platform: Platform) -> None:
    """Every line of a part stands behind the name of the part."""
    platform.client()
    assert re.search(r"^echo         \| .* echo 1\.0\.0 is ready", platform.said, re.MULTILINE)
    assert re.search(r"^orchestrator \| .* listening on http", platform.said, re.MULTILINE)


def test_a_flag_reaches_every_part(platform: Platform) -> None:
    """What is given to `up` is given to all: here the namespace of the keys in Redis."""
    platform.client()
    port = int((platform.data / "redis" / "port").read_text())
    keys = set(redis.Redis(port=port).scan_iter())
    assert {key.partition(b":")[0] for key in keys} == {b"mine"}


def test_a_demo_that_fails_is_told_by_its_status(platform: Platform) -> None:
    """`make demo` is a test of a machine, so a failing job makes a failing command."""
    good = manifests.load(GALLERY / "echo.yaml")
    bad = replace(manifests.load(GALLERY / "exits.yaml"), examples=(Example("A try", {}, None),))
    console = Console(file=io.StringIO())
    assert up.demonstrate([good], console, platform.client()) == 0
    assert up.demonstrate([bad, good], console, platform.client()) == 1
    assert "failed: SystemExit: 3" in console.file.getvalue()


def test_a_second_one_on_the_same_data_is_refused(
    platform: Platform, until: Callable[..., Any]
) -> None:
    """Two platforms never share one database by accident; the first does not notice."""
    client = platform.client()
    second = Platform(platform.folder, until, GALLERY / "echo.yaml")
    assert second.wait() == 4
    assert second.said.startswith(f"error: Another `nlp-runner up` uses {platform.data}; stop it")
    assert second.said.count("\n") == 1
    assert client.get("/v1/services")["services"]


def test_ctrl_c_stops_everything(platform: Platform) -> None:
    """One signal, and within seconds nothing runs any more, whatever was at work: status 0."""
    client = platform.client()
    job = client.post("/v1/services/slow/jobs", {"seconds": 60})
    for name, _ in client.events(job["id"]):
        if name == "start":
            break
    before = len(platform.said)
    platform.process.send_signal(signal.SIGINT)
    assert platform.wait() == 0
    assert platform.family() == []
    assert "Traceback" not in platform.said[before:]
    assert not (platform.data / "redis" / "port").exists()


# --- a platform that cannot be -------------------------------------------------------------------


def test_a_port_that_is_taken_is_told_before_anything_starts(start: Start) -> None:
    """One sentence with the port and what to do, status 4, and no Redis was started for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        platform = start("echo", flags=f"--port {port}")
        assert platform.wait() == 4
    assert platform.said.startswith(f"error: Port {port} is taken")
    assert "--port" in platform.said
    assert platform.said.count("\n") == 1
    assert not (platform.data / "redis").exists()


def test_a_redis_that_was_asked_for_must_be_there(start: Start) -> None:
    """Who names a Redis does not get another one silently; its password stays unsaid."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    platform = start("echo", flags=f"--services-broker redis://:hush@127.0.0.1:{port}/0")
    assert platform.wait() == 4
    assert f"No Redis can be used at redis://:********@127.0.0.1:{port}/0" in platform.said
    assert "SERVICES_BROKER, from flag" in platform.said
    assert "hush" not in platform.said


def test_a_manifest_that_is_wrong_is_told_before_anything_starts(start: Start) -> None:
    """Status 3 with file and line, as `check` does; two services of one name are wrong too."""
    platform = start("echo", "echo", "nobody")
    assert platform.wait() == 3
    assert f"`echo` is the name of {GALLERY / 'echo.yaml'} too" in platform.said
    assert "nobody.yaml: cannot be read" in platform.said
    assert not platform.data.exists()


def test_a_service_that_cannot_start_ends_it(start: Start) -> None:
    """The reason is on the screen, with the line of the author's file; status 3."""
    platform = start("echo", "fails_on_import")
    assert platform.wait(40) == 3
    assert re.search(
        r"fails-on-import cannot be served: .*fails_on_import\.py, line 3", platform.said
    )
    assert "error: fails-on-import stopped (exit status 3)" in platform.said
    assert platform.family() == []


# --- demo ----------------------------------------------------------------------------------------


def test_a_demo_shows_answers_and_ends(start: Start) -> None:
    """`--demo --once` sends each service its examples, prints what comes, and ends with 0."""
    platform = start("echo", "function_form", flags="--demo --once")
    assert platform.wait(40) == 0
    assert re.search(r"── echo: Backwards\n.*\{text: olleh\}\n", platform.said, re.DOTALL)
    assert re.search(r"── function-form: Example 1\n.*\{text: HELLO\}\n", platform.said, re.DOTALL)
    assert platform.family() == []


# --- accidents -----------------------------------------------------------------------------------


def test_a_signal_while_it_starts_stops_it_cleanly(start: Start) -> None:
    """Ctrl-C before anything is ready is an ordinary stop as well."""
    platform = start("echo")
    platform.says("Starting echo")
    platform.process.send_signal(signal.SIGINT)
    assert platform.wait() == 0
    assert "Traceback" not in platform.said
    assert platform.family() == []


def test_nothing_outlives_one_that_was_killed(start: Start, until: Callable[..., Any]) -> None:
    """After kill -9 orchestrator, workers and Redis end by themselves, in this order."""
    platform = start("echo")
    platform.client()
    assert len(platform.family()) >= 5  # up, its Redis and the keeper, orchestrator, worker
    platform.process.kill()
    platform.process.wait()
    until(lambda: platform.family() == [], 15, f"the end of {platform.family()}")
    with embedded.running_redis(platform.data / "redis") as (url, _):
        keys = set(redis.Redis.from_url(url).scan_iter())
    assert any(b":manifest:" in key for key in keys)
    assert not any(b":instance:" in key for key in keys)  # the worker has said good-bye


def test_without_its_redis_it_does_not_go_on(start: Start) -> None:
    """When the embedded Redis dies, everything stops, and the reason is told: status 4."""
    platform = start("echo")
    platform.client()
    port = int((platform.data / "redis" / "port").read_text())
    redis.Redis(port=port).shutdown(nosave=True)
    assert platform.wait() == 4
    assert "error: the embedded Redis stopped" in platform.said
    assert platform.family() == []


def test_where_others_reach_it_it_asks_them_for_keys(start: Start) -> None:
    """On every address it becomes ready and runs its demo all the same, and strangers get a 401."""
    platform = start("echo", flags="--host 0.0.0.0 --demo --auth auto")
    platform.says(r"Callers need a key: nlp-runner keys create")
    url = platform.says(r"Ready after [\d.]+ s: (http://\S+)/docs")
    platform.says("── echo")
    assert httpx.get(f"{url}/v1/jobs", trust_env=False).status_code == 401
    assert httpx.get(f"{url}/livez", trust_env=False).status_code == 200
    platform.process.send_signal(signal.SIGINT)
    assert platform.wait() == 0
