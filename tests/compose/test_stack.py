"""`docker compose up` with no edits: every service answers, and what breaks harms no job."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from containers import SERVICES, Stack, inspected, logged, ran

from runner.errors import RunnerError

TEXT = (
    "Marie Curie est née à Varsovie. Elle a étudié la physique à Paris, où elle rencontra Pierre "
    "Curie. Ils découvrirent le polonium et le radium. Marie Curie reçut le prix Nobel de physique "
    "et le prix Nobel de chimie. Elle dirigea l'Institut du radium à Paris."
)


@pytest.fixture(scope="module")
def stack(
    brought_up: Callable[..., contextlib.AbstractContextManager[Stack]],
    until: Callable[..., Any],
) -> Iterator[Stack]:
    """Bring everything up as a newcomer does, with Prometheus, and wait until all is healthy."""
    with brought_up() as stack:
        stack("--profile", "monitoring", "up", "-d", "prometheus")
        until(lambda: stack.healthy("orchestrator", *SERVICES), 120, "every container's health")
        yield stack


class Load:
    """Callers who submit small jobs on and on, and what became of each."""

    def __init__(self, stack: Stack, service: str) -> None:
        self.stack, self.service = stack, service
        self.name = uuid.uuid4()  # a result that is known already would be no load
        self.accepted: list[str] = []
        self.statuses: Counter[int] = Counter()
        self._over = threading.Event()

    def submit(self, caller: int) -> None:
        """Submit until told to stop; what is refused, or not answered, is no job."""
        with httpx.Client(timeout=30, trust_env=False) as http:
            count = 0
            while not self._over.wait(0.1):
                count += 1
                body = {"documents": [f"{self.name} {caller} {count}. {TEXT}"] * 20}
                with contextlib.suppress(httpx.TransportError):
                    answer = http.post(self.address, json=body)
                    self.statuses[answer.status_code] += 1
                    if answer.status_code == 202:
                        self.accepted.append(answer.json()["id"])

    @property
    def address(self) -> str:
        """Where jobs are submitted."""
        return f"http://127.0.0.1:{self.stack.port}/v1/services/{self.service}/jobs"

    def jobs(self) -> list[dict[str, Any]]:
        """Return every accepted job as the orchestrator shows it."""
        client = self.stack.client()
        return [client.get(f"/v1/jobs/{one}") for one in self.accepted]

    @contextlib.contextmanager
    def on(self, callers: int = 3) -> Iterator[Load]:
        """Submit from so many threads while the block runs."""
        with ThreadPoolExecutor(callers) as pool:
            calling = [pool.submit(self.submit, one) for one in range(callers)]
            try:
                yield self
            finally:
                self._over.set()
        for one in calling:
            one.result()


def crash(container: str) -> None:
    """Kill all that runs in a container, as a fault does: `docker kill` would keep it down."""
    subprocess.run(["docker", "exec", container, "sh", "-c", "kill -9 -1"], capture_output=True)


def all_succeed(load: Load, until: Callable[..., Any], within: float = 120) -> list[dict[str, Any]]:
    """Wait for the end of every accepted job; each must have succeeded, with its own result."""

    def ended() -> list[dict[str, Any]]:
        with contextlib.suppress(RunnerError):
            jobs = load.jobs()
            return jobs if all(job["status"] not in ("queued", "running") for job in jobs) else []
        return []

    jobs: list[dict[str, Any]] = until(ended, within, "the end of every job")
    assert set(load.statuses) <= {202, 503}
    assert {job["status"] for job in jobs} == {"succeeded"}, [
        job for job in jobs if job["status"] != "succeeded"
    ][:3]
    for job in jobs:
        assert len(load.stack.result(job["id"])["documents"]) == 20
    return jobs


# --- everything is there -------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_answers(stack: Stack, service: str) -> None:
    """A document goes to the service through the orchestrator, and comes back read."""
    assert "curie" in str(stack.run(service, TEXT)["documents"]).lower()


def test_every_container_is_hardened(stack: Stack) -> None:
    """None is root, can write its image, has a capability, or can get one; ours lead nowhere."""
    for service in (*SERVICES, "orchestrator"):
        found = stack.inspected(service)
        host, config = found["HostConfig"], found["Config"]
        assert host["ReadonlyRootfs"] is True, service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert config["User"] == "10001:10001", service
    outside = "import socket; socket.create_connection(('1.1.1.1', 53), timeout=5)"
    ner = stack.containers("ner")[0]
    with pytest.raises(AssertionError, match=r"unreachable|timed out"):
        ran("docker", "exec", ner, "python", "-c", outside)
    assert "@all" not in ran("docker", "top", stack.containers("redis")[0]), "a password for all"


def test_the_log_is_json(stack: Stack) -> None:
    """Each line says when, what and who."""
    for service in ("ner", "orchestrator"):
        lines = [json.loads(line) for line in logged(stack.containers(service)[0]).splitlines()]
        assert lines
        assert all({"time", "level", "message"} <= set(line) for line in lines)


# --- scaling and breaking ------------------------------------------------------------------------


def test_one_becomes_three_and_one_of_them_is_killed(
    stack: Stack, until: Callable[..., Any]
) -> None:
    """`--scale ner=3` triples the slots; what a killed container had begun is done by another
    one, and it comes back by itself."""
    stack("up", "-d", "--no-recreate", "--scale", "ner=3", "ner")
    until(lambda: stack.slots("ner") == 3, 60, "three workers")
    with Load(stack, "ner").on() as load:
        until(lambda: len(load.accepted) > 10, 30, "some load")
        crash(stack.containers("ner")[0])
        so_far = len(load.accepted)
        until(lambda: len(load.accepted) > so_far + 20, 30, "more load")
    jobs = all_succeed(load, until)
    assert max(job["attempt"] for job in jobs) <= 2
    until(lambda: stack.slots("ner") == 3, 60, "three workers again")


@pytest.mark.parametrize("server", ["redis", "postgres", "orchestrator"])
def test_a_server_restarts(stack: Stack, until: Callable[..., Any], server: str) -> None:
    """Redis, PostgreSQL or the orchestrator restarts under load; every accepted job succeeds."""
    with Load(stack, "keyword-extraction").on() as load:
        until(lambda: len(load.accepted) > 10, 30, "some load")
        stack("restart", server)
        so_far = len(load.accepted)
        until(lambda: len(load.accepted) > so_far + 10, 90, "load again")
    all_succeed(load, until)


def test_redis_comes_back_with_what_it_had(stack: Stack) -> None:
    """What was written in a transaction is read back from the append-only file."""

    def asked(*words: str, said: str = "") -> str:
        inside = ("docker", "exec", "-i", stack.containers("redis")[0], "redis-cli")
        return ran(*inside, "--user", "admin", *words, said=said)

    asked(said="MULTI\nSET nlp:probe here\nSET nlp:other here\nEXEC\n")
    stack("restart", "redis")
    assert asked("GET", "nlp:probe").strip() == "here"
    assert "NOPERM" not in logged(stack.containers("redis")[0])


def test_a_server_is_killed(stack: Stack, until: Callable[..., Any]) -> None:
    """Redis and PostgreSQL crash at once and are started again; every accepted job succeeds."""
    with Load(stack, "keyword-extraction").on() as load:
        until(lambda: len(load.accepted) > 10, 30, "some load")
        ran("docker", "kill", *stack.containers("redis"), *stack.containers("postgres"))
        stack("up", "-d", "--no-recreate", "redis", "postgres")
        so_far = len(load.accepted)
        until(lambda: len(load.accepted) > so_far + 10, 90, "load again")
    all_succeed(load, until)


def test_a_worker_stops_in_peace(stack: Stack, until: Callable[..., Any]) -> None:
    """`docker stop` reaches the process itself: it ends by itself, soon, and with status 0."""
    container = stack.containers("topic-modeling")[0]
    ran("docker", "stop", "-t", "40", container, timeout=20)
    assert inspected(container)["State"]["ExitCode"] == 0
    until(lambda: stack.slots("topic-modeling") == 0, 5, "that nobody serves it")
    stack("up", "-d", "--no-recreate", "topic-modeling")
    until(lambda: stack.slots("topic-modeling") == 1, 60, "the service again")


def test_too_little_memory_is_said(stack: Stack, until: Callable[..., Any]) -> None:
    """A worker that is killed while it loads says why, and how much its container may use."""
    stack.variables["NER_MEMORY"] = "100m"
    stack("up", "-d", "--no-deps", "ner")
    said = "out of memory? This container may use 100 MB"
    until(lambda: any(said in logged(one) for one in stack.containers("ner")), 60, "the reason")
    del stack.variables["NER_MEMORY"]
    stack("up", "-d", "--no-deps", "ner")
    until(lambda: stack.slots("ner") == 1, 60, "the service again")


def test_a_worker_of_another_machine_joins(stack: Stack, until: Callable[..., Any]) -> None:
    """A container outside of the project needs the address of Redis, and works along."""
    networks = stack.inspected("redis")["NetworkSettings"]["Networks"]
    [address] = [network["IPAddress"] for network in networks.values()]
    before = stack.slots("keyword-extraction")
    container = ran(
        "docker", "run", "-d", "--rm", "--network", "host", "-e", "SERVICE_MODE=worker",
        "-e", f"SERVICES_BROKER=redis://worker-keyword-extraction@{address}:6379/0",
        "-e", "BROKER_PASS=change-me", "-e", "WIRE_SECRET=change-me",
        "nlp-runner/keyword-extraction", "--concurrency", "2",
    ).strip()  # fmt: skip
    try:
        until(lambda: stack.slots("keyword-extraction") == before + 2, 60, "its slots")
        stack("stop", "keyword-extraction")
        until(lambda: stack.slots("keyword-extraction") == 2, 60, "only its slots")
        assert stack.run("keyword-extraction", f"On a second machine: {TEXT}")
    finally:
        ran("docker", "stop", container)
        stack("up", "-d", "--no-recreate", "keyword-extraction")


def test_an_upgrade_with_new_containers_loses_nothing(
    stack: Stack, until: Callable[..., Any]
) -> None:
    """Everything but the databases is made anew under load; every accepted job succeeds."""
    with Load(stack, "keyword-extraction").on() as load:
        until(lambda: len(load.accepted) > 10, 30, "some load")
        stack("up", "-d", "--no-deps", "--force-recreate", "orchestrator", *SERVICES)
        so_far = len(load.accepted)
        until(lambda: len(load.accepted) > so_far + 10, 90, "load again")
    all_succeed(load, until)


# --- what Prometheus saw -------------------------------------------------------------------------


def test_promtool_accepts_what_prometheus_runs_on(stack: Stack) -> None:
    """Its own checker takes the configuration, and passes the rules' unit tests."""
    inside = ("docker", "exec", stack.containers("prometheus")[0], "promtool")
    ran(*inside, "check", "config", "/etc/prometheus/prometheus.yml")
    assert "SUCCESS" in ran(*inside, "test", "rules", "/etc/prometheus/rules_test.yml")


