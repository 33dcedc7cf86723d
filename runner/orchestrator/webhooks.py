"""Tell strangers what became of their jobs: send what is owed, and again until it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from runner import signature
from runner.egress import Egress, Undeliverable
from runner.errors import StoreUnavailable
from runner.orchestrator.deliveries import Deliveries, Delivery
from runner.orchestrator.dispatch import wanted
from runner.signature import Keys
from runner.stream import when
from runner.targets import target_of
from runner.voice import Voice

log = logging.getLogger(__name__)

DELAYS = (5, 30, 180, 900, 3600, 7200, 14400, 28800, 28800)
"""Seconds after each failure until the next try: ten tries in a good 23 hours."""

LONGEST_DELAY = 24 * 3600
"""Most seconds that a `Retry-After` is followed."""

LEASE = 20.0
"""Seconds for which a claimed message is ours; it is longer than a try may take."""

SLOTS = 128
"""Messages on their way at a time."""

BATCH = 8
"""Most messages claimed at a time, and most to one target before others go first."""

POLL = 1.0
"""Seconds between two looks for what is due."""


@dataclass(frozen=True, slots=True)
class Try:
    """How one try went: the status of the answer, or why there was none."""

    status: int | None
    error: str | None
    retry_after: str | None = None

    @property
    def arrived(self) -> bool:
        """Whether whoever was told has said so."""
        return self.error is None


class Deliverer:
    """Sends the messages of a database; any number may do so at once.

    `clock` returns seconds since the epoch, `chance` a number in [0, 1); `count` hears how each
    try went: `delivered`, `retried` or `failed`.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        egress: Egress,
        keys: Keys,
        *,
        agent: str = "nlp-runner",
        count: Callable[[str], None] = lambda outcome: None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._deliveries, self._egress, self._keys = deliveries, egress, keys
        self._agent, self._count, self._clock, self._chance = agent, count, clock, chance
        self._work, self._voice = asyncio.Event(), Voice(log)
        self._sending: dict[asyncio.Task[None], str] = {}

    def poke(self) -> None:
        """Say that there may be something to tell."""
        self._work.set()

    async def run(self) -> None:
        """Send what is owed until cancelled; what is on its way then goes again later."""
        try:
            while wanted():
                self._work.clear()
                begun = 0
                if self._keys:  # unsigned, nothing goes
                    try:
                        begun = await self.begin()
                    except StoreUnavailable as error:
                        self._voice.say(f"{error.detail} Webhooks wait.")
                    except Exception:
                        log.exception("webhooks met an error of our own; trying again")
                if not begun:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._work.wait(), POLL)
        finally:
            for task in self._sending:
                task.cancel()
            await self.idle()

    async def begin(self) -> int:
        """Begin to send some of what is due, and return how many messages that are."""
        room = min(BATCH, SLOTS - len(self._sending))
        if room <= 0:
            return 0
        now = self._clock()
        flying = Counter(self._sending.values())
        busy = [target for target, count in flying.items() if count >= BATCH]
        claimed = await self._deliveries.claim(now, now + LEASE, room, busy)
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._sending[task] = delivery.target
            task.add_done_callback(self._ended)
        return len(claimed)

    async def idle(self) -> None:
        """Wait until nothing is on its way."""
        while self._sending:
            await asyncio.wait(list(self._sending))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._work.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a webhook met an error of our own", exc_info=task.exception())

    async def _deliver(self, delivery: Delivery) -> None:
        began, clocked = self._clock(), time.monotonic()
        tried = await self._try(delivery, began)
        failures = delivery.failures + (not tried.arrived)
        gone = tried.status == 410
        due_at: float | None = None
        if not tried.arrived and not gone and failures <= len(DELAYS):
            due_at = self._clock() + self._delay(failures, tried.retry_after)
        status = "delivered" if tried.arrived else "failed" if due_at is None else "pending"
        entry: dict[str, Any] = {
            "attempt": delivery.attempts,
            "at": when(began),
            "seconds": round(time.monotonic() - clocked, 3),
            "status_code": tried.status,
            "error": tried.error,
        }
        self._count("retried" if status == "pending" else status)
        if not tried.arrived:
            log.warning(
                "webhook %s to %s: %s; %s",
                delivery.id, delivery.target, tried.error,
                "giving up" if due_at is None else f"next try at {when(due_at)}",
            )  # fmt: skip
        try:
            await self._deliveries.settle(delivery, status, failures, due_at, entry, last=gone)
        except StoreUnavailable as error:  # it goes again once its lease has ended
            log.warning("webhook %s cannot be written down: %s", delivery.id, error)

    async def _try(self, delivery: Delivery, now: float) -> Try:
        body = delivery.body.encode()
        headers = {
            "content-type": "application/cloudevents+json",
            "user-agent": self._agent,
            **signature.headers(delivery.id, body, now, self._keys),
        }
        if delivery.traceparent is not None:
            headers["traceparent"] = delivery.traceparent
        try:
            reply = await self._egress.post(target_of(delivery.url), headers, body)
        except (Undeliverable, ValueError) as why:  # a release may know better than the one before
            return Try(None, str(why))
        if 200 <= reply.status < 300:
            return Try(reply.status, None)
        words = "; redirects are not followed" if 300 <= reply.status < 400 else ""
        error = f"the receiver answered {reply.status}{words}"
        return Try(reply.status, error, reply.retry_after)

    def _delay(self, failures: int, retry_after: str | None) -> float:
        """Return the seconds until the next try: as planned, spread, or what was asked for."""
        planned = DELAYS[failures - 1] * (0.8 + 0.4 * self._chance())
        return max(planned, min(LONGEST_DELAY, seconds_of(retry_after, self._clock())))


def seconds_of(retry_after: str | None, now: float) -> float:
    """Read a `Retry-After`: seconds or a date; 0 for what is neither."""
    if retry_after is None:
        return 0.0
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except ValueError:
        return 0.0
