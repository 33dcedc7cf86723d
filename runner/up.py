"""The whole platform on one machine: its own Redis, the orchestrator, one worker per manifest."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

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

GRACE = 3.0
"""Seconds that a part gives to its running work when it is told to stop."""

PATIENCE = 2 * GRACE
"""Seconds after which a part that was told to stop is killed."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Then = Callable[[Client], int | None]
"""Called once everything is ready; a number ends the platform with that exit status."""


def up(
    manifests: Sequence[Manifest], settings: Settings, environ: Mapping[str, str],
    console: Console, *, then: Then | None = None,
) -> int:  # fmt: skip
    """Run everything until Ctrl-C, or until a part stops; return the exit status.

    Raises `Unavailable` when a port, a Redis or the data folder cannot be had.
    """
    folder = Path(settings.data_dir).resolve()
    with _stop_at_signal() as stop, _only_one(folder):
        with contextlib.closing(server.listen(settings.host, settings.port)) as listener:
            url, port = server.address_of(listener), listener.getsockname()[1]
        with _broker(settings, folder) as (broker_url, redis_process):
            database = settings.database_url
            if settings.origin("DATABASE_URL") == "built-in":
                database = f"sqlite:///{folder / 'jobs.db'}"
            common = {
                **environ,
                "SERVICES_BROKER": broker_url,
                "NAMESPACE": settings.namespace,
                "DATABASE_URL": database,
                "HOST": settings.host,
                "PORT": str(port),
                "SHUTDOWN_GRACE": str(min(settings.shutdown_grace, GRACE)),
                "LOG_LEVEL": settings.log_level,
                "LOG_FORMAT": settings.log_format,
                "PYTHONUNBUFFERED": "1",
            }
            names = [manifest.name for manifest in manifests]
            console.print(f"Starting {', '.join(names)}; jobs are kept in {masked(database)}")
            watcher = _Watcher(console, stop, manifests, url, redis_process, then)
            parts = _start(manifests, common, _Board(console, ["orchestrator", *names]))
            watcher.start()
            ended = _first_to_end(parts, stop)
            stop.set()
            _stop(parts)
            watcher.join(timeout=5)
    if watcher.status is not None or ended is None:
        return watcher.status or 0
    console.print(f"error: {ended.name} stopped (exit status {ended.status})", style="red")
    return ended.status if 0 <= ended.status < 128 else 1


@contextlib.contextmanager
def _stop_at_signal() -> Iterator[threading.Event]:
    """Yield an event that is set by Ctrl-C and SIGTERM; a second one changes nothing."""
    stop = threading.Event()
    before = {sig: signal.signal(sig, lambda *_: stop.set()) for sig in SIGNALS}
    try:
        yield stop
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


# --- the parts -----------------------------------------------------------------------------------


class _Part:
    """One process of the platform. Its lines go to the board, and it ends when we do.

    It reads the end of its input in the moment in which this process is gone, even one that was
    killed. It has a session of its own, so that Ctrl-C in the terminal reaches us alone.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environ: Mapping[str, str], board: _Board
    ) -> None:
        self.name, self._board = name, board
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments, "--until-eof"], env=environ,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._relay, name=f"lines of {name}", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def status(self) -> int:
        """How it ended: its exit status, or the number of a signal below 0."""
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def finish(self, deadline: float) -> None:
        """Wait for its end; past the deadline it is killed with all that it started."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(timeout=1.0)

    def _relay(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._board.write(self.name, line.decode("utf-8", "replace").rstrip())


def _start(manifests: Sequence[Manifest], environ: Mapping[str, str], board: _Board) -> list[_Part]:
    parts = [_Part("orchestrator", ["orchestrator"], environ, board)]
    for manifest in manifests:
        arguments = ["--manifest", str(manifest.path), "--mode", "worker"]
        parts.append(_Part(manifest.name, arguments, environ, board))
    return parts


def _first_to_end(parts: Sequence[_Part], stop: threading.Event) -> _Part | None:
    """Wait until a part ends, and return it; None if we are told to stop before."""
    while not stop.wait(0.1):
        for part in parts:
            if not part.running:
                return part
    return None


def _stop(parts: Sequence[_Part]) -> None:
    for part in parts:
        part.terminate()
    deadline = time.monotonic() + PATIENCE
    for part in parts:
        part.finish(deadline)


class _Board:
    """Where the parts' lines are printed, each with the name of its part in its colour."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
        self._width = max(map(len, names))

    def write(self, name: str, line: str) -> None:
        """Print one line of a part."""
        if line.strip():
            prefix = Text(name.ljust(self._width) + " | ", self._colours[name])
            self._console.print(prefix + Text(line), soft_wrap=True)


# --- what happens meanwhile ----------------------------------------------------------------------


class _Watcher(threading.Thread):
    """Follows the services until all are ready, says so, and then does what comes next."""

    def __init__(
        self, console: Console, stop: threading.Event, manifests: Sequence[Manifest], url: str,
        redis_process: subprocess.Popen[bytes] | None, then: Then | None,
    ) -> None:  # fmt: skip
        super().__init__(name="watcher", daemon=True)
        self._console, self._stop_all, self._then = console, stop, then
        self._loading = {manifest.name: manifest for manifest in manifests}
        self._url, self._redis = url, redis_process
        self._client = Client(url, timeout=5)
        self.status: int | None = None

    def run(self) -> None:
        """Watch until everything stops."""
        began = time.monotonic()
        with self._console.status("") as status:
            while self._loading and not self._stop_all.wait(LOOK) and not self._lost_redis():
                waited = time.monotonic() - began
                status.update(f"loading {', '.join(self._loading)} … {waited:.0f} s")
                self._look()
        if self._stop_all.is_set():
            return
        self._console.print(
            f"Ready after {time.monotonic() - began:.1f} s: {self._url}/docs  (Ctrl-C stops)",
            style="bold",
        )
        if self._then is not None:
            self.status = self._run_then(self._then)
            if self.status is not None:
                self._stop_all.set()
        while not self._stop_all.wait(1.0) and not self._lost_redis():
            pass

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
            return then(Client(self._url, timeout=120, patience=0))
        except RunnerError as error:
            if not self._stop_all.is_set():  # else nobody wants an answer any more
                self._console.print(Text(f"error: {error}", style="red"))
            return 1

    def _lost_redis(self) -> bool:
        """Say whether our own Redis has died; without it there is nothing to wait for."""
        if self._redis is None or self._redis.poll() is None:
            return False
        self._console.print("error: the embedded Redis stopped; its log is in the data folder",
                            style="red")  # fmt: skip
        self.status = 4
        self._stop_all.set()
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


# --- what is needed first ------------------------------------------------------------------------


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the data folder, so that two platforms never share one database by accident."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise Unavailable(
            f"The data folder {folder} cannot be used ({error.strerror}); choose another with "
            f"--data-dir."
        ) from None
    with lock:
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
        # The empty password says that a BROKER_PASS in .env is that of another Redis.
        yield url.replace("//", "//:@", 1), process
