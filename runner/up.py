"""The whole platform on one machine: its own Redis, the orchestrator, one worker per manifest."""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from honcho.manager import SYSTEM_PRINTER_NAME, Manager
from rich.console import Console
from rich.text import Text

from runner import embedded, server
from runner.client import Client
from runner.errors import RunnerError, Unavailable
from runner.manifest import Manifest
from runner.settings import Settings, masked
from runner.source import show

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red")
LOOK = 0.25
"""Seconds between two looks at what has become ready."""

Then = Callable[[Client], int | None]
"""Called once everything is ready; a number ends the platform with that exit status."""


def up(
    manifests: Sequence[Manifest], settings: Settings, environ: Mapping[str, str],
    console: Console, *, then: Then | None = None,
) -> int:  # fmt: skip
    """Run everything until Ctrl-C, or until a part stops; return the exit status.

    Raises `Unavailable` when a port, a Redis or the data folder cannot be had.
    """
    folder = Path(settings.data_dir)
    with _only_one(folder), _broker(settings, folder) as (broker_url, redis_process):
        port = settings.port or embedded.free_port()
        server.listen(settings.host, port).close()
        database = settings.database_url
        if settings.origin("DATABASE_URL") == "built-in":
            database = f"sqlite:///{folder.resolve() / 'jobs.db'}"
        common = {
            **environ,
            "SERVICES_BROKER": broker_url,
            "BROKER_PASS": "",
            "DATABASE_URL": database,
            "HOST": settings.host,
            "PORT": str(port),
            "SHUTDOWN_GRACE": str(min(settings.shutdown_grace, 3)),
            "PYTHONUNBUFFERED": "1",
        }
        names = [manifest.name for manifest in manifests]
        board = _Board(console, ["orchestrator", *names])
        manager = Manager(printer=board)
        manager.add_process("orchestrator", _command("orchestrator"), env=common)
        for manifest in manifests:
            command = _command("--manifest", str(manifest.path), "--mode", "worker")
            manager.add_process(manifest.name, command, env=common)
        url = f"http://{_reachable(settings.host)}:{port}"
        watcher = _Watcher(console, manager, manifests, url, redis_process, then)
        board.on_all_started = watcher.start
        console.print(f"Starting {', '.join(names)}; jobs are kept in {masked(database)}")
        manager.loop()
        watcher.stop()
    return watcher.status if watcher.status is not None else _status(manager.returncode)


class _Board:
    """Where the parts' lines are printed, each with the name of its part in its colour."""

    width = 0

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
        self._width = max(map(len, names))
        self._to_start = len(names)
        self.on_all_started: Callable[[], None] = lambda: None

    def write(self, message: Any) -> None:
        """Print one message; the process manager's own remarks only count the parts that run."""
        data = message.data
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
        if message.name == SYSTEM_PRINTER_NAME:
            if " started (pid=" in text:
                self._to_start -= 1
                if self._to_start == 0:  # every fork is done: threads may begin
                    self.on_all_started()
            elif " stopped (rc=" in text and "(rc=0)" not in text:
                self._console.print(Text(text.strip(), style="red"))
            return
        for line in text.splitlines():
            if line.strip():
                prefix = Text(message.name.ljust(self._width) + " | ", self._colours[message.name])
                self._console.print(prefix + Text(line), soft_wrap=True)


