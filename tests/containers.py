"""The real stack on a Docker engine: what runs Compose, and a project of its own."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

from runner.client import Client
from runner.embedded import free_port
from runner.errors import RunnerError
from runner.manifest import load

HOUSE = Path(__file__).parents[1]
SERVICES = [load(path).name for path in sorted((HOUSE / "manifests").glob("*.yaml"))]


def ran(*command: str, timeout: float = 600, said: str = "", **variables: str) -> str:
    """Run a command in the project's folder, which hears what is `said`, and return what it prints.

    It must succeed.
    """
    done = subprocess.run(
        command, cwd=HOUSE, env={**os.environ, **variables}, capture_output=True, text=True,
        timeout=timeout, input=said,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def logged(container: str) -> str:
    """Return all that a container has said so far."""
    words = ["docker", "logs", container]
    said = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return said.stdout


class Stack:
    """One platform: a Compose project of its own, on ports of its own.

    `said` is a file of variables, which `variables` go before; `ports` orchestrators can run.
    """

    def __init__(
        self, compose: tuple[str, ...], said: Path, ports: int = 1, **variables: str
    ) -> None:
        self.project = f"nlp-{uuid.uuid4().hex[:8]}"
        self.port, self.prometheus = in_a_row(ports), free_port()
        self.variables = {"PORT": str(self.port), "PROMETHEUS_PORT": str(self.prometheus)}
        if ports > 1:
            self.variables["PORT"] = f"{self.port}-{self.port + ports - 1}"
        self.variables |= variables
        self._compose = (*compose, "--env-file", str(said), "-p", self.project)

    def __call__(self, *words: str) -> str:
        """Run Compose on this project; `stack("up", "-d")`."""
        return ran(*self._compose, *words, **self.variables)

    def client(self, key: str | None = None, number: int = 0) -> Client:
        """Return a client of its orchestrator, or of the one of this number."""
        return Client(f"http://127.0.0.1:{self.port + number}", key=key)

    def run(self, service: str, document: str) -> dict[str, Any]:
        """Return the result for one document; its job must succeed."""
        client = self.client()
        job = client.run(service, {"documents": [document]}, lambda *story: None)
        assert job["status"] == "succeeded", job
        return self.result(job["id"])

    def result(self, job_id: str) -> dict[str, Any]:
        """Return the result of a job that has succeeded."""
        found: dict[str, Any] = self.client().get(f"/v1/jobs/{job_id}/result")
        return found

    def containers(self, service: str) -> list[str]:
        """Return the ids of the running containers of a service."""
        return self("ps", "-q", service).split()

    def inspected(self, service: str) -> dict[str, Any]:
        """Return what the engine says of the service's first container."""
        found: dict[str, Any] = inspected(self.containers(service)[0])
        return found

    def healthy(self, *services: str) -> bool:
        """Say whether every container of these services passes its health check."""
        found = [self.containers(service) for service in services]
        try:
            return all(found) and all(
                inspected(container)["State"]["Health"]["Status"] == "healthy"
                for containers in found for container in containers
            )  # fmt: skip
        except AssertionError:  # one went away meanwhile
            return False

    def slots(self, service: str) -> int:
        """Return how many jobs of a service its ready workers run at a time."""
        try:
            return int(self.client().get(f"/v1/services/{service}")["slots"])
        except RunnerError:
            return 0


def in_a_row(number: int) -> int:
    """Return the first of so many free ports that follow each other."""
    for _ in range(100):
        first = free_port()
        if all(free_port(first + more) == first + more for more in range(1, number)):
            return first
    raise AssertionError(f"no {number} ports in a row are free")


def inspected(container: str) -> dict[str, Any]:
    """Return what the engine says of a container."""
    found: dict[str, Any] = json.loads(ran("docker", "inspect", container))[0]
    return found
