"""An orchestrator whose database refuses lives, and says what it waits for."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis
from stage import Stage, problem

from runner import command
from runner.errors import StoreUnavailable
from runner.http import Lifetime
from runner.orchestrator.home import Home
from runner.orchestrator.life import Orchestrator

REFUSAL = b'SFATAL\0C28P01\0Mpassword authentication failed for user "nlp"\0\0'


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """Give the port of a server that speaks PostgreSQL, and refuses everybody's password."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with contextlib.suppress(ConnectionError), server.accept()[0] as caller:
                        caller.recv(4096)
                        caller.sendall(b"E" + (len(REFUSAL) + 4).to_bytes(4, "big") + REFUSAL)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def alive(stage: Stage) -> bool:
    """Tell whether the orchestrator answers for its life."""
    with contextlib.suppress(httpx.TransportError):
        return stage.http.get("/livez").status_code == 200
    return False


def test_a_refused_password_is_said_while_the_orchestrator_lives(
    redis_url: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """`/livez` is 200; all else is 503 with the reason and when to come back; the log names what
    to change, and not each second."""
    with refusing() as port:
        url = f"postgresql://nlp:c4n4ry@127.0.0.1:{port}/nlp?sslmode=disable"
        with Stage(redis_url, tmp_path, until, database=url) as stage:
            part = stage.orchestrator()
            until(lambda: alive(stage), 20, "an answer")
            for door in ("GET /readyz", "GET /v1/jobs", "POST /v1/services/ner/jobs", "GET /docs"):
                answer = stage.http.request(*door.split())
                document = problem(answer, 503, "store_unavailable")
                assert "refuses the user or the password (DATABASE_URL" in document["detail"]
                assert int(answer.headers["retry-after"]) >= 1
                assert "c4n4ry" not in answer.text
            until(lambda: part.said().count("Trying again.") == 3, 20, "it to say so again")
            assert "POSTGRES_PASSWORD, which PostgreSQL takes in only when" in part.said()
            assert "c4n4ry" not in part.said()
            part.stop()
            assert part.wait(20) == 0
            stage.sound()


def test_it_goes_on_as_soon_as_the_database_can_be_used(
    redis_url: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """What was in the way is gone, and the same process serves."""
    (tmp_path / "jobs.db").write_bytes(b"no database at all\n" * 100)
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Stage(redis_url, tmp_path, until, database=url) as stage:
        part = stage.orchestrator()
        until(lambda: alive(stage), 20, "an answer")
        assert (
            "not one of SQLite"
            in problem(stage.http.get("/readyz"), 503, "store_unavailable")["detail"]
        )
        (tmp_path / "jobs.db").unlink()
        until(lambda: stage.http.get("/readyz").status_code == 200, 20, "the database")
        assert stage.http.get("/v1/jobs").json()["jobs"] == []
        until(lambda: "the database answers now" in part.said(), 5)
        assert part.process.poll() is None
        stage.sound()


def test_what_never_passes_ends_it(
    redis_url: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """A database of a newer release is not waited for: status 4, in a sentence."""
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
        database.execute("CREATE TABLE schema_version (version, name, applied_at)")
        database.execute("INSERT INTO schema_version VALUES (999, 'later', 0)")
        database.commit()
    with Stage(redis_url, tmp_path, until, database=f"sqlite:///{tmp_path}/jobs.db") as stage:
        part = stage.orchestrator()
        assert part.wait(30) == 4
        assert "newer" in part.said()
        stage.sound()


def test_a_refused_redis_is_said_in_one_voice(
    redis_url: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """A wrong password at Redis: one sentence with the settings, at a bounded pace, and the same
    in `/readyz`; the password itself is nowhere."""
    with redis.Redis.from_url(redis_url) as admin, Stage(redis_url, tmp_path, until) as stage:
        admin.acl_setuser("orchestrator", enabled=True, passwords=["+right"])
        place = urlsplit(redis_url)
        url = f"redis://orchestrator:c4n4ry@{place.hostname}:{place.port}/0"
        part = stage.orchestrator(SERVICES_BROKER=url)
        sentence = (
            f"Redis at {place.hostname}:{place.port} refuses user `orchestrator` or its password"
        )
        until(lambda: part.said().count(sentence) == 4, 30, "it to say so several times")
        lines = [line for line in part.said().splitlines() if "refuses" in line or "word" in line]
        assert len(lines) == len({line[9:] for line in lines}) + 3
        assert lines[0].endswith(f"{sentence} (SERVICES_BROKER, BROKER_PASS). Trying again.")
        ready = stage.http.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["checks"]["broker"].startswith(sentence)
        assert "c4n4ry" not in part.said() + ready.text
        admin.acl_deluser("orchestrator")
        stage.sound()


@pytest.mark.anyio
async def test_patience_has_an_end() -> None:
    """A database that does not come in time ends the start with its reason, not with success."""
    it = Orchestrator(Home("sqlite:///nowhere/jobs.db", "redis://127.0.0.1:1/0", "test", 1.0))
    lifetime = Lifetime()
    async with it.live(lifetime, patience=-1.0):
        assert isinstance(lifetime.failure, StoreUnavailable)
        assert command.status_of(lifetime.failure) == 4
