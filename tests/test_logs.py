"""What `runner.logs` promises: one line an event, for people or machines, that obeys nobody."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from runner.logs import printable

SPEAKER = r"""
import logging, sys
from runner import logs
logs.configure(sys.argv[1], sys.argv[2])
log = logging.getLogger("runner.test")
log.debug("debugging")
log.info("done in %.1f s", 1.5)
log.warning("caf\u00e9 \x1b[2J\r\u202e [red]")
logging.getLogger("celery").info("chatter")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("it failed")
"""

STRAY = """
import threading, warnings
from runner import logs
logs.configure("info", "json")
warnings.warn("old\\nand lame", DeprecationWarning)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
thread = threading.Thread(target=exit)
thread.start()
thread.join()
raise ValueError("unexpected")
"""

ABOUT = """
import logging, sys, threading
from runner import logs
logs.configure("info", sys.argv[1])
log = logging.getLogger("runner.test")
with logs.about(request_id="r1"):
    log.info("asked for")
    with logs.about(job="j1", service="ner", attempt=2, trace_id="t1"):
        log.info("running")
        log.info("job j1 is done")
    log.info("its own", extra={"about": {"job": "j2"}})
    thread = threading.Thread(target=log.info, args=("elsewhere",))
    thread.start()
    thread.join()
log.info("after")
"""


def said(level: str, form: str) -> list[str]:
    """Return the lines that a process logs which is configured like this."""
    command = [sys.executable, "-c", SPEAKER, level, form]
    ran = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def test_lines_for_people() -> None:
    """Time and words, the level only when it matters; a failure with its trace."""
    first, second, third, *trace = said("info", "console")
    assert re.fullmatch(r"\d\d:\d\d:\d\d done in 1\.5 s", first)
    assert second.endswith(r" warning: café \x1b[2J\r\u202e [red]")
    assert third.endswith(" error: it failed")
    assert trace[-1] == "ZeroDivisionError: division by zero"


def test_lines_for_machines() -> None:
    """Each line is one JSON object, whatever the message holds."""
    lines = [json.loads(line) for line in said("info", "json")]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert lines[0]["message"] == "done in 1.5 s"
    assert lines[1]["message"] == "café \x1b[2J\r\u202e [red]"
    assert lines[1]["logger"] == "runner.test"
    assert "ZeroDivisionError" in lines[2]["trace"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", lines[0]["time"])


def test_what_nobody_logged_is_for_machines_too() -> None:
    """Warnings, and failures that nobody caught, are lines like all others."""
    command = [sys.executable, "-c", STRAY]
    ran = subprocess.run(command, capture_output=True, check=False, encoding="utf-8")
    warned, thread, last = (json.loads(line) for line in ran.stderr.splitlines())
    assert (ran.returncode, warned["level"]) == (1, "warning")
    assert "DeprecationWarning: old\nand lame" in warned["message"]
    assert thread["trace"].endswith("ZeroDivisionError: division by zero")
    assert last["trace"].endswith("ValueError: unexpected")


def told(form: str) -> list[str]:
    """Return the lines of a process that says what its lines are about."""
    ran = subprocess.run(
        [sys.executable, "-c", ABOUT, form], capture_output=True, check=True, encoding="utf-8"
    )
    return ran.stderr.splitlines()


def test_lines_for_machines_say_what_they_are_about() -> None:
    """Job, service, attempt, trace and request are fields, where they hold and nowhere else."""
    fields = ("job", "service", "attempt", "trace_id", "request_id")
    lines = [json.loads(line) for line in told("json")]
    assert [tuple(line.get(field) for field in fields) for line in lines] == [
        (None, None, None, None, "r1"),
        ("j1", "ner", 2, "t1", "r1"),
        ("j1", "ner", 2, "t1", "r1"),
        ("j2", None, None, None, None),
        (None, None, None, None, None),
        (None, None, None, None, None),
    ]


def test_lines_for_people_name_the_job_once() -> None:
    """The job, or else the request, stands at the end of a line whose words do not name it."""
    assert [line[9:] for line in told("console")] == [
        "asked for (request r1)", "running (job j1)", "job j1 is done", "its own (job j2)",
        "elsewhere", "after",
    ]  # fmt: skip


@pytest.mark.parametrize(("level", "lines"), [("debug", 4), ("info", 3), ("error", 1)])
def test_what_is_logged_is_chosen(level: str, lines: int) -> None:
    """The level holds for us; the libraries below us speak up from warnings on."""
    said_lines = said(level, "json")
    assert len(said_lines) == lines
    assert not any("chatter" in line for line in said_lines)


def test_only_what_rules_a_terminal_is_written_out() -> None:
    """Letters of every script, line feeds and tabs stay as they are."""
    text = "naïve\tœuvre\n日本語 🎈 \\x1b"
    assert printable(text) == text
    assert printable("\x00\x07\x1b\x7f\x9b\u2028\u202e") == (r"\x00\x07\x1b\x7f\x9b\u2028\u202e")
