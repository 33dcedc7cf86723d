"""What a handler may do while it runs: report steps and progress, log, and notice a stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import cached_property
from types import SimpleNamespace, TracebackType
from typing import Any, TypeVar

from runner import events, logs
from runner.errors import Canceled, RunnerError, Stopped, TimedOut
from runner.traceparent import of_attempt, trace_of

log = logging.getLogger(__name__)

T = TypeVar("T")
Emit = Callable[[events.Event], None]

PROGRESS_EVERY = 0.25
"""Seconds between two progress events of one execution; what lies between is skipped."""


class Stop:
    """The request to end an execution early, set from another thread and seen at checkpoints."""

    def __init__(self) -> None:
        self._error: RunnerError | None = None

    def request(self, error: RunnerError | None = None) -> None:
        """Ask the execution to stop; the first reason given stays."""
        if self._error is None:
            self._error = error or Canceled("Somebody asked for the job to be canceled.")

    @property
    def error(self) -> RunnerError | None:
        """Why the execution should stop, or None while it may go on."""
        return self._error


class Context:
    """The first argument of every handler.

    `job_id` names the job, `attempt` counts its tries from 1: together they identify this
    execution to the outside world. `traceparent` is the header to send to whatever it asks, so that
    a trace goes on there; `about` says to log lines what they are about. `config` holds the
    manifest's `config` with the operator's choices. `log` is a standard logger whose lines, from
    INFO on, also reach whoever follows the job.
    Every `step`, `progress` and `track` call is a checkpoint; `check()` is one for loops that
    report nothing.
    """

    def __init__(
        self,
        *,
        job_id: str,
        service: str,
        steps: Iterable[Any],
        emit: Emit,
        attempt: int = 1,
        config: SimpleNamespace | None = None,
        stop: Stop | None = None,
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        traceparent: str | None = None,
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.traceparent = traceparent or of_attempt(None, job_id, attempt)
        self.about = {
            "job": job_id, "service": service, "attempt": attempt,
            "trace_id": trace_of(self.traceparent, job_id),
        }  # fmt: skip
        self.config = config or SimpleNamespace()
        self._service = service
        self._emit = emit
        self._stop = stop or Stop()
        self._clock, self._now = clock, now
        self._timeout = timeout
        self._started, self._began = clock(), now()
        self._telling = threading.RLock()  # a handler may log and report from its own threads
        self._seq = 0
        self._over = False
        self._spoke = -PROGRESS_EVERY
        self._percent = 0.0
        self._steps = {
            spec.name: {"name": spec.name, "title": spec.title, "status": "pending"}
            for spec in steps
        }
        self._weights = {spec.name: spec.weight for spec in steps}
        self._current: str | None = None

    # --- for handlers ----------------------------------------------------------------------------

    @cached_property  # most handlers say nothing, and a logger is an eighth of an execution
    def log(self) -> logging.Logger:
        """The logger of this execution."""
        log = logging.Logger(f"runner.handler.{self._service}")
        log.addHandler(_Relay(self))
        return log

    def step(self, name: str) -> StepScope:
        """Enter a step that the manifest declares: `with ctx.step("tag") as step:`."""
        if name not in self._steps:
            raise LookupError(
                f"`{name}` is not a step of {self._service}; its manifest declares "
                f"{', '.join(self._steps)}"
            )
        return StepScope(self, name)

    def check(self) -> None:
        """End the execution here if the job was canceled or its time is up."""
        error = self._stop.error
        if error is not None:
            raise Stopped(error)
        if self._timeout is not None:
            spent = self._clock() - self._started
            if spent > self._timeout:
                raise Stopped(self._timed_out(spent))

    @property
    def remaining(self) -> float | None:
        """Seconds left before the deadline of this attempt, or None without one."""
        if self._timeout is None:
            return None
        return max(0.0, self._timeout - (self._clock() - self._started))

    # --- for the engine --------------------------------------------------------------------------

    def emit(self, kind: type[events.Event], **fields: Any) -> None:
        """Build the next event of this execution and hand it to the listener.

        Nothing follows the final event, and a listener that fails does not disturb the execution.
        """
        with self._telling:
            if self._over:
                return
            self._over = kind.final
            self._seq += 1
            event = kind(
                job=self.job_id, service=self._service, attempt=self.attempt,
                seq=self._seq, at=self._now(), **fields,
            )  # fmt: skip
            try:
                self._emit(event)
            except Exception:
                log.exception("%s: the event %s could not be told", self.job_id, event.kind)

    def picture(self) -> dict[str, Any]:
        """Return the whole progress: `percent` (0 to 100), the current `step`, and all `steps`.

        A step has name, title, status (pending, running, succeeded, failed, skipped, canceled)
        and, once known, done, total, started_at and finished_at (seconds since the epoch).
        """
        self._advance()
        return {
            "percent": round(self._percent, 1),
            "step": self._current,
            "steps": [dict(step) for step in self._steps.values()],
        }

    def close(self, status: str) -> dict[str, Any]:
        """Close the books: what ran ends with `status`, what never ran is skipped.

        A service with one step need not name it in its handler.
        """
        if len(self._steps) == 1 and status == "succeeded":
            for step in self._steps.values():
                if step["status"] == "pending":
                    step.update(status="running", started_at=self._began)
        for step in self._steps.values():
            if step["status"] == "running":
                step.update(status=status, finished_at=self._now())
            elif step["status"] == "pending":
                step["status"] = "skipped"
        self._current = None
        if status == "succeeded":
            self._percent = 100.0
        return self.picture()

    def _timed_out(self, spent: float) -> TimedOut:
        """Say which clock ran out, with its value and where the time went."""
        where = f" in step `{self._current}`" if self._current else ""
        return TimedOut(
            f"The attempt ran {spent:.1f} s{where}; `limits.timeout` of the manifest allows "
            f"{self._timeout:g} s.",
            clock="timeout",
            seconds=self._timeout,
            set_by="manifest",
            ran_seconds=round(spent, 1),
        )

    def _enter(self, name: str) -> str | None:
        """Begin a step, perhaps not for the first time, and return the one it stands in."""
        self.check()
        outer, self._current = self._current, name
        step = self._steps[name]
        for key in ("done", "total", "finished_at"):
            step.pop(key, None)
        step.update(status="running", started_at=self._now())
        self._tell_step(name)
        return outer

    def _leave(self, name: str, status: str, outer: str | None) -> None:
        self._steps[name].update(status=status, finished_at=self._now())
        self._tell_step(name)
        self._current = outer

    def _progress(self, name: str, done: float, total: float | None) -> None:
        self.check()
        step = self._steps[name]
        step["done"] = _plain(done)
        if total is not None:
            step["total"] = _plain(total)
        now = self._clock()
        if now - self._spoke >= PROGRESS_EVERY:
            self._spoke = now
            self.emit(events.Progress, step=name, progress=self.picture())

    def _tell_step(self, name: str) -> None:
        self._spoke = self._clock()
        status = self._steps[name]["status"]
        self.emit(events.Step, step=name, status=status, progress=self.picture())

    def _advance(self) -> None:
        """Recompute the percentage from the weights; it never falls, and 100 means succeeded."""
        whole = sum(self._weights.values())
        share = sum(self._weights[name] * _share(step) for name, step in self._steps.items())
        self._percent = max(self._percent, min(99.0, 100.0 * share / whole))


class StepScope:
    """One running step; a context manager."""

    def __init__(self, ctx: Context, name: str) -> None:
        self._ctx, self.name = ctx, name
        self._outer: str | None = None

    def __enter__(self) -> StepScope:
        self._outer = self._ctx._enter(self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if error is None:
            status = "succeeded"
        elif isinstance(error, Stopped) and isinstance(error.error, Canceled):
            status = "canceled"
        else:
            status = "failed"
        self._ctx._leave(self.name, status, self._outer)

    def progress(self, done: float, total: float | None = None) -> None:
        """Say that `done` of `total` units are finished."""
        self._ctx._progress(self.name, done, total)

    def track(self, items: Iterable[T], total: int | None = None) -> Iterator[T]:
        """Yield the items, and report each one as it is finished."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        self.progress(0, total)
        for done, item in enumerate(items, 1):
            yield item
            self.progress(done, total)


def _share(step: dict[str, Any]) -> float:
    """Return the finished share of a step, 0 to 1."""
    if step["status"] == "succeeded":
        return 1.0
    total = step.get("total")
    return min(1.0, step.get("done", 0) / total) if total else 0.0


def _plain(number: float) -> int | float:
    """Return a Python number for any that a handler counts with, such as a NumPy scalar."""
    return int(number) if number == int(number) else float(number)


class _Relay(logging.Handler):
    """Sends a handler's log lines down the event stream, and on to the process's own log."""

    def __init__(self, ctx: Context) -> None:
        super().__init__()
        self._ctx = ctx

    def emit(self, record: logging.LogRecord) -> None:
        """Turn one record into one `Log` event; debugging is for the process's log alone."""
        try:
            message = record.getMessage()[:2000]
        except (TypeError, ValueError):  # a wrong format is no reason to fail a job
            self.handleError(record)
            return
        if record.levelno >= logging.INFO:
            self._ctx.emit(events.Log, level=record.levelname.lower(), message=message)
        record.about = {**logs.ABOUT.get(), **self._ctx.about}  # also from a handler's threads
        process = logging.getLogger(record.name)
        if process.isEnabledFor(record.levelno):
            process.handle(record)
