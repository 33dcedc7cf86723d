"""What `runner.traceparent` promises: callers' traces go on, and other jobs have their own."""

from __future__ import annotations

import re

import pytest

from runner import traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
JOB = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (GOOD, GOOD),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-ff", GOOD),  # of the flags only the first is known
        (f"01-{TRACE}-{SPAN}-01", GOOD),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-adds", GOOD),
    ],
)
def test_valid_headers_are_read(text: str, read: str) -> None:
    """A valid header is taken as version 00 says it, also one of a version to come."""
    assert traceparent.read(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "", "00", GOOD.upper(), f"{GOOD} ", f" {GOOD}", f"{GOOD}-more", f"{GOOD}\n",
        f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}",
        f"01-{TRACE}-{SPAN}-01.x", f"0x-{TRACE}-{SPAN}-01", "\x00" * 55, "é" * 55,
    ],
)  # fmt: skip
def test_invalid_headers_are_none(text: str) -> None:
    """Whatever is not valid is as if it had not been sent."""
    assert traceparent.read(text) is None


def test_two_headers_are_none() -> None:
    """A request with two of them is not believed; another header does not disturb."""
    one = (b"traceparent", GOOD.encode())
    assert traceparent.of_headers([(b"host", b"here"), one]) == GOOD
    assert traceparent.of_headers([one, one]) is None
    assert traceparent.of_headers([]) is None


def test_a_job_without_a_caller_has_a_trace_of_its_own() -> None:
    """It is the job's id, so that the one is found from the other; any other id has one too."""
    assert traceparent.trace_of(None, JOB) == JOB.replace("-", "")
    for odd in ("test", "", "0" * 32, "é", "x" * 32):
        assert re.fullmatch("[0-9a-f]{32}", traceparent.trace_of(None, odd))
        assert traceparent.trace_of(None, odd).strip("0")


def test_an_attempt_stands_in_the_callers_trace() -> None:
    """Its header is valid, of the caller's trace and wish to be kept, and differs by attempt."""
    first = traceparent.of_attempt(GOOD, JOB, 1)
    assert traceparent.read(first) == first
    assert traceparent.trace_of(first, JOB) == TRACE
    assert first != traceparent.of_attempt(GOOD, JOB, 2)
    unkept = traceparent.of_attempt(f"00-{TRACE}-{SPAN}-00", JOB, 1)
    assert not traceparent.sampled(unkept)
    assert traceparent.sampled(first)


def test_parts_share_the_trace_of_the_whole() -> None:
    """A part of a composite job is in its trace, with a span of its own."""
    one = traceparent.of_attempt(None, "part-1", 1, family=JOB)
    other = traceparent.of_attempt(None, "part-2", 1, family=JOB)
    assert one != other
    assert {traceparent.trace_of(t, "") for t in (one, other)} == {JOB.replace("-", "")}
