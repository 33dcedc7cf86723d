"""Each image by itself: what is in it, how large it is, and that it serves over HTTP."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import spacy
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


def ready(address: str) -> bool:
    """Say whether the service at an address takes requests."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{address}/readyz", trust_env=False).status_code == 200
    return False


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_alone_from_its_image(service: str, until: Callable[..., Any]) -> None:
    """It answers over HTTP, is healthy, and ends by itself, with status 0, when it is stopped."""
    with alone(service) as (container, address):
        until(lambda: ready(address), 60, "that it is ready")
        body = {"documents": ["Marie Curie est née à Varsovie. Elle a vécu à Paris."]}
        answer = httpx.post(f"{address}/run", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["documents"]) == 1
        assert ran("docker", "exec", container, "nlp-runner", "health").strip() == "ready"
        ran("docker", "stop", "-t", "30", container, timeout=20)
        assert inspected(container)["State"]["ExitCode"] == 0


PIPELINE = "fr_core_news_md"


def wheel(folder: Path) -> Path:
    """Write a wheel of a spaCy pipeline as they are published; this one knows one name."""
    nlp = spacy.blank("fr")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PER", "pattern": "Zébulon"}])
    nlp.meta["name"], nlp.meta["version"] = "core_news_md", "3.8.0"
    nlp.to_disk(folder / "data")
    code = (
        "from spacy.util import load_model_from_init_py\n"
        "def load(**overrides):\n    return load_model_from_init_py(__file__, **overrides)\n"
    )
    info = f"{PIPELINE}-3.8.0.dist-info"
    path = folder / f"{PIPELINE}-3.8.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        for file in sorted((folder / "data").rglob("*")):
            if file.is_file():
                inside = file.relative_to(folder / "data")
                made.write(file, f"{PIPELINE}/{PIPELINE}-3.8.0/{inside}")
        made.write(folder / "data" / "meta.json", f"{PIPELINE}/meta.json")
        made.writestr(f"{PIPELINE}/__init__.py", code)
        made.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PIPELINE}\nVersion: 3.8.0\n"
        )
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")
    return path


@contextlib.contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve the files of a folder on loopback; give the port."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.usefixtures("images")
def test_spacy_pipelines_are_built_in(tmp_path: Path, until: Callable[..., Any]) -> None:
    """SPACY_MODELS takes names and URLs of wheels: what could be had answers, and `ner` says what
    could not."""
    wheel(tmp_path)
    image = "nlp-runner/ner:with-pipelines"
    with served(tmp_path) as port:
        asked = f"http://127.0.0.1:{port}/{PIPELINE}-3.8.0-py3-none-any.whl no_such_pipeline"
        ran("docker", "build", "--network", "host", "-f", "Dockerfile.base", "-t", image,
            "--build-arg", "SERVICE=ner", "--build-arg", f"SPACY_MODELS={asked}", ".")  # fmt: skip
    try:
        with alone("ner:with-pipelines") as (_, address):
            until(lambda: ready(address), 60, "that it is ready")
            body = {"documents": ["Hier, Zébulon est venu à la maison avec ses amis."]}
            said = httpx.post(f"{address}/run", json=body, timeout=60, trust_env=False).json()
            assert [one["text"] for one in said["documents"][0]["entities"]] == ["Zébulon"]
            assert said["models"] == {"fr": PIPELINE}
            told = httpx.get(f"{address}/readyz", trust_env=False).json()["warnings"]
            assert "The spaCy pipeline no_such_pipeline was asked for and is not installed." in told
    finally:
        ran("docker", "rmi", image)


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
