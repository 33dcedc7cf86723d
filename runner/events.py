"""The words an execution says about itself, frozen, to and from JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event carries.

    `seq` counts from 1 within one attempt of one job; `at` is seconds since the epoch (UTC).
    """

    kind: ClassVar[str]
    final: ClassVar[bool] = False

    job: str
    service: str
    attempt: int
    seq: int
    at: float

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object with its `event` word first."""
        return {"event": self.kind, **{f.name: getattr(self, f.name) for f in fields(self)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The handler is about to run; `worker` names the instance that runs it."""

    kind = "started"
    worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Event):
    """A step changed its state; `progress` is the whole picture (see `runner.context`)."""

    kind = "step"
    step: str
    status: str
    progress: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """A step moved on; `progress` is the whole picture."""

    kind = "progress"
    step: str
    progress: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(Event):
    """The handler said something to the person who follows the job."""

    kind = "log"
    level: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded(Event):
    """The handler returned an output that keeps its schema."""

    kind = "succeeded"
    final = True
    output: Any
    progress: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """The execution ended without an output; `error` is a problem document with a `code`."""

    kind = "failed"
    final = True
    error: dict[str, Any]
    progress: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Canceled(Event):
    """The execution stopped at a checkpoint because somebody asked it to."""

    kind = "canceled"
    final = True
    error: dict[str, Any]
    progress: dict[str, Any] | None = None


def for_the_silent(
    job: str, service: str, attempt: int, error: dict[str, Any], at: float,
    kind: type[Failed] | type[Canceled] = Failed,
) -> Failed | Canceled:  # fmt: skip
    """Return the end of an attempt that cannot tell it any more; whoever saw it says so.

    `error` is a problem document. `seq` is 0, as it is no part of what the attempt itself has told.
    """
    return kind(job=job, service=service, attempt=attempt, seq=0, at=at, error=error)


KINDS: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Started, Step, Progress, Log, Succeeded, Failed, Canceled)
}

TYPES: dict[str, Any] = {
    "attempt": int, "seq": int, "at": int | float, "error": dict, "output": object,
    "progress": dict | None,
}  # fmt: skip
"""The type of each field that is not a string."""


def from_json(document: Any) -> Event:
    """Read an event back; raises `ValueError` for anything that is not one of ours."""
    if not isinstance(document, dict):
        raise ValueError("not an event: not an object")
    rest = dict(document)
    wrong = [name for name, value in rest.items() if not isinstance(value, TYPES.get(name, str))]
    if wrong:
        raise ValueError(f"not an event: `{wrong[0]}` has the wrong type")
    try:
        return KINDS[rest.pop("event")](**rest)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an event: {error}") from None
