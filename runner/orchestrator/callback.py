"""What a submit says about whom to tell of its job: `Webhook-URL` and `Webhook-Events`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from starlette.requests import Request

from runner import targets
from runner.errors import WebhookRefused
from runner.orchestrator.deliveries import COMPLETED, Webhook
from runner.signature import Keys
from runner.targets import Allowed

EVENTS = ("start", "completed", *COMPLETED)
"""What can be asked for: every start of an attempt, the end, or only an end of that kind."""

LIVE = ("status", "step", "progress", "log")
"""What is told to those who follow a job, and to nobody else: it would be late when it came."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What the operator says about webhooks: who signs, and what may be called beside https."""

    keys: Keys = field(default=(), repr=False)
    allowed: Allowed = field(default_factory=Allowed)


def asked(request: Request, outgoing: Outgoing) -> Webhook | None:
    """Return the webhook that a submit asks for, if any; raises `WebhookRefused`."""
    urls = request.headers.getlist("webhook-url")
    words = ",".join(request.headers.getlist("webhook-events"))
    if not urls:
        if words:
            raise WebhookRefused("Webhook-Events says what to tell; Webhook-URL must say whom.")
        return None
    if len(urls) > 1:
        raise WebhookRefused("Webhook-URL must be there once.")
    if not outgoing.keys:
        raise WebhookRefused(
            "This orchestrator cannot sign webhooks: its operator has not set WEBHOOK_SECRET."
        )
    url = urls[0].strip()
    try:
        targets.check(targets.target_of(url), outgoing.allowed)
    except ValueError as error:
        raise WebhookRefused(f"Webhook-URL is not called: {error}.") from None
    return Webhook(url, _events(words), _traceparent(request.headers.get("traceparent", "")))


def _events(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word for word in re.split(r"[\s,]+", text.lower()) if word))
    for word in words:
        if word in LIVE:
            raise WebhookRefused(f"`{word}` is told on `links.events` of the job, not by webhook.")
        if word not in EVENTS:
            raise WebhookRefused(f"Webhook-Events must be of {', '.join(EVENTS)}.")
    return words or ("completed",)


def _traceparent(text: str) -> str | None:
    """Return the trace that the submit belongs to (W3C), for the receiver to go on with."""
    return text if re.fullmatch("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", text) else None
