"""Living manifests, cached from the registry: which services there are, and who serves them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from runner.errors import ManifestInvalid, NoWorker, ServiceUnknown
from runner.manifest import Manifest
from runner.registry import Instance, Registry

log = logging.getLogger(__name__)

ABSENT = "its manifest is not in the registry, or is larger than a manifest may be"
REMEMBERED = 24 * 3600.0
"""Seconds for which a service that has vanished is still listed, as unavailable."""


@dataclass(frozen=True, slots=True)
class Member:
    """One living instance, and why it is not used, when it is not."""

    instance: Instance
    quarantined: str | None = None

    @property
    def usable(self) -> bool:
        """Whether jobs may be sent its way."""
        return self.instance.state == "ready" and self.quarantined is None


@dataclass(frozen=True, slots=True)
class Entry:
    """One service: the manifest that answers for it, and everybody who says to serve it."""

    manifest: Manifest
    members: tuple[Member, ...]
    seen_at: float

    @property
    def available(self) -> bool:
        """Whether a worker that knows this manifest is ready."""
        return any(self._serving())

    @property
    def status(self) -> str:
        """One word: available, starting, draining, unhealthy or unavailable."""
        if self.available:
            return "available"
        states = {m.instance.state if not m.quarantined else "unhealthy" for m in self.members}
        return next(
            (s for s in ("starting", "draining", "unhealthy") if s in states), "unavailable"
        )

    def why_unavailable(self) -> str:
        """Say in a sentence why no job can be taken now."""
        name = self.manifest.name
        reasons = [m.quarantined or m.instance.error for m in self.members]
        told = next((reason for reason in reasons if reason), None)
        match self.status:
            case "starting":
                return f"{name} is starting: its workers are still loading."
            case "draining":
                return f"{name} is stopping: its workers take no more jobs."
            case "unhealthy":
                return f"No worker of {name} is usable: {told}"
        return f"No worker of {name} is alive."

    def _serving(self) -> Iterable[bool]:
        return (m.usable and m.instance.digest == self.manifest.digest for m in self.members)


class Catalog:
    """What the orchestrator knows of the services; `refresh` brings it up to date.

    `seal` is the fingerprint of the orchestrator's secret: a worker with another one would neither
    believe its jobs nor be believed.
    """

    def __init__(self, registry: Registry, seal: str = "") -> None:
        self._registry, self._seal = registry, seal
        self._manifests: dict[str, Manifest | str] = {}
        self._entries: dict[str, Entry] = {}
        self._slots: dict[str, int] = {}
        self._holders: dict[tuple[str, str], str] = {}
        self.strangers: list[Member] = []
        self.conflicts = 0
        self.version = 0

    def entries(self) -> list[Entry]:
        """Return every known service, by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def entry(self, name: str) -> Entry:
        """Return one service; raises `ServiceUnknown`."""
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(sorted(self._entries)) or "none yet"
            raise ServiceUnknown(f"There is no service `{name}`; known are: {known}.")
        return entry

    def serving(self, name: str) -> Manifest:
        """Return the manifest that new jobs are validated against.

        Raises `ServiceUnknown`, or `NoWorker` with the reason when nobody could run them.
        """
        entry = self.entry(name)
        if not entry.available:
            raise NoWorker(entry.why_unavailable(), retry_after=5)
        return entry.manifest

    def manifest(self, digest: str) -> Manifest | None:
        """Return the manifest of this digest, if a living worker announces it."""
        known = self._manifests.get(digest)
        return known if isinstance(known, Manifest) else None

    def largest_body(self) -> int:
        """Return the most bytes that any known service takes in one body."""
        return max((e.manifest.limits.max_body for e in self._entries.values()), default=1_000_000)

    def slots(self, digest: str) -> int:
        """Return how many jobs of this manifest the living workers run at a time."""
        return self._slots.get(digest, 0)

    def served_since(self, digest: str) -> float:
        """Return when the oldest living worker of this manifest was started, 0 if there is none."""
        return min(
            (
                member.instance.started_at
                for entry in self._entries.values()
                for member in entry.members
                if member.usable and member.instance.digest == digest
            ),
            default=0.0,
        )

    def served_digests(self) -> dict[str, str]:
        """Return the service of every digest that has a usable worker."""
        return {
            member.instance.digest: entry.manifest.name
            for entry in self._entries.values()
            for member in entry.members
            if member.usable
        }

    def remember(self, manifest: Manifest, seen_at: float) -> None:
        """Take in a service known from before, as unavailable until a worker shows up."""
        known = self._entries.get(manifest.name)
        if known is None or (not known.members and known.seen_at < seen_at):
            self._entries[manifest.name] = Entry(manifest, (), seen_at)
            self.version += 1

    async def refresh(self, now: float) -> list[Manifest]:
        """Read the registry; return the manifests that were not known before.

        `strangers` are then the quarantined workers of services that nobody has served yet, and
        `conflicts` is the number of all that are in quarantine.
        """
        living = await self._registry.living()
        digests = {instance.digest for instance in living}
        self._manifests = {d: known for d, known in self._manifests.items() if d in digests}
        fresh = [m for m in [await self._learn(i) for i in living] if m]
        by_service: dict[str, list[Member]] = {}
        for member in self._judge(living):
            by_service.setdefault(member.instance.service, []).append(member)
        before = self._entries
        self._entries = self._compose(by_service, now)
        self._slots = _slots(by_service)
        unknown = by_service.keys() - self._entries.keys()
        self.strangers = [m for name in sorted(unknown) for m in by_service[name]]
        if _shape(before) != _shape(self._entries):
            self.version += 1
        return fresh

    async def tell(self) -> None:
        """Say to the quarantined why they are; to be said again after every look."""
        members = (m for entry in self._entries.values() for m in entry.members)
        judged = ((m.instance, m.quarantined) for m in [*members, *self.strangers])
        await self._registry.tell([(one, why) for one, why in judged if why])

    async def _learn(self, instance: Instance) -> Manifest | None:
        """Fetch a manifest that is not known yet; a bad one is remembered by its fault."""
        known = self._manifests.get(instance.digest)
        if known is not None and known != ABSENT:
            return None
        try:
            manifest = await self._registry.manifest(instance.digest)
        except ManifestInvalid as error:
            fault = f"its manifest is refused: {str(error)[:500]}"
            if error.problems[0].code == "announced":
                fault = ABSENT
            if fault != known:
                log.error("%s: %s", instance.instance, fault)
            self._manifests[instance.digest] = fault
            return None
        self._manifests[instance.digest] = manifest
        return manifest

    def _judge(self, living: list[Instance]) -> list[Member]:
        """Quarantine those who announce a bad manifest, or another one under a version in use,
        and those with another seal.
        """
        holders: dict[tuple[str, str], str] = {}
        for instance in sorted(living, key=lambda i: (i.started_at, i.instance)):
            key = (instance.service, instance.version)
            if instance.state == "unhealthy" or self._fault(instance):
                continue
            if self._holders.get(key) == instance.digest or key not in holders:
                holders[key] = instance.digest
        self._holders = holders
        members = [Member(i, self._fault(i) or _conflict(i, holders)) for i in living]
        self.conflicts = sum(member.quarantined is not None for member in members)
        return members

    def _fault(self, instance: Instance) -> str | None:
        """Say what is wrong with what an instance announces, whoever else there is."""
        manifest = self._manifests[instance.digest]
        if isinstance(manifest, str):
            return manifest
        if (manifest.name, manifest.version) != (instance.service, instance.version):
            return (
                f"it announces {instance.service} {instance.version} with the manifest of "
                f"{manifest.name} {manifest.version}"
            )
        return _unsealed(instance.seal, self._seal)

    def _compose(self, by_service: dict[str, list[Member]], now: float) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for name, members in by_service.items():
            manifest = self._answering(members)
            if manifest is None and name in self._entries:
                manifest = self._entries[name].manifest
            if manifest is not None:
                ordered = tuple(sorted(members, key=lambda m: m.instance.instance))
                entries[name] = Entry(manifest, ordered, now)
        for name, entry in self._entries.items():
            if name not in entries and now - entry.seen_at < REMEMBERED:
                entries[name] = replace(entry, members=())
        return entries

    def _answering(self, members: list[Member]) -> Manifest | None:
        """Choose the manifest: of the usable workers, else of any; the newest version of these."""
        usable = [m for m in members if m.usable]
        sound = [m for m in members if not m.quarantined]
        manifests = [self._manifests[m.instance.digest] for m in usable or sound]
        known = [manifest for manifest in manifests if isinstance(manifest, Manifest)]
        return max(known, key=lambda m: _order(m.version), default=None)


