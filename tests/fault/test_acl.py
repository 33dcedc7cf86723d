"""What Redis lets each part do: the users of docs/deploy.md work, and can do nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from stage import Stage

from runner.embedded import running_redis
from runner.orchestrator.wire import GROUP

HOUSE = Path(__file__).parents[2]
PAGE = HOUSE / "docs" / "deploy.md"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give a Redis that has the users of the page, for `nlp` and the service `echo`."""
    with running_redis(tmp_path_factory.mktemp("acl")) as (url, _):
        admin = redis.Redis.from_url(url)
        users = re.findall(r"^ACL SETUSER (.+)$", PAGE.read_text("utf-8"), re.M)
        assert len(users) == 2
        for line in users:
            admin.execute_command("ACL", "SETUSER", *line.replace("SERVICE", "echo").split())
        yield url
        admin.close()


def as_user(url: str, user: str, password: str) -> str:
    """Return the URL with a user in it."""
    return f"redis://{user}:{password}@{urlsplit(url).netloc}/0"


def test_the_users_of_the_page_are_enough(
    guarded: str, until: Callable[..., Any], tmp_path: Path
) -> None:
    """An orchestrator and a worker run, progress and finish jobs, and leave, as their own users."""
    with Stage(guarded, tmp_path, until) as stage:
        stage.namespace = "nlp"
        orchestrator = stage.orchestrator(
            SERVICES_BROKER=as_user(guarded, "orchestrator", "change-me-1")
        )
        stage.worker("echo", SERVICES_BROKER=as_user(guarded, "worker-echo", "change-me-2"))
        stage.ready("echo")
        assert stage.run("echo", {"text": "abc"})["output"] == {"text": "abc"}
        results = f"{stage.namespace}:results"
        until(lambda: not stage.redis.xpending(results, GROUP)["pending"])
        assert len(stage.redis.xinfo_consumers(results, GROUP)) == 1
        orchestrator.stop()
        orchestrator.wait()
        assert stage.redis.xinfo_consumers(results, GROUP) == []
        for part in stage.parts:
            refusals = ("NOPERM", "refuses a command")
            assert not any(word in part.said() for word in refusals), part.said()
        stage.sound()


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "CONFIG GET maxmemory", "KEYS *", "SCAN 0", "ACL LIST", "SHUTDOWN NOSAVE",
        "LRANGE nlp:q:other:0000 0 -1", "LPUSH nlp:q:other:0000 x", "HVALS nlp:other:unacked",
        "SET nlp:instance:other:x 1", "GET other:job:1", "XRANGE nlp:results - +",
        "XREADGROUP GROUP orchestrators me STREAMS nlp:results >",
        "XGROUP DESTROY nlp:results orchestrators",
    ],
)  # fmt: skip
def test_a_worker_can_do_no_more(guarded: str, command: str) -> None:
    """A worker's user reads no other service's queue, no results, and administers nothing."""
    client = redis.Redis.from_url(as_user(guarded, "worker-echo", "change-me-2"))
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())
    client.close()
