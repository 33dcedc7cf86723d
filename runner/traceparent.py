"""The W3C header `traceparent`: what a caller's says, and what a job without one is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextvars import ContextVar

CALLER: ContextVar[str | None] = ContextVar("traceparent of the caller", default=None)
"""The `traceparent` of the HTTP request that is being served, if it had a valid one."""

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def read(text: str) -> str | None:
    """Return the header as version 00 says it, or None where it is not valid (W3C, level 1)."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not (trace.strip("0") and span.strip("0")):
        return None
    return written(trace, span, sampled=bool(int(flags, 16) & 1))


def of_headers(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the valid `traceparent` of a request; two of them are none."""
    found = [value for name, value in headers if name == b"traceparent"]
    return read(found[0].decode("latin-1")) if len(found) == 1 else None


def written(trace: str, span: str, sampled: bool = True) -> str:
    """Return the header of a span in a trace."""
    return f"00-{trace}-{span}-{int(sampled):02x}"


def trace_of(traceparent: str | None, job_id: str) -> str:
    """Return the trace (32 hex digits) that a valid header names, or else that of the job.

    The latter is the job's id itself, whose last seven bytes are random, so that nothing need be
    kept to find the one from the other.
    """
    if traceparent is not None:
        return traceparent[3:35]
    digits = job_id.replace("-", "").lower()
    if re.fullmatch("[0-9a-f]{32}", digits) and digits.strip("0"):
        return digits
    return hashlib.sha256(job_id.encode()).hexdigest()[:32]


def span_of(*words: object) -> str:
    """Return the id (16 hex digits) of what these words name; it is the same wherever asked."""
    return hashlib.blake2s("/".join(map(str, words)).encode(), digest_size=8).hexdigest()


def sampled(traceparent: str | None) -> bool:
    """Tell whether the caller wants the trace kept; without a caller's header it is."""
    return traceparent is None or traceparent.endswith("1")


def of_attempt(
    traceparent: str | None, job_id: str, attempt: int, *, family: str | None = None
) -> str:
    """Return the header under which an attempt of a job asks others for something.

    `traceparent` is the one that came with the job, `family` the composite job that it is part of.
    """
    trace = trace_of(traceparent, family or job_id)
    return written(trace, span_of(job_id, "attempt", attempt), sampled(traceparent))
