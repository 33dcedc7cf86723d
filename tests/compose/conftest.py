"""The real images and the real stack, on a Docker engine; skipped where none answers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import Stack, ran

BASES = {
    "PYTHON_IMAGE": ("python:3.11-slim",),
    "POSTGRES_IMAGE": ("postgres:16-alpine",),
    "REDIS_IMAGE": ("redis:7-alpine",),
    "PROMETHEUS_IMAGE": ("prom/prometheus:v2.53.0", "prom/prometheus:latest"),
}
"""The variables of docker-compose.yml that name an image of others: its default, and what does."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and give them the time that containers take."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("compose")
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def compose() -> tuple[str, ...]:
    """Give the words that call Compose: v2 or 1.29, or what COMPOSE says."""
    if shutil.which("docker") is None:
        pytest.skip("there is no `docker` on PATH")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers `docker info`")
    for said in filter(None, (os.environ.get("COMPOSE"), "docker compose", "docker-compose")):
        words = tuple(said.split())
        with contextlib.suppress(OSError):
            if subprocess.run([*words, "version"], capture_output=True).returncode == 0:
                return words
    pytest.skip("there is neither `docker compose` nor `docker-compose`")


@pytest.fixture(scope="session")
def bases(compose: tuple[str, ...]) -> dict[str, str]:
    """Give the variables that name the images that we build upon, where others must stand in."""
    found = {}
    for variable, names in BASES.items():
        image = next(filter(at_hand, names), None)
        if image is None:
            pytest.skip(f"{names[0]} is not here and cannot be pulled")
        if image != names[0]:
            found[variable] = image
    return found


def at_hand(image: str) -> bool:
    """Say whether the engine has an image, or can get it."""
    asked = (["docker", "image", "inspect", image], ["docker", "pull", "-q", image])
    return any(subprocess.run(words, capture_output=True).returncode == 0 for words in asked)


@pytest.fixture(scope="session")
def images(compose: tuple[str, ...], bases: dict[str, str]) -> None:
    """Build every image from the working tree, as `docker compose build` does."""
    ran(*compose, "build", timeout=1800, **bases)


@pytest.fixture(scope="session")
def brought_up(
    compose: tuple[str, ...],
    bases: dict[str, str],
    images: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., contextlib.AbstractContextManager[Stack]]:
    """Give what brings a stack up, with some variables, and takes it down with its volumes."""

    nothing = tmp_path_factory.mktemp("nothing") / ".env"  # a developer's own is none of ours
    nothing.touch()

    @contextlib.contextmanager
    def bring(*words: str, said: Path = nothing, **about: Any) -> Iterator[Stack]:
        stack = Stack(compose, said, **bases, **about)
        try:
            stack("up", "-d", *words)
            yield stack
        finally:
            stack("--profile", "monitoring", "down", "-v", "-t", "5", "--remove-orphans")

    return bring
