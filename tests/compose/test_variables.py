"""Every variable can be said in .env or in the environment: keys, secrets, two orchestrators."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from containers import Stack, in_a_row, ran

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
        *PARTS, ports=2, said=said, ORCHESTRATORS="2", REDIS_PASSWORD=SECRET + "3",
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


def key(stack: Stack, owner: str, *scopes: str) -> str:
    """Make an API key as an operator does."""
    said = [word for scope in scopes for word in ("--scope", scope)]
    made = stack("exec", "-T", "orchestrator", "nlp-runner", "keys", "create", "--owner", owner,
                 *said)  # fmt: skip
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
    caller = key(stack, "ada", "submit", "read")
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


@contextlib.contextmanager
def collector(address: str) -> Iterator[tuple[int, list[bytes]]]:
    """Listen where containers can reach this machine, as an OpenTelemetry collector does."""
    bodies: list[bytes] = []

    class Takes(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer((address, 0), Takes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, bodies
        server.shutdown()


def test_the_image_of_the_orchestrator_sends_traces(
    stack: Stack, until: Callable[..., Any]
) -> None:
    """OTEL_EXPORTER_OTLP_ENDPOINT is all that it needs; the caller's trace id is in the spans."""
    networks = stack.inspected("orchestrator")["NetworkSettings"]["Networks"]
    gateway = networks[f"{stack.project}_outside"]["Gateway"]
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with collector(gateway) as (port, bodies):
        stack.variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{gateway}:{port}"
        stack("up", "-d", "--no-deps", "orchestrator")
        until(lambda: stack.healthy("orchestrator"), 60, "the orchestrators' health")
        caller = key(stack, "ada", "submit")
        answer = httpx.post(
            f"http://127.0.0.1:{stack.port}/v1/services/keyword-extraction/jobs",
            headers={"Authorization": f"Bearer {caller}",
                     "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"},
            json={"documents": ["Un texte dont on suit la trace à travers la file."]},
            timeout=30, trust_env=False,
        )  # fmt: skip
        assert answer.status_code == 202, answer.text
        until(lambda: any(bytes.fromhex(trace_id) in body for body in bodies), 30, "its spans")


@contextlib.contextmanager
def this_machine() -> Iterator[str]:
    """Give an address of this machine that containers can reach."""
    name = f"nlp-{uuid.uuid4().hex[:8]}"
    ran("docker", "network", "create", name)
    try:
        yield ran("docker", "network", "inspect", name, "-f",
                  "{{(index .IPAM.Config 0).Gateway}}").strip()  # fmt: skip
    finally:
        ran("docker", "network", "rm", name)


@contextlib.contextmanager
def server(image: str, *words: str, **variables: str) -> Iterator[None]:
    """Run somebody's server on this machine itself, outside of any project."""
    environ = [word for item in variables.items() for word in ("-e", "=".join(item))]
    container = ran("docker", "run", "-d", "--network", "host", *environ, image, *words).strip()
    try:
        yield
    finally:
        ran("docker", "rm", "-f", "-v", container)


def test_redis_and_postgresql_may_be_elsewhere(
    brought_up: Callable[..., contextlib.AbstractContextManager[Stack]],
    bases: dict[str, str],
    until: Callable[..., Any],
) -> None:
    """With addresses of servers of one's own, Compose starts the parts only, and they work."""
    redis, postgres = str(in_a_row(1)), str(in_a_row(1))
    with (
        this_machine() as here,
        server(bases.get("REDIS_IMAGE", "redis:7-alpine"), "redis-server", "--bind", here,
               "--port", redis, "--requirepass", "elsewhere"),
        server(bases.get("POSTGRES_IMAGE", "postgres:16-alpine"), "postgres",
               "-c", f"listen_addresses={here}", "-c", f"port={postgres}",
               POSTGRES_USER="ada", POSTGRES_PASSWORD="elsewhere", POSTGRES_DB="jobs"),
        brought_up(
            "--no-deps", *PARTS, INSIDE_ONLY="false", BROKER_PASS="elsewhere",
            KEYWORD_EXTRACTION_BROKER_PASS="elsewhere", POSTGRES_PASSWORD="elsewhere",
            SERVICES_BROKER=f"redis://{here}:{redis}/0",
            KEYWORD_EXTRACTION_BROKER=f"redis://{here}:{redis}/0",
            DATABASE_URL=f"postgresql://ada@{here}:{postgres}/jobs",
        ) as stack,
    ):  # fmt: skip
        until(lambda: stack.healthy(*PARTS), 120, "every container's health")
        assert stack.containers("redis") == stack.containers("postgres") == []
        assert stack.run("keyword-extraction", "Redis et PostgreSQL sont ailleurs.")["documents"]
