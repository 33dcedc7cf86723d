"""A watch beside a handler: it keeps the lease, hears a cancel, and ends what does not listen."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time

import redis

from runner import events, wire
from runner.context import Stop
from runner.errors import Canceled, Interrupted, RunnerError, TimedOut

log = logging.getLogger(__name__)

WATCH = 0.5
"""Seconds between two looks of a busy process at its lease and its cancel flag, and of any child
at its parent."""

GRACE = 5.0
"""Seconds that a handler gets to notice a cancel or its deadline before its process is ended."""


class Watch:
    """A thread beside the handler: keeps the lease, hears a cancel, ends what does not listen."""

    def __init__(self, worker_wire: wire.WorkerWire, instance: str) -> None:
        self._wire, self._instance = worker_wire, instance
        self._lock = threading.Lock()
        self._round: Round | None = None
        self._wake = threading.Event()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def over(self, job_id: str, service: str, attempt: int, stop: Stop, limit: float) -> Round:
        """Watch over one execution: `with watch.over(...):`."""
        return Round(self, job_id, service, attempt, stop, limit)

    def begin(self, round_: Round) -> None:
        """Take up one execution."""
        with self._lock:
            self._round = round_
        self._wake.set()

    def end(self) -> None:
        """Let it go; waits for a look that is under way, so that no lease outlives its job."""
        with self._lock:
            self._round = None
        self._wake.clear()

    def interrupt(self, error: RunnerError) -> None:
        """Ask the watched execution, if there is one, to stop."""
        if self._round is not None:
            self._round.interrupt(error)

    def _look(self) -> None:
        pause = threading.Event()
        while True:
            self._wake.wait()
            pause.wait(WATCH)
            with self._lock:
                if self._round is not None:
                    round_ = self._round
                    round_.context.run(round_.look, self._wire, self._instance)


class Round:
    """One watched execution."""

    def __init__(
        self, watch: Watch, job_id: str, service: str, attempt: int, stop: Stop, limit: float
    ) -> None:
        self._watch = watch
        self._job, self._service, self._attempt = job_id, service, attempt
        self.stop, self._limit = stop, limit
        self._began = time.monotonic()
        self._asked: float | None = None
        self.context = contextvars.copy_context()  # what log lines are about

    def __enter__(self) -> None:
        self._watch.begin(self)

    def __exit__(self, *_: object) -> None:
        self._watch.end()

    def interrupt(self, error: RunnerError) -> None:
        """Ask the execution to stop; it has its grace from now on."""
        if self._asked is None:
            self._asked = time.monotonic()
        self.stop.request(error)

    def look(self, worker_wire: wire.WorkerWire, instance: str) -> None:
        """Renew the lease, pass on a cancel, and end a process that does not listen."""
        now = time.monotonic()
        try:
            wanted, actor = worker_wire.renew(self._job, self._attempt, instance)
        except redis.RedisError as failure:
            log.warning("job %s: the lease could not be renewed: %s", self._job, failure)
            wanted, actor = True, None
        if actor and self._asked is None:
            self.interrupt(Canceled(f"Canceled by {actor} while it was running."))
        if not wanted and self._asked is None:
            self.interrupt(Interrupted("A newer attempt has taken over."))
        if now - self._began > self._limit + GRACE:
            self._kill(worker_wire, TimedOut(
                f"The handler ran {now - self._began:.1f} s without a checkpoint; "
                f"`limits.timeout` of the manifest allows {self._limit:g} s, and its process was "
                f"ended {GRACE:g} s later.", clock="timeout", set_by="manifest",
                seconds=self._limit, ran_seconds=round(now - self._began, 1)))  # fmt: skip
        elif self._asked is not None and now - self._asked > GRACE:
            self._kill(worker_wire, self.stop.error or Canceled("Canceled."))

    def _kill(self, worker_wire: wire.WorkerWire, error: RunnerError) -> None:
        """Tell the end in the handler's stead, then end this process; Celery makes a new one."""
        log.warning("job %s: the handler does not listen; its process is ended", self._job)
        problem = {**error.to_problem(), "forced": True}
        kind = events.Canceled if isinstance(error, Canceled) else events.Failed
        event = events.for_the_silent(
            self._job, self._service, self._attempt, problem, time.time(), kind
        )
        try:
            worker_wire.finish(event)
        finally:
            os._exit(1)


def follow(parent: int) -> None:
    """End this process when its parent is gone, even while its handler is still loading."""
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(2 * WATCH)
    os._exit(1)
