"""Who came and went among the workers, said in the log: a line for each, a number for crowds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from runner.orchestrator.catalog import Catalog, Entry, Member

log = logging.getLogger(__name__)

CROWD = 10
"""Lines of one kind that are said in a window; the others are counted."""

WINDOW = 10.0
"""Seconds that a window lasts. Five hundred workers that restart are told of in many looks."""

READY, LEFT, QUARANTINED, UNHEALTHY = "ready", "left", "in quarantine", "unhealthy"
LOST = "without a worker that can be used"


class Arrivals:
    """Compares what each look at the registry finds with what the last one found."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._members: Mapping[str, Member] = {}
        self._available: set[str] = set()
        self._kinds: dict[str, tuple[float, int]] = {}

    def look(self, catalog: Catalog) -> None:
        """Say what has changed since the last look."""
        entries = catalog.entries()
        self._close_windows()
        self._compare(_by_name(entries, catalog.strangers))
        available = {entry.manifest.name: entry for entry in entries if entry.available}
        for entry in entries:
            if entry.manifest.name in self._available - available.keys():
                said = f"{_of(entry)} can take no job: {_line(entry.why_unavailable())}"
                self._say(LOST, "services are", said, logging.WARNING)
        self._available = set(available)

    def _compare(self, members: Mapping[str, Member]) -> None:
        before, self._members = self._members, members
        for name, member in members.items():
            kind = _kind(member)
            if kind is not None and (name not in before or _kind(before[name]) != kind):
                level = logging.INFO if kind == READY else logging.WARNING
                self._say(kind, "workers are", f"{_worker(member)} is {_how(member)}", level)
        for name, member in before.items():
            if name not in members:
                self._say(LEFT, "workers have", f"{_worker(member)} left", logging.INFO)

    def _say(self, kind: str, whose: str, line: str, level: int) -> None:
        began, count = self._kinds.get(f"{whose} {kind}", (self._clock(), 0))
        self._kinds[f"{whose} {kind}"] = began, count + 1
        if count < CROWD:
            log.log(level, "%s", line)

    def _close_windows(self) -> None:
        """Say how many were left out of the windows that are over."""
        now = self._clock()
        for kind, (began, count) in list(self._kinds.items()):
            if now - began >= WINDOW:
                del self._kinds[kind]
                if count > CROWD:
                    log.info("and %d more %s", count - CROWD, kind)


def _by_name(entries: Iterable[Entry], strangers: Iterable[Member]) -> dict[str, Member]:
    members = [*(member for entry in entries for member in entry.members), *strangers]
    return {f"{m.instance.service}/{m.instance.instance}": m for m in members}


def _kind(member: Member) -> str | None:
    """Return what is said of a worker as it is now, if anything: loading and draining go by."""
    if member.quarantined is not None:
        return QUARANTINED
    return member.instance.state if member.instance.state in (READY, UNHEALTHY) else None


def _how(member: Member) -> str:
    """Say how a worker is; what it says itself is a stranger's, and gets one line of the log."""
    one = member.instance
    if member.quarantined is not None:
        return f"{QUARANTINED}: {_line(member.quarantined)}"
    if one.state == UNHEALTHY:
        return f"{UNHEALTHY}: {_line(one.error or 'it does not say why')}"
    return f"{READY}, {one.slots} slot{'' if one.slots == 1 else 's'}"


def _worker(member: Member) -> str:
    one = member.instance
    return f"{one.service} {_line(one.version)}: worker {one.instance}"


def _of(entry: Entry) -> str:
    return f"{entry.manifest.name} {entry.manifest.version}"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
