"""How much memory this container may use, and whether that is what ended a process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
LIMITS = ("memory.max", "memory/memory.limit_in_bytes", "memory.limit_in_bytes")
"""Where cgroups of version 2 and 1 say it."""


def limit(folder: Path = CGROUP) -> int | None:
    """Return how many bytes this container may use, where that is less than the machine has."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in LIMITS:
        try:
            allowed = int((folder / name).read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
        if allowed < machine:
            return allowed
    return None


def ended(exitcode: int | None) -> str:
    """Say how a process ended."""
    if exitcode is not None and exitcode < 0:
        return f"was killed by signal {-exitcode}"
    return f"ended with status {exitcode}"


def suspicion(exitcode: int | None, folder: Path = CGROUP) -> str:
    """Say that memory may have run out, where a process ended as the kernel ends one for that."""
    if exitcode != -signal.SIGKILL:
        return ""
    allowed = limit(folder)
    said = f" This container may use {allowed / 2**20:.0f} MB." if allowed is not None else ""
    return f"; out of memory?{said}"
