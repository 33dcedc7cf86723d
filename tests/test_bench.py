"""What the benchmarks promise: ratios, an end by themselves, and nothing left running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def start(row: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start one row with settings so small that its figures mean nothing."""
    command = [sys.executable, "-u", "-m", f"bench.{row}", "--rounds", "1", *arguments]
    # All that the row starts inherits this place for temporary files, and is known by it.
    environ = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def left(folder: Path) -> list[str]:
    """Return the files left in the folder, and the commands of processes that know of it."""
    found = [str(path) for path in folder.iterdir()]
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={folder}\0".encode() in environ.read_bytes():
                found.append(environ.with_name("cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended since, or is none of ours
            continue
    return found


@pytest.mark.parametrize("row", ["http_door", "whole_job"])
def test_a_row_measures_ratios_and_ends(row, tmp_path):
    """Each benchmark prints a table of ratios, keeps what it measured, and stops by itself."""
    folder, file = tmp_path / "tmp", tmp_path / "measured.json"
    folder.mkdir()
    output, errors = start(row, folder, "--seconds", "0.5", "--json", str(file)).communicate()
    assert "ratio: min" in output, errors
    comparisons = json.loads(file.read_text())
    assert len(comparisons) == 2
    for comparison in comparisons:
        assert comparison["title"] in output
        assert all(ratio > 0 for ratio in comparison["ratios"].values())
        assert {"p50, ms", "p99, ms"} < comparison["ratios"].keys()
    assert re.search(r"^machine: .+\nversions: .+\n.*ratios", output, re.MULTILINE)
    assert left(folder) == []


def test_a_burst_is_checked_and_ends(tmp_path):
    """The burst says what became of every job, and its status whether the promises were kept."""
    folder, file = tmp_path / "tmp", tmp_path / "measured.json"
    folder.mkdir()
    command = [sys.executable, "-m", "bench.burst", "--jobs", "40", "--clients", "8"]
    ran = subprocess.run(
        [*command, "--json", str(file)], cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(file.read_text())["ends"] == "40 succeeded"
    assert left(folder) == []


def test_an_interrupted_row_leaves_nothing_behind(tmp_path):
    """Ctrl-C between the start and the first table ends every process that was started."""
    process = start("whole_job", tmp_path, "--seconds", "100")
    assert process.stdout is not None
    assert any("one worker process each" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert left(tmp_path) == []
