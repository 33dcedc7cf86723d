"""Each image by itself: what is in it, how large it is, and that it serves over HTTP."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from containers import HOUSE, SERVICES, inspected, ran

HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--pids-limit", "512",
            "--security-opt", "no-new-privileges:true", "--memory", "2g")  # fmt: skip

SPACY = {"ner"}


@contextlib.contextmanager
def alone(service: str) -> Iterator[tuple[str, str]]:
    """Run a service's image as its documentation says; give the container and its address."""
    container = ran(
        "docker", "run", "-d", *HARDENED, "-p", "127.0.0.1::8000", f"nlp-runner/{service}"
    ).strip()
    try:
        place = ran("docker", "port", container, "8000").split()[-1]
        yield container, f"http://{place}"
    finally:
        ran("docker", "rm", "-f", container)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_alone_from_its_image(service: str, until: Callable[..., Any]) -> None:
    """It answers over HTTP, is healthy, and ends by itself, with status 0, when it is stopped."""
    with alone(service) as (container, address):

        def ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{address}/readyz", trust_env=False).status_code == 200
            return False

        until(ready, 60, "that it is ready")
        body = {"documents": ["Marie Curie est née à Varsovie. Elle a vécu à Paris."]}
        answer = httpx.post(f"{address}/run", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["documents"]) == 1
        assert ran("docker", "exec", container, "nlp-runner", "health").strip() == "ready"
        ran("docker", "stop", "-t", "30", container, timeout=20)
        assert inspected(container)["State"]["ExitCode"] == 0


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("service", [*SERVICES, "orchestrator"])
def test_an_image_holds_nothing_of_the_other_services(service: str) -> None:
    """One manifest, its handler and what handlers share; spaCy is where it is used."""
    listed = ran("docker", "run", "--rm", "--entrypoint", "sh", f"nlp-runner/{service}", "-c",
                 "ls manifests; pip list --format=freeze")  # fmt: skip
    names = {line.partition("==")[0].lower() for line in listed.split()}
    assert {f"{service}.yaml"} - {"orchestrator.yaml"} == {n for n in names if n.endswith(".yaml")}
    assert ("spacy" in names) == (service in SPACY)
    assert ("psycopg2-binary" in names and "celery" in names) is True
    assert ("opentelemetry-sdk" in names) == (service == "orchestrator")


@pytest.mark.usefixtures("images")
def test_the_sizes_are_as_documented() -> None:
    """docs/deploy.md says how much each image adds to Python's own, within a tenth."""

    def size(image: str) -> float:
        return float(ran("docker", "image", "inspect", "-f", "{{.Size}}", image)) / 1e6

    base = size("python:3.11-slim")
    page = (HOUSE / "docs" / "deploy.md").read_text("utf-8")
    said = {name: float(mb) for name, mb in re.findall(r"^\| ([a-z-]+) \| (\d+) MB", page, re.M)}
    assert set(said) == {*SERVICES, "orchestrator"}
    for service, mb in said.items():
        assert mb == pytest.approx(size(f"nlp-runner/{service}") - base, rel=0.1), service
