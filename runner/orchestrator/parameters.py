"""What requests say beside their bodies: waits, pages, cursors."""

from __future__ import annotations

import base64
import math
import re

from starlette.requests import Request

from runner.errors import BadRequest
from runner.orchestrator.jobs import Job

MAX_PAGE = 200
"""Most jobs in one page."""


def preferred_wait(request: Request, most: float) -> float | None:
    """Read `Prefer: wait=N` (RFC 7240); None when the caller does not want to wait."""
    for preference in request.headers.get("prefer", "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.strip().lower() == "wait":
            return seconds_of(value.strip().strip('"'), most)
    return None


def seconds_of(text: str, most: float) -> float:
    """Read a number of seconds; more than `most` is cut to it."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadRequest(f"wait must be a number of seconds; at most {most:g} are waited.")
    return min(seconds, most)


def page_size(text: str) -> int:
    """Read how many jobs a page should have."""
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_PAGE:
        raise BadRequest(f"limit must be a whole number from 1 to {MAX_PAGE}.")
    return int(text)


def cursor_of(text: str | None) -> tuple[float, str] | None:
    """Read a cursor that an earlier page gave."""
    if not text:
        return None
    try:
        created, _, job_id = base64.urlsafe_b64decode(text.encode()).decode().partition(" ")
        at = float(created)
    except ValueError:
        at = math.nan
    if not math.isfinite(at):
        raise BadRequest("cursor is not one that a page of this list gave.")
    return at, job_id


def cursor_after(job: Job) -> str:
    """Return the cursor of the page that goes on after this job."""
    return base64.urlsafe_b64encode(f"{job.created_at!r} {job.id}".encode()).decode()
