"""The one compute thread of a process, and the line of requests before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

import orjson

from runner.context import Emit, Stop
from runner.engine import Engine, Outcome
from runner.errors import (
    Busy,
    Canceled,
    HandlerInvalid,
    InputInvalid,
    Interrupted,
    NotReady,
    OutputInvalid,
    RunnerError,
    TimedOut,
)
from runner.events import Event, Failed
from runner.http import Lifetime
from runner.manifest import Manifest
from runner.metrics import Metrics
from runner.traceparent import CALLER

log = logging.getLogger(__name__)

LATE = 5.0
"""Seconds past `limits.timeout` after which a handler that never looks up is given up on."""

LONGEST_RETRY = 600


@dataclass(frozen=True, slots=True)
class Answer:
    """How an execution ended, with its output as JSON text."""

    outcome: Outcome
    body: bytes = b""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request on its way through the line.

    `tell` hears the events in the event loop; `began` is on the monotonic clock; `context` is that
    of the request, for log lines.
    """

    job_id: str
    inputs: Any
    answer: asyncio.Future[Answer]
    tell: Emit | None = None
    stop: Stop = field(default_factory=Stop)
    began: float = 0.0
    given_up: bool = False
    context: Context = field(default_factory=copy_context)

    def settle(self, answer: Answer) -> None:
        """Give the answer, unless somebody has stopped waiting for it."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Desk:
    """The one compute thread of this process and the line before it.

    Loading happens in that thread too, because some libraries stay with the thread that loaded
    them, and so that the event loop answers `/livez` meanwhile. The line, the tickets' answers and
    the deadline belong to the event loop.
    """

    def __init__(
        self,
        manifest: Manifest,
        make: Callable[[], Engine],
        line: int,
        late: float,
        listeners: Sequence[Emit],
        metrics: Metrics,
    ) -> None:
        self.manifest = manifest
        self._make, self._line, self._listeners, self._metrics = make, line, listeners, metrics
        self._allowed = manifest.limits.timeout + late
        self._incoming: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._tickets: set[Ticket] = set()
        self._current: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._mean = 0.0
        self._opened = 0.0
        self._ready = False
        self.warnings: tuple[str, ...] = ()

    @contextlib.asynccontextmanager
    async def open(self, lifetime: Lifetime) -> AsyncIterator[None]:
        """Load the handler and work until the application ends."""
        self._loop = asyncio.get_running_loop()
        self._lifetime = lifetime
        self._opened = time.monotonic()
        self._ended = self._loop.create_future()
        # A daemon, so that a handler that never comes back cannot hold up the end of the process.
        threading.Thread(target=self._work, name="compute", daemon=True).start()
        limit = self.manifest.limits.startup
        impatience = self._loop.call_later(limit, self._loading_failed, _too_slow(self.manifest))
        try:
            yield
        finally:
            impatience.cancel()
            self._incoming.put(None)
            if self._ready and not self.stuck:
                await asyncio.wait([self._ended], timeout=LATE)

    @property
    def state(self) -> str:
        """One word: loading, ready, stuck, stopping or failed."""
        if self._lifetime.failure is not None:
            return "failed"
        if self._lifetime.stopping.is_set():
            return "stopping"
        if self.stuck:
            return "stuck"
        return "ready" if self._ready else "loading"

    @property
    def stuck(self) -> bool:
        """Whether the thread is still in a request that was given up on."""
        return self._current is not None and self._current.given_up

    @property
    def busy(self) -> bool:
        """Whether a new request would have to wait."""
        return bool(self._tickets) or self._current is not None

    def check(self) -> None:
        """Raise `NotReady` or `Busy` when a new request has no place here."""
        if not self._ready:
            seconds = time.monotonic() - self._opened
            raise NotReady(f"The handler is loading since {seconds:.0f} s.", retry_after=2)
        if self.stuck:
            raise self._stuck_error()
        if len(self._tickets) > self._line:
            wait = math.ceil(self._mean * len(self._tickets))
            raise Busy(
                f"One request runs and {self._line} wait; this is all that may wait.",
                retry_after=max(1, min(LONGEST_RETRY, wait)),
            )

    def submit(self, ticket: Ticket) -> None:
        """Put a request in the line; raises as `check` does."""
        self.check()
        self._tickets.add(ticket)
        self._incoming.put(ticket)
        if self._timer is None:
            self._timer = self._loop.call_later(self._allowed, self._look)

    def leave(self, ticket: Ticket) -> None:
        """Let a request go; an execution that nobody waits for any more is stopped."""
        self._tickets.discard(ticket)
        if not ticket.answer.done():
            ticket.answer.cancel()
        if not ticket.answer.cancelled():
            return
        if self._lifetime.stopping.is_set():
            ticket.stop.request(Interrupted("The server stopped before the end."))
        else:
            ticket.stop.request(Canceled("The client left."))

    def refuse(self, ticket: Ticket, error: InputInvalid) -> None:
        """Tell the listeners of a request that did not get as far as the engine."""
        self._emit(
            Failed(
                job=ticket.job_id, service=self.manifest.name, attempt=1, seq=1, at=time.time(),
                error=error.to_problem(),
            )
        )  # fmt: skip

    def _look(self) -> None:
        """Give up on a request that runs past its deadline, and on those that wait behind it."""
        self._timer = None
        current = self._current
        left = self._allowed
        if current is not None:
            left = current.began + self._allowed - time.monotonic()
        if current is not None and left <= 0 and not current.given_up:
            self._give_up(current)
        if self._tickets:
            self._timer = self._loop.call_later(max(0.05, left), self._look)

    def _give_up(self, current: Ticket) -> None:
        current.given_up = True
        limit = self.manifest.limits.timeout
        late = TimedOut(
            f"The handler did not stop at `limits.timeout` of the manifest, {limit:g} s.",
            clock="timeout",
        )
        log.error("%s does not look up: job %s is given up on", self.manifest.handler,
                  current.job_id)  # fmt: skip
        current.stop.request(late)
        for ticket in self._tickets:
            error = late if ticket is current else self._stuck_error()
            ticket.stop.request(error)
            ticket.settle(Answer(Outcome("failed", error=error)))

    def _stuck_error(self) -> Busy:
        return Busy("A request that ran out of time still holds the only slot.", retry_after=10)

    def _loading_failed(self, error: RunnerError) -> None:
        if not self._ready:
            self._lifetime.fail(error)

    def _loaded(self, warnings: tuple[str, ...]) -> None:
        seconds = time.monotonic() - self._opened
        self.warnings = warnings
        for warning in warnings:
            log.warning("%s: %s", self.manifest.name, warning)
        self._ready = True
        self._metrics.loaded(self.manifest.name, seconds)
        log.info("%s %s is ready after %.1f s", self.manifest.name, self.manifest.version, seconds)

    # --- in the compute thread -------------------------------------------------------------------

    def _work(self) -> None:
        try:
            engine = self._make()
            engine.smoke()
        except RunnerError as error:
            self._call(self._loading_failed, error)
            return
        except BaseException as error:
            log.exception("loading %s failed", self.manifest.handler)
            told = HandlerInvalid(f"{self.manifest.handler}: {type(error).__name__}: {error}")
            self._call(self._loading_failed, told)
            return
        self._call(self._loaded, engine.warnings)
        while (ticket := self._incoming.get()) is not None:
            self._serve(engine, ticket)
        engine.close()
        self._call(self._end)

    def _serve(self, engine: Engine, ticket: Ticket) -> None:
        if ticket.answer.done():  # nobody waits for it any more
            return
        ticket.began = began = time.monotonic()
        self._current = ticket
        try:
            answer = self._execute(engine, ticket)
        except BaseException:  # a listener's fault, but the thread must live
            log.exception("job %s failed outside its handler", ticket.job_id)
            answer = Answer(Outcome("failed", error=RunnerError()))
        self._current = None
        seconds = time.monotonic() - began
        self._mean = seconds if not self._mean else 0.8 * self._mean + 0.2 * seconds
        self._call(ticket.settle, answer)

    def _execute(self, engine: Engine, ticket: Ticket) -> Answer:
        tell = ticket.tell
        emit: Emit = self._emit
        if tell is not None:

            def emit(event: Event) -> None:
                self._emit(event)
                self._call(tell, event)

        outcome = ticket.context.run(
            engine.run, ticket.job_id, ticket.inputs, emit=emit, stop=ticket.stop,
            traceparent=ticket.context.get(CALLER),
        )  # fmt: skip
        if outcome.error is not None:
            return Answer(outcome)
        try:
            return Answer(outcome, orjson.dumps(outcome.output))
        except TypeError as error:
            return Answer(
                Outcome("failed", error=OutputInvalid(f"The output is not JSON: {error}."))
            )

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before this thread
            self._loop.call_soon_threadsafe(function, *arguments)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def _too_slow(manifest: Manifest) -> HandlerInvalid:
    return HandlerInvalid(
        f"{manifest.handler} was not ready after {manifest.limits.startup:g} s, which is "
        f"`limits.startup` of the manifest of {manifest.name}."
    )