class _Watcher:
    """Follows the services until all are ready, says so, and then does what comes next."""

    def __init__(
        self, console: Console, manager: Manager, manifests: Sequence[Manifest], url: str,
        redis_process: subprocess.Popen[bytes] | None, then: Then | None,
    ) -> None:  # fmt: skip
        self._console, self._manager, self._then = console, manager, then
        self._loading = {manifest.name: manifest for manifest in manifests}
        self._url, self._redis = url, redis_process
        self._client = Client(url, timeout=5)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self.status: int | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        began = time.monotonic()
        with self._console.status("") as status:
            while self._loading and not self._over.wait(LOOK):
                waited = time.monotonic() - began
                status.update(f"loading {', '.join(self._loading)} … {waited:.0f} s")
                self._look()
                if self._lost_redis():
                    return
        if self._over.is_set():
            return
        self._console.print(
            f"Ready after {time.monotonic() - began:.1f} s: {self._url}/docs  (Ctrl-C stops)",
            style="bold",
        )
        if self._then is not None:
            self.status = self._run_then(self._then)
            if self.status is not None:
                self._manager.terminate()
                return
        while not self._over.wait(1.0):
            if self._lost_redis():
                return

    def _look(self) -> None:
        """Tell of every service that has become ready since the last look."""
        try:
            services = self._client.get("/v1/services")["services"]
        except RunnerError:
            return
        for service in services:
            if service["status"] == "available" and self._loading.pop(service["name"], None):
                seconds = max(w["load_seconds"] or 0 for w in service["workers"])
                self._console.print(
                    f"✓ {service['name']} {service['version']} is ready "
                    f"(loaded in {seconds:.1f} s, {service['slots']} at a time)",
                    style="green",
                )

    def _run_then(self, then: Then) -> int | None:
        try:
            return then(Client(self._url, timeout=120))
        except RunnerError as error:
            self._console.print(f"error: {error}", style="red")
            return 1

    def _lost_redis(self) -> bool:
        if self._redis is None or self._redis.poll() is None or self._over.is_set():
            return False
        self._console.print("error: the embedded Redis stopped; see its log above", style="red")
        self.status = 4
        self._manager.terminate()
        return True


def demonstrate(manifests: Sequence[Manifest], console: Console, client: Client) -> int:
    """Send every service its examples and print the answers; return 0 if all succeeded."""
    failures = 0
    for manifest in manifests:
        for example in manifest.examples[:2]:
            job = client.run(manifest.name, example.input, lambda name, data: None)
            console.rule(f"{manifest.name}: {example.title}", align="left", style="bold")
            console.print(Text(_shortened(show(example.input)), style="dim"), soft_wrap=True)
            if job["status"] == "succeeded":
                console.print(Text(show(client.result(job["id"]))), soft_wrap=True)
            else:
                failures += 1
                detail = (job.get("error") or {}).get("detail", job.get("reason"))
                console.print(f"{job['status']}: {detail}", style="red")
    return 1 if failures else 0


def _shortened(text: str, most: int = 400) -> str:
    return text if len(text) <= most else text[:most].rstrip() + " […]"


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the data folder, so that two platforms never share one database by accident."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unavailable(
                f"Another `nlp-runner up` uses {folder}; stop it, or give this one another folder "
                f"with --data-dir."
            ) from None
        yield


@contextlib.contextmanager
def _broker(
    settings: Settings, folder: Path
) -> Iterator[tuple[str, subprocess.Popen[bytes] | None]]:
    """Yield the Redis to use: the one that was asked for, or one of our own."""
    if settings.origin("SERVICES_BROKER") != "built-in":
        if not embedded.answers(settings.broker_url, within=5):
            raise Unavailable(
                f"No Redis answers at {masked(settings.broker_url)} (SERVICES_BROKER, from "
                f"{settings.origin('SERVICES_BROKER')})."
            )
        yield settings.broker_url, None
        return
    with embedded.running_redis(folder / "redis") as (url, process):
        yield url, process


def _command(*arguments: str) -> str:
    """Return a shell line that becomes the process itself, so that signals reach it."""
    return "exec " + shlex.join([sys.executable, "-m", "runner", *arguments])


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host


def _status(returncode: int | None) -> int:
    """Return our exit status: Ctrl-C and SIGTERM are the ordinary ways to stop."""
    if returncode in (None, 0, 130, 143):
        return 0
    return returncode if 0 < (returncode or 0) < 128 else 1
