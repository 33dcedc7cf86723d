"""The pulse of a worker: a small file that its main process rewrites while it lives."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path

from runner.errors import Unavailable

FRESH = 20.0
"""Seconds after which a pulse that was not felt again counts as none."""


def beat(state: str, folder: Path | None = None) -> None:
    """Write down that this process lives, and how it is; a full or closed disk is no reason to die.

    `state` is the one of the registry: starting, ready, draining, unhealthy or quarantined.
    """
    path = _folder(folder) / f"nlp-runner-{os.getpid()}.pulse"
    with contextlib.suppress(OSError):
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"state": state, "at": time.time()}))
        fresh.replace(path)


def stop(folder: Path | None = None) -> None:
    """Remove the pulse of this process."""
    with contextlib.suppress(OSError):
        (_folder(folder) / f"nlp-runner-{os.getpid()}.pulse").unlink()


def feel(folder: Path | None = None, now: float | None = None) -> str:
    """Return the state of the worker of this machine or container; raises `Unavailable`."""
    states = []
    for path in _folder(folder).glob("nlp-runner-*.pulse"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(path.read_text())
            if (now or time.time()) - told["at"] < FRESH:
                states.append(str(told["state"]))
    if not states:
        raise Unavailable(f"No worker has given a sign of life for {FRESH:.0f} s.")
    if "ready" not in states and "draining" not in states:
        raise Unavailable(f"The worker is {states[0]}.")
    return "ready" if "ready" in states else "draining"


def _folder(folder: Path | None) -> Path:
    return folder or Path(tempfile.gettempdir())
