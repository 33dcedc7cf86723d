"""Worker processes that do the same work; those that die are started again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from types import FrameType
from typing import Any

from runner.errors import RunnerError

log = logging.getLogger(__name__)

FAILED = 3
"""Exit status of a process that can never do its work."""

LONGEST_PAUSE = 30.0
"""Seconds between two starts of a process that keeps dying."""

Work = Callable[..., None]


class Crew:
    """Keeps `size` processes at `work(*arguments)` until SIGINT or SIGTERM.

    All must be picklable. At the end the processes get SIGTERM, and `patience` seconds to finish;
    `reaped` hears the pid of each process that ended. Work that raises a `RunnerError` can never
    be done: it ends the whole crew.
    """

    def __init__(
        self,
        work: Work,
        arguments: tuple[Any, ...],
        *,
        size: int,
        patience: float,
        reaped: Callable[[int], None],
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._failures: SimpleQueue[RunnerError] = self._context.SimpleQueue()
        self._arguments = (work, arguments, self._failures)
        self._size, self._patience, self._reaped = size, patience, reaped
        self._crew: list[SpawnProcess] = []
        self._started = float("-inf")
        self._deaths = 0
        self._stop = False

    def run(self) -> None:
        """Keep the crew complete until a signal; raises the error of work that cannot be done."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {sig: signal.signal(sig, self._on_signal) for sig in signals}
        try:
            while not self._stop:
                self._fill()
                connection.wait([one.sentinel for one in self._crew], timeout=0.25)
                self._bury()
        finally:
            self._dismiss()
            for sig, handler in before.items():
                signal.signal(sig, handler)
        if not self._failures.empty():
            raise self._failures.get()

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        self._stop = True

    def _fill(self) -> None:
        """Start who is missing; after a death, not before a pause that grows with the deaths."""
        now = time.monotonic()
        age = now - self._started
        if age > 2 * LONGEST_PAUSE:
            self._deaths = 0
        if age < min(LONGEST_PAUSE, 2.0**self._deaths - 1):
            return
        while len(self._crew) < self._size:
            process = self._context.Process(target=_member, args=self._arguments)
            process.start()
            self._crew.append(process)
            self._started = now

    def _bury(self) -> None:
        for process in [one for one in self._crew if not one.is_alive()]:
            self._crew.remove(process)
            self._reaped(process.pid or 0)
            if process.exitcode == FAILED:
                self._stop = True
            elif not self._stop:
                self._deaths += 1
                log.error("worker process %s died (%s)", process.pid, _cause(process.exitcode))

    def _dismiss(self) -> None:
        for process in self._crew:
            process.terminate()
        deadline = time.monotonic() + self._patience
        for process in self._crew:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            self._reaped(process.pid or 0)


def _member(work: Work, arguments: tuple[Any, ...], failures: SimpleQueue[RunnerError]) -> None:
    # Ctrl-C reaches the whole terminal; the parent turns it into one SIGTERM for each of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        work(*arguments)
    except RunnerError as error:
        failures.put(error)
        raise SystemExit(FAILED) from None


def _follow_parent() -> None:
    """End with the parent, even one that was killed: an orphan would keep a port or a queue."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _cause(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return "SIGKILL: out of memory, perhaps"
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit status {exitcode}"
