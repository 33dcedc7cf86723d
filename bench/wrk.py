"""The load generator `wrk`, where it is on PATH."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import chain
from pathlib import Path

from bench.client import Post
from bench.load import Load

SCRIPT = Path(__file__).with_name("wrk.lua")
PATIENCE = 30.0


def found() -> bool:
    """Say whether this machine has it."""
    return shutil.which("wrk") is not None


def load(post: Post, connections: int, seconds: float) -> Load:
    """Keep so many connections busy for so many seconds, in whole ones and at least one."""
    whole = max(1, round(seconds))
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{whole}s", "-s", str(SCRIPT),
               post.url, "--", post.body.decode(), *chain(*post.headers.items())]  # fmt: skip
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=whole + PATIENCE, check=True
    )
    told = json.loads(ran.stdout.splitlines()[-1])
    if told["errors"] or not told["requests"]:
        raise RuntimeError(f"wrk met errors: {told}")
    return Load(
        told["requests"], told["microseconds"] / 1e6, told["p50"] / 1000, told["p99"] / 1000
    )
