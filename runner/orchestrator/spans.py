"""The story of a finished job as spans: the whole, its waits, its attempts and their steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.orchestrator.jobs import Job
from runner.orchestrator.picture import steps_of
from runner.orchestrator.queries import Transition
from runner.traceparent import span_of


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in a trace; ids are hex digits, times seconds since the epoch.

    `kind` is server, producer, consumer or internal; `error` is the code of what ended it badly.
    """

    name: str
    span_id: str
    parent_id: str | None
    began: float
    ended: float
    kind: str = "internal"
    error: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


def spans_of(job: Job, history: Sequence[Transition] = ()) -> list[Span]:
    """Return the spans of a job that has ended; its history says what earlier attempts were.

    They hold ids, names, codes and sizes, and nothing of the documents. An attempt has the id that
    its handler was told in `ctx.traceparent`, so that what it asked of others stands under it.
    """
    ended = job.finished_at or job.updated_at
    root = span_of(job.id, "job")
    attributes = {
        "nlp.job": job.id, "nlp.service": job.service or None, "nlp.status": job.status,
        "nlp.version": job.service_version or None, "nlp.input_bytes": job.input_bytes,
        "nlp.attempts": job.attempt, "nlp.part": job.part,
    }  # fmt: skip
    whole = Span(
        f"job {job.service}".strip(), root, _parent(job), job.created_at, ended, "server",
        job.reason, {key: value for key, value in attributes.items() if value is not None},
    )  # fmt: skip
    submit = Span(
        "submit", span_of(job.id, "submit"), root, job.created_at, job.created_at, "producer"
    )
    if job.composite:
        return [whole, submit]
    return [whole, submit, *_attempts(job, history, root, ended)]


def _parent(job: Job) -> str | None:
    """Return the span that a job stands under: the whole it is part of, or its caller's."""
    if job.parent_id is not None:
        return span_of(job.parent_id, "job")
    return None if job.traceparent is None else job.traceparent[36:52]


def _attempts(job: Job, history: Sequence[Transition], root: str, ended: float) -> Iterator[Span]:
    """Yield each attempt with the wait before it; only the last one's steps are known."""
    waits = job.created_at
    for attempt in range(1, job.attempt):
        rows = [row.at for row in history if row.attempt == attempt and row.status == "running"]
        after = [row for row in history if row.attempt == attempt + 1]
        if not after:  # the history was not asked for
            continue
        over = after[0].at
        starts = min(rows, default=over)
        yield _wait(job, attempt, root, waits, starts)
        if rows:
            yield _attempt(job, attempt, root, starts, over, after[0].reason)
        waits = over
    starts = ended if job.started_at is None else job.started_at
    yield _wait(job, job.attempt, root, min(waits, starts), starts)
    if job.started_at is None:
        return
    last = _attempt(job, job.attempt, root, starts, ended, job.reason)
    yield last
    for place, step in enumerate(steps_of(job)):
        yield Span(
            f"step {step.name}", span_of(job.id, "attempt", job.attempt, "step", place),
            last.span_id, step.began, step.ended,
            error=None if step.status == "succeeded" else step.status,
        )  # fmt: skip


def _wait(job: Job, attempt: int, root: str, began: float, ended: float) -> Span:
    return Span("queue", span_of(job.id, "queue", attempt), root, began, ended)


def _attempt(
    job: Job, attempt: int, root: str, began: float, ended: float, reason: str | None
) -> Span:
    attributes: dict[str, Any] = {"nlp.job": job.id, "nlp.attempt": attempt}
    if attempt == job.attempt and job.worker:
        attributes["nlp.worker"] = job.worker
    span_id = span_of(job.id, "attempt", attempt)
    return Span("attempt", span_id, root, began, ended, "consumer", reason, attributes)
