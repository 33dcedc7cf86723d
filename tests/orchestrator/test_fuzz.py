"""The API does what its document says, whatever is sent to it: schemathesis asks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stage

SERVICES = ("echo", "counts_steps", "tags")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "allow_header_conformance",
)  # fmt: skip

LINTO = "/job/{id}"
"""Of a job that failed LinTO's clients expect a 500: test_linto.py asks there."""


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform with real workers, on which nobody waits for long."""
    with Stage(redis_url, tmp_path_factory.mktemp("fuzz"), until) as stage:
        stage.orchestrator(MAX_WAIT=1)
        for name in SERVICES:
            stage.worker(name)
        stage.ready(*SERVICES)
        yield stage


@pytest.mark.parametrize(
    ("phases", "examples", "seconds"),
    [
        ("examples,coverage", 1, 30),
        pytest.param("fuzzing", 30, 45, marks=pytest.mark.slow),
        pytest.param("stateful", 20, 30, marks=pytest.mark.slow),
    ],
)
def test_the_api_is_as_its_document_says(
    stage: Stage, tmp_path: Path, phases: str, examples: int, seconds: int
) -> None:
    """No 5xx, no answer outside its schema, no status, header or type that is not documented."""
    command = [
        str(Path(sys.executable).with_name("st")), "--no-color", "run",
        f"http://127.0.0.1:{stage.port}/openapi.json", "--phases", phases,
        "--max-examples", str(examples), "--max-time", str(seconds), "--seed", "1",
        "--generation-deterministic", "--no-shrink", "--checks", ",".join(CHECKS),
        "--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all",
        "--request-timeout", "20", "--exclude-path", LINTO,
    ]  # fmt: skip
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stdout[-12000:] + ran.stderr[-2000:]
    stage.sound()
