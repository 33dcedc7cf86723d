"""Every variable can be said in .env or in the environment: keys, secrets, two orchestrators."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from containers import Stack

from runner.errors import RunnerError

SECRET = "p@ss:w/ord#1%&+~é"
PARTS = ("orchestrator", "keyword-extraction")


@pytest.fixture(scope="module")
def stack(
    brought_up: Callable[..., contextlib.AbstractContextManager[Stack]],
    until: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """Bring two orchestrators and one service up, with everything said otherwise."""
    said = tmp_path_factory.mktemp("said") / ".env"
    said.write_text("RETENTION=3d\nKEYWORD_EXTRACTION_CONCURRENCY=2\nNAMESPACE=overridden\n")
    with brought_up(
        "--scale", "orchestrator=2", *PARTS, ports=2, said=str(said),
        AUTH="on", NAMESPACE="elsewhere", POSTGRES_PASSWORD="elsewhere", WIRE_SECRET=SECRET,
        BROKER_PASS=SECRET, KEYWORD_EXTRACTION_BROKER_PASS=SECRET + "2",
        KEYWORD_EXTRACTION_LANGUAGE="fr", LOG_FORMAT="console",
    ) as stack:  # fmt: skip
        until(lambda: stack.healthy(*PARTS), 120, "every container's health")
        yield stack


def told(stack: Stack, part: str) -> dict[str, str]:
    """Return what `nlp-runner config` says in a container, by name."""
    rows = stack("exec", "-T", part, "nlp-runner", "config").splitlines()
    return dict(re.findall(r"^ *([A-Z_]+) +(\S+)", "\n".join(rows), re.M))


def key(stack: Stack, owner: str, scope: str) -> str:
    """Make an API key as an operator does."""
    made = stack("exec", "-T", "orchestrator", "nlp-runner", "keys", "create", "--owner", owner,
                 "--scope", scope)  # fmt: skip
    return next(word for word in made.split() if word.startswith("nlp_"))


def test_what_is_said_arrives(stack: Stack) -> None:
    """The environment wins over .env, which wins over the file; a worker is told of its own."""
    orchestrator, worker = told(stack, "orchestrator"), told(stack, "keyword-extraction")
    assert orchestrator["NAMESPACE"] == worker["NAMESPACE"] == "elsewhere"
    assert orchestrator["RETENTION"] == "3d"
    assert worker["CONCURRENCY"] == "2"
    assert worker["LANGUAGE"] == "fr"
    assert orchestrator["LANGUAGE"] == "*"
    assert SECRET not in str((orchestrator, worker))


def test_keys_are_asked_for_and_two_orchestrators_know_them(stack: Stack) -> None:
    """Without a key there is a 401; with one, what one orchestrator took the other one answers."""
    caller = key(stack, "ada", "submit")
    first, second = (stack.client(caller, number) for number in range(2))
    with pytest.raises(RunnerError) as refused:
        stack.client().get("/v1/services")
    assert refused.value.status == 401
    said = {"documents": ["Marie Curie est née à Varsovie et vécut à Paris."]}
    job = first.run("keyword-extraction", said, lambda *story: None)
    assert job["status"] == "succeeded"
    assert second.get(f"/v1/jobs/{job['id']}/result")["documents"]


def test_prometheus_has_a_key_and_counts_both(stack: Stack, until: Callable[..., Any]) -> None:
    """PROMETHEUS_API_KEY is all that it needs to read the figures of both orchestrators."""
    stack.variables["PROMETHEUS_API_KEY"] = key(stack, "prometheus", "read")
    stack("--profile", "monitoring", "up", "-d", "--no-deps", "prometheus")

    def up() -> list[str]:
        address = f"http://127.0.0.1:{stack.prometheus}/api/v1/query"
        with contextlib.suppress(httpx.TransportError):
            query = {"query": 'up{job="orchestrator"}'}
            found = httpx.get(address, params=query, trust_env=False).json()["data"]["result"]
            return [one["value"][1] for one in found]
        return []

    until(lambda: up() == ["1", "1"], 60, "both orchestrators")
