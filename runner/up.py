"""The whole platform on one machine: its own Redis, the orchestrator, one worker per manifest."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.text import Text

from runner import embedded, server
from runner.client import Client
from runner.errors import RunnerError, Unavailable
from runner.manifest import Manifest
from runner.parts import GRACE, Board, Part, first_to_end, stop_all
from runner.settings import Settings, masked
from runner.source import show

LOOK = 0.25
"""Seconds between two looks at what has become ready."""

Then = Callable[[Client], int | None]
"""Called once everything is ready; a number ends the platform with that exit status."""


def up(
    manifests: Sequence[Manifest], settings: Settings, environ: Mapping[str, str],
    console: Console, *, key: str | None = None, then: Then | None = None,
) -> int:  # fmt: skip
    """Run everything until Ctrl-C, or until a part stops; return the exit status.

    `key` is the one to ask the orchestrator with, where it asks for keys.
    Raises `Unavailable` when a port, a Redis or the data folder cannot be had.
    """
    folder = Path(settings.data_dir).resolve()
    with _stop_at_signal() as stop, _only_one(folder):
        with contextlib.closing(server.listen(settings.host, settings.port)) as listener:
            url, port = server.address_of(listener), listener.getsockname()[1]
        with _broker(settings, folder) as (broker_url, redis_process):
            database = database_of(settings)
            common = {
                **environ,
                "SERVICES_BROKER": broker_url,
                "NAMESPACE": settings.namespace,
                "DATABASE_URL": database,
                "HOST": settings.host,
                "PORT": str(port),
                "AUTH": settings.auth,
                "SHUTDOWN_GRACE": str(min(settings.shutdown_grace, GRACE)),
                "LOG_LEVEL": settings.log_level,
                "LOG_FORMAT": settings.log_format,
                "PYTHONUNBUFFERED": "1",
            }
            names = [manifest.name for manifest in manifests]
            console.print(f"Starting {', '.join(names)}; jobs are kept in {masked(database)}")
            watcher = _Watcher(console, stop, manifests, url, redis_process, then, key)
            watcher.joining = _joining(settings, broker_url)
            board = Board(console, ["orchestrator", *names])
            parts = [Part("orchestrator", ["orchestrator"], common, board)]
            for manifest in manifests:
                arguments = ["--manifest", str(manifest.path), "--mode", "worker"]
                parts.append(Part(manifest.name, arguments, common, board))
            watcher.start()
            ended = first_to_end(parts, stop)
            stop.set()
            stop_all(parts)
            watcher.join(timeout=5)
    if watcher.status is not None or ended is None:
        return watcher.status or 0
    console.print(f"error: {ended.name} stopped (exit status {ended.status})", style="red")
    return ended.status if 0 <= ended.status < 128 else 1


def database_of(settings: Settings) -> str:
    """Return the URL of the platform's database: in the data folder, unless another is said."""
    if settings.origin("DATABASE_URL") == "built-in":
        return f"sqlite:///{Path(settings.data_dir).resolve() / 'jobs.db'}"
    return str(settings.database_url)


def _joining(settings: Settings, broker_url: str) -> str:
    """Return the command that lets another worker join this platform."""
    command = "nlp-runner --manifest FILE --mode worker"
    redis = masked(broker_url.replace("//:@", "//"))
    if redis != settings.services_broker:
        command += f" --services-broker {redis}"
    return command


@contextlib.contextmanager
def _stop_at_signal() -> Iterator[threading.Event]:
    """Yield an event that is set by Ctrl-C and SIGTERM; a second one changes nothing."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {sig: signal.signal(sig, lambda *_: stop.set()) for sig in signals}
    try:
        yield stop
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


# --- what happens meanwhile ----------------------------------------------------------------------


class _Watcher(threading.Thread):
    """Follows the services until all are ready, says so, and then does what comes next."""

    def __init__(
        self, console: Console, stop: threading.Event, manifests: Sequence[Manifest], url: str,
        redis_process: subprocess.Popen[bytes] | None, then: Then | None, key: str | None,
    ) -> None:  # fmt: skip
        super().__init__(name="watcher", daemon=True)
        self.joining = ""
        self._console, self._stop_all, self._then = console, stop, then
        self._loading = {manifest.name: manifest for manifest in manifests}
        self._url, self._redis, self._key = url, redis_process, key
        self._client = Client(url, key=key, timeout=5)
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
        self._console.print(f"One more service: {self.joining}", soft_wrap=True)
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
            return then(Client(self._url, key=self._key, timeout=120, patience=0))
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
            console.print(f"── {manifest.name}: {example.title}", style="bold")
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
        if trouble := embedded.obstacle(settings.broker_url, within=2):
            raise Unavailable(
                f"No Redis can be used at {masked(settings.broker_url)} (SERVICES_BROKER, from "
                f"{settings.origin('SERVICES_BROKER')}): {trouble}"
            )
        yield settings.broker_url, None
        return
    # On Redis's own port a worker started by hand finds it without being told.
    port = embedded.free_port(urlsplit(settings.services_broker).port or 0)
    with embedded.running_redis(folder / "redis", port) as (url, process):
        # The empty password says that a BROKER_PASS in .env is that of another Redis.
        yield url.replace("//", "//:@", 1), process