def test_prometheus_has_the_series_and_no_rule_fires(
    stack: Stack, until: Callable[..., Any]
) -> None:
    """One target for each orchestrator; every series of the dashboards' rules; no alert."""

    def asked(path: str, **query: str) -> Any:
        address = f"http://127.0.0.1:{stack.prometheus}/api/v1/{path}"
        return httpx.get(address, params=query, trust_env=False).json()["data"]

    def total(expression: str) -> float:
        found = asked("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else 0.0

    until(lambda: stack.healthy("orchestrator", *SERVICES), 120, "every container's health")
    until(lambda: total('sum(up{job="orchestrator"})') == 1, 60, "one orchestrator, counted once")
    stack.run("ner", f"Seen by Prometheus: {TEXT}")
    for service in SERVICES:
        until(lambda s=service: total(f'max(nlp_workers{{service="{s}",state="ready"}})') >= 1, 60,
              f"a ready worker of {service}")  # fmt: skip
    until(lambda: total('sum(nlp_jobs_total{service="ner",outcome="succeeded"})') >= 1, 60, "a job")
    for histogram in ("nlp_job_run_seconds", "nlp_job_queue_seconds", "nlp_step_seconds"):
        assert total(f'sum({histogram}_count{{service="ner"}})') >= 1, histogram
    rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 15
    assert [rule["name"] for rule in rules if rule["health"] not in ("ok", "unknown")] == []
    firing = [alert for alert in asked("alerts")["alerts"] if alert["state"] == "firing"]
    assert firing == []
