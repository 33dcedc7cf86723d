"""Jobs as the store takes them, what workers say of them, and a clock that stands still."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from runner import errors, events
from runner.orchestrator.jobs import Job
from runner.payload import pack

NOW = 1_000_000.0
_numbers = itertools.count()


@dataclass
class Clock:
    """A clock that goes when it is told to."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def a_job(**fields: Any) -> Job:
    """Return a new job that waits, later than the ones before."""
    number = next(_numbers)
    usual: dict[str, Any] = {
        "id": f"job-{number:08}", "service": "ner", "service_version": "1.0.0", "major": 1,
        "manifest_digest": "d1", "created_at": NOW + number / 1000, "available_at": NOW,
        "updated_at": NOW,
    }  # fmt: skip
    return Job(**{**usual, **fields})


def with_input(*jobs: Job) -> list[tuple[Job, bytes]]:
    """Return the jobs as the store takes them, each with an input that says which it is."""
    return [(job, pack({"text": job.id})) for job in jobs]


def said(kind: type[events.Event], job: Job, at: float, **fields: Any) -> Any:
    """Return what is told of a job at that time, by its attempt unless `attempt` says another."""
    told = {"job": job.id, "service": job.service, "attempt": job.attempt, "seq": 1, "at": at}
    return kind(**{**told, **fields})


def started(job: Job, worker: str = "w1", **fields: Any) -> events.Started:
    """Return its start."""
    return said(events.Started, job, job.updated_at, worker=worker, **fields)


def succeeded(job: Job, **fields: Any) -> events.Succeeded:
    """Return its success; the output goes beside it."""
    picture = {"percent": 100.0, "steps": []}
    return said(events.Succeeded, job, job.updated_at, output=None, progress=picture, **fields)


def failed(job: Job, error: errors.RunnerError, **fields: Any) -> events.Failed:
    """Return its failure."""
    return said(events.Failed, job, job.updated_at, error=error.to_problem(), **fields)
