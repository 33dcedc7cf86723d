"""The machine and the versions a measurement was made with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

REMINDER = (
    "Whatever else this machine does moves every figure; the ratios, taken between neighbours in "
    "time, are what counts."
)


def describe(*distributions: str) -> str:
    """Return lines that name the machine, its load, and the versions of these distributions."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in distributions)
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"machine: {os.cpu_count()} cores of {_processor()}, {platform.system()} "
        f"{platform.release()}, load average {load}\n"
        f"versions: {platform.python_implementation()} {platform.python_version()}, {versions}\n"
        f"{REMINDER}\n"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
