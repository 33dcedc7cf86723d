"""The processes of a platform: told apart by colour, watched together, stopped together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red")

GRACE = 3.0
"""Seconds that a part gives to its running work when it is told to stop."""

PATIENCE = 2 * GRACE
"""Seconds after which a part that was told to stop is killed."""


class Part:
    """One process of the platform. Its lines go to the board, and it ends when we do.

    It reads the end of its input in the moment in which this process is gone, even one that was
    killed. It has a session of its own, so that Ctrl-C in the terminal reaches us alone.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environ: Mapping[str, str], board: Board
    ) -> None:
        self.name, self._board = name, board
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments, "--until-eof"], env=environ,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._relay, name=f"lines of {name}", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def status(self) -> int:
        """How it ended: its exit status, or the number of a signal below 0."""
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def finish(self, deadline: float) -> None:
        """Wait for its end; past the deadline it is killed with all that it started."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(timeout=1.0)

    def _relay(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._board.write(self.name, line.decode("utf-8", "replace").rstrip())


def first_to_end(parts: Sequence[Part], stop: threading.Event) -> Part | None:
    """Wait until a part ends, and return it; None if we are told to stop before."""
    while not stop.wait(0.1):
        for part in parts:
            if not part.running:
                return part
    return None


def stop_all(parts: Sequence[Part]) -> None:
    """Ask all parts to stop, and wait until they have."""
    for part in parts:
        part.terminate()
    deadline = time.monotonic() + PATIENCE
    for part in parts:
        part.finish(deadline)


class Board:
    """Where the parts' lines are printed, each with the name of its part in its colour."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
        self._width = max(map(len, names))

    def write(self, name: str, line: str) -> None:
        """Print one line of a part."""
        if line.strip():
            prefix = Text(name.ljust(self._width) + " | ", self._colours[name])
            self._console.print(prefix + Text(line), soft_wrap=True)
