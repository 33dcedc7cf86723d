"""What a caller says of a job beside its input: how urgent, until when, once only, how fresh."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from runner.errors import BadRequest
from runner.orchestrator.deliveries import Webhook
from runner.orchestrator.gate import caller_of
from runner.payload import fingerprint

MOST_PRIORITY = 9
LONGEST_KEY = 255
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


@dataclass(frozen=True, slots=True)
class Terms:
    """How a job is asked for; times are in seconds.

    `deadline` counts from now. Under `key` the request whose `fingerprint` this is happens once.
    `reuse` lets an earlier result answer, if it is not older than `max_age`; `lend` lets the result
    answer later requests.
    """

    owner: str = ""
    priority: int = 0
    deadline: float | None = None
    key: str | None = None
    fingerprint: str = ""
    reuse: bool = True
    lend: bool = True
    max_age: float | None = None
    webhook: Webhook | None = None

    def about(self, *asked: Any) -> Terms:
        """Return the terms with the fingerprint of what is asked under them."""
        if self.key is None:
            return self
        told = self.webhook and (self.webhook.url, self.webhook.events)
        said = (self.priority, self.deadline, self.reuse, self.lend, self.max_age, told)
        return replace(self, fingerprint=fingerprint(*asked, said))


def terms_of(request: Request) -> Terms:
    """Read the terms of a request; raises `BadRequest`."""
    reuse, lend, max_age = _freshness(request.headers.getlist("cache-control"))
    return Terms(
        owner=caller_of(request).owner,
        priority=_priority(request.query_params.get("priority", "0")),
        deadline=_duration(request.headers.get("cancel-after")),
        key=_key(request.headers.get("idempotency-key")),
        reuse=reuse, lend=lend, max_age=max_age,
    )  # fmt: skip


def _priority(text: str) -> int:
    if not re.fullmatch(f"[0-{MOST_PRIORITY}]", text):
        raise BadRequest(f"priority must be a whole number from 0 to {MOST_PRIORITY}, the urgent.")
    return int(text)


def _duration(text: str | None) -> float | None:
    """Read `90`, `90s`, `5m` or `1h30m`, as in Replicate's header of that name."""
    if text is None:
        return None
    parts = re.findall(r"(\d{1,9}(?:\.\d{1,3})?)([smh]?)", text.strip())
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    whole = "".join(number + unit for number, unit in parts) == text.strip()
    bare = len(parts) > 1 and any(not unit for _, unit in parts)
    if not whole or bare or not seconds > 0:
        raise BadRequest("Cancel-After must be a time such as 90, 90s, 5m or 1h30m.")
    return seconds


def _key(text: str | None) -> str | None:
    """Read a key, bare or as the quoted string of the draft standard."""
    if text is None:
        return None
    quoted = re.fullmatch(r'\s*"((?:[^"\\]|\\["\\])*)"\s*', text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text.strip()
    if not 1 <= len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise BadRequest(
            f"Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters, such as a "
            f"UUID."
        )
    return key


def _freshness(headers: list[str]) -> tuple[bool, bool, float | None]:
    """Read `Cache-Control` (RFC 9111): may an older result answer, may this one, how old."""
    words = [word.strip().lower() for header in headers for word in header.split(",")]
    ages = [word.removeprefix("max-age=") for word in words if word.startswith("max-age=")]
    ages = [age for age in ages if re.fullmatch("[0-9]{1,9}", age)]  # else ignored, as it says
    never = "no-store" in words
    max_age = float(ages[0]) if ages else None
    return not (never or "no-cache" in words), not never, max_age
