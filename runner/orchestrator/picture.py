"""What a finished job's picture of its progress says of its steps, as far as it can be believed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runner.orchestrator.jobs import Job

MOST = 100
"""Steps that are believed of one job."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """A step that began and ended; times are seconds since the epoch, of the worker's clock."""

    name: str
    status: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


def steps_of(job: Job) -> Iterator[StepRun]:
    """Yield the steps that began and ended; a worker of another make may have said anything."""
    picture: Any = job.progress
    steps = picture.get("steps") if isinstance(picture, dict) else None
    for step in steps[:MOST] if isinstance(steps, list) else ():
        if not isinstance(step, dict):
            continue
        name, status = step.get("name"), step.get("status")
        began, ended = _moment(step.get("started_at")), _moment(step.get("finished_at"))
        if isinstance(name, str) and isinstance(status, str) and 0 < began <= ended:
            yield StepRun(_text(name), _text(status), began, ended)


def _text(text: str) -> str:
    """Return a text that fits everywhere: short, and without lone surrogates."""
    return text[:100].encode("utf-8", "replace").decode()


def _moment(value: Any) -> float:
    """Return a time, or 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if abs(value) < 1e11 and math.isfinite(value) else 0.0
