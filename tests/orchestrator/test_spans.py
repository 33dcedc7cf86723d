"""A job's end tells its whole story as spans, from the row and its history alone."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import specimens

from runner.orchestrator.picture import steps_of
from runner.orchestrator.queries import Transition
from runner.orchestrator.spans import Span, spans_of
from runner.traceparent import of_attempt

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

STEPS = [
    {"name": "read", "title": "Read", "status": "succeeded", "started_at": 12.0,
     "finished_at": 13.0},
    {"name": "tag", "title": "Tag", "status": "failed", "started_at": 13.0, "finished_at": 15.5},
    {"name": "sort", "title": "Sort", "status": "skipped"},
]  # fmt: skip


# Asked for at 10, begun at 12 and ended at 16.
a_job = partial(
    specimens.a_job, id="01890a5d-ac96-774b-bcce-b302099a8057", status="succeeded",
    created_at=10.0, available_at=10.0, started_at=12.0, finished_at=16.0, updated_at=16.0,
    worker="ner@host-1", input_bytes=7, progress={"percent": 1.0, "steps": STEPS},
)  # fmt: skip


def named(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def test_the_story_of_one_attempt() -> None:
    """The whole, its acceptance, its wait, its attempt and the steps that ran, each in place."""
    spans = named(spans_of(a_job()))
    assert list(spans) == ["job ner", "submit", "queue", "attempt", "step read", "step tag"]
    whole, attempt = spans["job ner"], spans["attempt"]
    assert (whole.parent_id, whole.began, whole.ended, whole.error) == (None, 10.0, 16.0, None)
    assert (spans["submit"].began, spans["submit"].ended) == (10.0, 10.0)
    assert (spans["queue"].began, spans["queue"].ended) == (10.0, 12.0)
    assert (attempt.began, attempt.ended) == (12.0, 16.0)
    assert {spans[n].parent_id for n in ("submit", "queue", "attempt")} == {whole.span_id}
    assert {spans[n].parent_id for n in ("step read", "step tag")} == {attempt.span_id}
    assert (spans["step read"].error, spans["step tag"].error) == (None, "failed")
    assert len({span.span_id for span in spans.values()}) == len(spans)


def test_an_attempts_span_is_what_its_handler_was_told() -> None:
    """What a handler asks with `ctx.traceparent` stands under its attempt, in the same trace."""
    job = a_job(traceparent=CALLER)
    header = of_attempt(job.traceparent, job.id, job.attempt)
    assert header == f"00-{job.trace_id}-{named(spans_of(job))['attempt'].span_id}-01"
    assert named(spans_of(job))["job ner"].parent_id == CALLER.split("-")[2]


def test_earlier_attempts_come_from_the_history() -> None:
    """Every attempt has its span and its wait; the reason why it was not the last is its error."""
    history = [
        Transition(1, "queued", None, 1, 10.0, ""),
        Transition(2, "running", None, 1, 11.0, "w"),
        Transition(3, "queued", "worker_lost", 2, 20.0, "w"),
        Transition(4, "queued", "interrupted", 3, 25.0, "w"),  # it ended before its start was told
        Transition(5, "running", None, 3, 30.0, "w"),
        Transition(6, "failed", "handler_error", 3, 31.0, "w"),
    ]
    job = a_job(
        attempt=3, started_at=30.0, finished_at=31.0, status="failed", reason="handler_error",
        progress=None,
    )  # fmt: skip
    told = [(s.name, s.began, s.ended, s.error) for s in spans_of(job, history)[2:]]
    assert told == [
        ("queue", 10.0, 11.0, None), ("attempt", 11.0, 20.0, "worker_lost"),
        ("queue", 20.0, 25.0, None),
        ("queue", 25.0, 30.0, None), ("attempt", 30.0, 31.0, "handler_error"),
    ]  # fmt: skip


def test_a_job_that_never_began_has_only_waited() -> None:
    """Canceled or expired in the queue, it has a wait up to its end and no attempt."""
    job = a_job(status="canceled", reason="canceled", started_at=None, progress=None)
    assert [s.name for s in spans_of(job)] == ["job ner", "submit", "queue"]
    assert named(spans_of(job))["queue"].ended == 16.0


def test_parts_stand_under_the_whole() -> None:
    """A composite job is one span, under which each part tells its own story in its trace."""
    whole = a_job(id="01890a5d-0000-774b-bcce-b302099a8057", service="", progress=None)
    part = a_job(parent_id=whole.id, part="names")
    spans = spans_of(whole)
    assert [span.name for span in spans] == ["job", "submit"]
    assert named(spans_of(part))["job ner"].parent_id == spans[0].span_id
    assert part.trace_id == whole.trace_id


@pytest.mark.parametrize(
    "progress",
    [
        None, [], {"steps": None}, {"steps": {}}, {"steps": ["x", None, 3]},
        {"steps": [{"name": 3, "status": "x", "started_at": 1.0, "finished_at": 2.0}]},
        {"steps": [{"name": "a", "status": "x", "started_at": "1", "finished_at": 2.0}]},
        {"steps": [{"name": "a", "status": "x", "started_at": True, "finished_at": 2.0}]},
        {"steps": [{"name": "a", "status": "x", "started_at": 3.0, "finished_at": 2.0}]},
        {"steps": [{"name": "a", "status": "x", "started_at": 3.0, "finished_at": 1e300}]},
        {"steps": [{"name": "a", "status": "x", "started_at": 3.0, "finished_at": 10**400}]},
    ],
)  # fmt: skip
def test_a_picture_that_cannot_be_is_left_out(progress: Any) -> None:
    """Whatever a worker of another make says of its steps, the story is told without it."""
    job = dataclasses.replace(a_job(), progress=progress)
    assert list(steps_of(job)) == []
    assert len(spans_of(job)) == 4


def test_a_monstrous_picture_is_cut() -> None:
    """Of endless steps with endless names a hundred are told, as any collector takes them."""
    step = {
        "name": "\ud800" + "x" * 999,
        "status": "y" * 999,
        "started_at": 1.0,
        "finished_at": 2.0,
    }
    steps = list(steps_of(a_job(progress={"steps": [step] * 999})))
    assert len(steps) == 100
    assert {len(one.name.encode()) for one in steps} == {100}
    assert {len(one.status) for one in steps} == {100}


def test_nothing_of_the_documents_is_in_a_span() -> None:
    """Of an error its code is told, never its words, which may quote a document."""
    words = {"code": "handler_error", "detail": "cannot read: Ada lives in Paris"}
    job = a_job(status="failed", reason="handler_error", error=words)
    assert "Ada" not in repr(spans_of(job))
