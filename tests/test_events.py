"""What `runner.events` promises to whoever sends or reads events."""

import json
from dataclasses import FrozenInstanceError

import pytest

from runner.events import (
    KINDS,
    Canceled,
    Failed,
    Log,
    Progress,
    Started,
    Step,
    Succeeded,
    for_the_silent,
    from_json,
)

HEAD = {"job": "j1", "service": "echo", "attempt": 2, "seq": 5, "at": 1700000000.5}
PICTURE = {"percent": 10.0, "step": "run", "steps": []}
EVENTS = [
    Started(**HEAD, worker="w1"),
    Step(**HEAD, step="run", status="running", progress=PICTURE),
    Progress(**HEAD, step="run", progress=PICTURE),
    Log(**HEAD, level="info", message="hello"),
    Succeeded(**HEAD, output={"a": 1}, progress=PICTURE),
    Failed(**HEAD, error={"code": "transient"}),
    Canceled(**HEAD, error={"code": "canceled_by_user"}, progress=PICTURE),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_an_event_survives_the_wire(event):
    """An event that became JSON text and back is the same event."""
    assert from_json(json.loads(json.dumps(event.to_json()))) == event


def test_the_word_of_an_event_comes_first():
    """A person who reads the raw JSON sees at once what happened, and to which job."""
    assert list(EVENTS[0].to_json().items())[:2] == [("event", "started"), ("job", "j1")]


def test_these_are_all_the_events():
    """The list above is complete, so that the tests of it are."""
    assert {event.kind for event in EVENTS} == set(KINDS)


def test_three_events_are_final():
    """A listener knows from the event itself that nothing follows it."""
    assert {event.kind for event in EVENTS if event.final} == {"succeeded", "failed", "canceled"}


@pytest.mark.parametrize("kind", [Failed, Canceled])
def test_the_end_of_a_silent_attempt_is_none_of_its_words(kind):
    """What others say of an attempt survives the wire, and counts before its own story."""
    event = for_the_silent("j1", "echo", 2, {"code": "worker_lost"}, 1.5, kind)
    assert isinstance(event, kind)
    assert event.seq == 0
    assert from_json(event.to_json()) == event


def test_an_event_never_changes():
    """What was said stays said."""
    with pytest.raises(FrozenInstanceError):
        EVENTS[0].seq = 1


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        "started",
        {"event": "exploded", **HEAD},
        {"event": ["started"], **HEAD},
        {"event": "started"},
        {"event": "started", **HEAD, "colour": "red"},
        {"event": "started", **HEAD, "seq": "5"},
        {"event": "started", **HEAD, "job": 1},
        {"event": "log", **HEAD, "level": "info", "message": {"a": 1}},
        {"event": "progress", **HEAD, "step": "run", "progress": "half"},
        {"event": "failed", **HEAD, "error": "bad"},
    ],
)
def test_what_is_no_event_is_refused(document):
    """Whatever else arrives on the wire becomes one kind of error."""
    with pytest.raises(ValueError, match="not an event"):
        from_json(document)
