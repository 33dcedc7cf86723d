"""Real processes for a benchmark: started, waited for, and gone however the benchmark ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 10.0
"""Seconds a process gets to end by itself."""


class Process:
    """A Python program in a session of its own, which Ctrl-C in the terminal does not reach.

    It runs in `folder`, where no `.env` of the project is found, and keeps its output there.
    """

    def __init__(self, name: str, module: str, *arguments: str, folder: Path) -> None:
        self.name = name
        self._output = folder / f"{name}.log"
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        with self._output.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The number of the process, which is also that of its session."""
        return self._popen.pid

    def wait_until(self, ready: Callable[[], bool], within: float = 40.0) -> None:
        """Wait until it answers; raises `RuntimeError` with its last lines if it never will."""
        deadline = time.monotonic() + within
        while not ready():
            if self._popen.poll() is not None:
                raise RuntimeError(f"{self.name} ended:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is silent for {within:g} s:\n{self._last_lines()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, kindly first, and then all that is left of its session."""
        self._popen.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(PATIENCE)
        finally:
            for pid in _session(self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._popen.kill()
            self._popen.wait()

    def _last_lines(self) -> str:
        return "\n".join(self._output.read_text("utf-8", "replace").splitlines()[-20:])


@contextlib.contextmanager
def running(name: str, module: str, *arguments: str, folder: Path) -> Iterator[Process]:
    """Run `python -m module` for the length of a `with` block."""
    process = Process(name, module, *arguments, folder=folder)
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Let SIGTERM and the clock end the benchmark as Ctrl-C does: through every `finally`."""

    def terminated(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the benchmark is not over after {seconds:g} s")

    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def cpu_seconds(*sessions: int) -> float:
    """Return the CPU time that these sessions have used so far; 0 where /proc does not tell."""
    ticks = [
        int(user) + int(system)
        for session in sessions
        for *_, user, system in _session(session).values()
    ]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def sessions_of(name: str) -> set[int]:
    """Return the sessions of all processes of this name."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            start, _, fields = file.read_text().rpartition(")")
            if start.partition("(")[2] == name:
                found.add(int(fields.split()[3]))
    return found


def _session(session: int) -> dict[int, list[str]]:
    """Return the processes of a session: the fields of /proc/PID/stat from state to CPU time."""
    members = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()[:13]
        except OSError:  # it has ended since
            continue
        if fields[3] == str(session):
            members[int(file.parent.name)] = fields
    return members
