"""One voice for a trouble that lasts: what stays the same is said at a bounded pace."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

FIRST, LONGEST = 1.0, 30.0
"""Seconds before a sentence is said again: first, and once it has been said a few times."""

MOST = 50
"""Sentences that are remembered; past them all are forgotten, and said once more."""


class Voice:
    """Says sentences in the log, each again after 1, 2, 4 … and at last every 30 s.

    One that was not to be said for longer than that begins anew: its trouble had passed.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock, self._lock = log, clock, threading.Lock()
        self._told: dict[str, tuple[float, float]] = {}

    def say(self, sentence: str) -> None:
        """Log a warning, unless the same was said a moment ago."""
        with self._lock:
            now = self._clock()
            due, pause = self._told.get(sentence, (-math.inf, FIRST))
            if now < due:
                return
            if now > due + LONGEST:
                pause = FIRST
            if sentence not in self._told and len(self._told) >= MOST:
                self._told.clear()
            self._told[sentence] = now + pause, min(2 * pause, LONGEST)
        self._log.warning("%s", sentence)

    def over(self, sentence: str) -> None:
        """Log that all trouble has passed, if any was told."""
        with self._lock:
            told = bool(self._told)
            self._told.clear()
        if told:
            self._log.info("%s", sentence)