def _unsealed(its: str, ours: str) -> str | None:
    """Say whether what a worker seals is not believed here, or the other way round."""
    if its == ours:
        return None
    if not its:
        return "It has no WIRE_SECRET, and this orchestrator has one."
    if not ours:
        return "It has a WIRE_SECRET, and this orchestrator has none."
    return "It has another WIRE_SECRET than this orchestrator."


def _conflict(instance: Instance, holders: dict[tuple[str, str], str]) -> str | None:
    """Say whether another manifest holds the version that an instance announces."""
    holder = holders.get((instance.service, instance.version), instance.digest)
    if holder != instance.digest:
        return (
            f"version {instance.version} is already served with another manifest "
            f"({holder[:12]}, this one is {instance.digest[:12]}); raise the version"
        )
    return None


def _slots(by_service: dict[str, list[Member]]) -> dict[str, int]:
    slots: dict[str, int] = {}
    for members in by_service.values():
        for member in members:
            if member.usable:
                digest = member.instance.digest
                slots[digest] = slots.get(digest, 0) + member.instance.slots
    return slots


def _shape(entries: dict[str, Entry]) -> dict[str, Any]:
    """Return what a reader of the OpenAPI document would see change."""
    return {name: (entry.manifest.digest, entry.available) for name, entry in entries.items()}


def _order(version: str) -> tuple[Any, ...]:
    """Order versions as semantic versioning does: a pre-release stands before its release."""
    numbers, _, pre = version.partition("-")
    words = [(0, int(w), "") if w.isdecimal() else (1, 0, w) for w in pre.split(".")]
    return [int(number) for number in numbers.split(".")], not pre, words
