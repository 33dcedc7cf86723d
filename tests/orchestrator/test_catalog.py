"""What the orchestrator believes of the registry, which anybody with access to Redis can write."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from runner import connection, errors
from runner.manifest import Manifest, digest_of, from_document
from runner.orchestrator.catalog import REMEMBERED, Catalog
from runner.registry import Announcer, Instance, Registry
from runner.seal import Seal

pytestmark = pytest.mark.anyio
numbers = itertools.count(1)


def a_document(name: str = "echo", version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    """Return the document of a sound manifest, with changes."""
    return {
        "apiVersion": "nlp-runner/v1",
        "name": name,
        "version": version,
        "summary": "Gives a text back.",
        "handler": "nobody:imports",
        "input": {"type": "object", "properties": {"text": {"type": "string"}}},
        "output": {"type": "object"},
        **changes,
    }


class Town:
    """A registry on a real Redis, and a catalog that looks at it."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        self.namespace = namespace
        self.redis = redis.Redis.from_url(redis_url)
        self.looker = connection.connect_async(redis_url, "test")
        self.now = time.time()
        self.catalog = self.another_catalog()

    def another_catalog(self) -> Catalog:
        """Return a catalog that knows nothing yet, as after a restart."""
        return Catalog(Registry(self.looker, self.namespace))

    def worker(
        self, manifest: Manifest, state: str = "ready", *, slots: int = 1,
        started_at: float | None = None, **more: Any,
    ) -> Announcer:  # fmt: skip
        """Let a worker announce itself."""
        number = next(numbers)
        announcer = Announcer(
            self.redis, self.namespace, manifest,
            Instance(
                f"{manifest.name}@{number}", manifest.name, manifest.version, manifest.digest,
                "starting", slots, started_at=number if started_at is None else started_at,
            ),
        )  # fmt: skip
        announcer.announce(state=state, **more)
        return announcer

    def stranger(self, document: Any, service: str = "odd", **record: Any) -> str:
        """Announce what none of our workers would, raw if it is bytes; return its name."""
        raw = isinstance(document, bytes)
        data = document if raw else json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest() if raw else digest_of(document)
        name = f"{service}@{next(numbers)}"
        whole = {
            "instance": name, "service": service, "version": "1.0.0", "digest": digest,
            "state": "ready", "slots": 1, **record,
        }  # fmt: skip
        self.redis.set(f"{self.namespace}:manifest:{digest}", data)
        self.record(name, json.dumps(whole).encode(), service)
        return name

    def record(self, name: str, data: bytes, service: str = "odd") -> None:
        """Write a raw record of an instance."""
        key = f"{self.namespace}:instance:{service}:{name}"
        self.redis.set(key, data)
        self.redis.sadd(f"{self.namespace}:instances", key)

    async def look(self) -> list[Manifest]:
        """Look at the registry."""
        return await self.catalog.refresh(self.now)

    def quarantined(self, name: str = "echo") -> dict[str, str]:
        """Return the instances of a service that are in quarantine, with the reasons."""
        members = self.catalog.entry(name).members
        return {m.instance.instance: m.quarantined for m in members if m.quarantined}


@pytest.fixture
async def town(redis_url: str, namespace: str) -> AsyncIterator[Town]:
    """Give an empty registry."""
    town = Town(redis_url, namespace)
    yield town
    await town.looker.aclose()
    town.redis.close()


# --- who is there --------------------------------------------------------------------------------


async def test_a_service_is_available_while_a_worker_is_ready(town: Town) -> None:
    """Jobs are taken from the moment a worker is ready until none is; otherwise the reason is
    said, and a service that has vanished stays listed."""
    manifest = from_document(a_document())
    with pytest.raises(errors.ServiceUnknown, match="none yet"):
        town.catalog.serving("echo")
    worker = town.worker(manifest, "starting", slots=3)
    assert await town.look() == [manifest]
    entry = town.catalog.entry("echo")
    assert (entry.status, entry.available, town.catalog.slots(manifest.digest)) == (
        "starting", False, 0,
    )  # fmt: skip
    with pytest.raises(errors.NoWorker, match="still loading") as caught:
        town.catalog.serving("echo")
    assert caught.value.retry_after

    worker.announce(state="ready")
    assert await town.look() == []
    assert town.catalog.serving("echo") == manifest
    assert town.catalog.slots(manifest.digest) == 3
    other = town.worker(manifest, slots=2)
    await town.look()
    assert town.catalog.slots(manifest.digest) == 5
    assert town.catalog.served_digests() == {manifest.digest: "echo"}

    other.announce(state="draining")
    await town.look()
    assert town.catalog.slots(manifest.digest) == 3
    worker.announce(state="draining")
    await town.look()
    with pytest.raises(errors.NoWorker, match="take no more jobs"):
        town.catalog.serving("echo")
    for one in (worker, other):
        one.withdraw()
    await town.look()
    assert [(e.manifest, e.status) for e in town.catalog.entries()] == [(manifest, "unavailable")]
    with pytest.raises(errors.NoWorker, match="No worker of echo is alive"):
        town.catalog.serving("echo")
    town.now += REMEMBERED - 1
    await town.look()
    assert town.catalog.entries()
    town.now += 2
    await town.look()
    assert town.catalog.entries() == []


async def test_an_unhealthy_worker_shows_its_reason(town: Town) -> None:
    """What a worker says of its failure is what a caller reads, unless another one works."""
    manifest = from_document(a_document())
    worker = town.worker(manifest, "unhealthy", error="there is no module `torch`")
    await town.look()
    entry = town.catalog.entry("echo")
    assert entry.status == "unhealthy"
    assert "there is no module `torch`" in entry.why_unavailable()
    town.worker(manifest)
    await town.look()
    assert town.catalog.entry("echo").status == "available"
    assert len(town.catalog.entry("echo").members) == 2
    worker.withdraw()


async def test_a_service_of_earlier_days_is_not_unknown(town: Town) -> None:
    """What the database remembers is listed as unavailable, the latest of several manifests."""
    old, new = from_document(a_document()), from_document(a_document(version="1.1.0"))
    for manifest, seen_at in ((old, town.now - 20), (new, town.now - 10)):
        town.catalog.remember(manifest, seen_at)
    await town.look()
    entry = town.catalog.entry("echo")
    assert (entry.manifest, entry.status) == (new, "unavailable")
    town.worker(old)
    await town.look()
    assert town.catalog.serving("echo") == old


async def test_only_what_callers_see_makes_a_new_version(town: Town) -> None:
    """The OpenAPI document is composed anew when a service comes, goes or changes, and not when a
    worker merely renews its word."""
    manifest = from_document(a_document())
    seen = [town.catalog.version]

    async def changed() -> bool:
        await town.look()
        seen.append(town.catalog.version)
        return seen[-1] != seen[-2]

    worker = town.worker(manifest)
    assert await changed()
    worker.announce(busy=1)
    other = town.worker(manifest)
    assert not await changed()
    newer = town.worker(from_document(a_document(version="1.0.1")))
    assert await changed()
    for one in (worker, other):
        one.withdraw()
    assert not await changed()
    newer.withdraw()
    assert await changed()


# --- versions ------------------------------------------------------------------------------------

IN_ORDER = [
    "0.9.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
    "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1-rc.1", "1.2.0", "1.10.0", "2.0.0-0", "2.0.0",
]  # fmt: skip


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(IN_ORDER)))
async def test_the_newest_version_answers(town: Town, older: str, newer: str) -> None:
    """Of several versions the newest takes new jobs, in the order of semantic versioning."""
    old, new = (from_document(a_document(version=version)) for version in (older, newer))
    for manifest in (new, old):
        town.worker(manifest)
    await town.look()
    assert town.catalog.serving("echo") == new
    assert town.catalog.served_digests() == {old.digest: "echo", new.digest: "echo"}


async def test_a_newer_version_takes_over_when_it_is_ready(town: Town) -> None:
    """While the newer version loads the older one serves, and again when the newer one is gone."""
    old, new = from_document(a_document()), from_document(a_document(version="1.1.0"))
    town.worker(old)
    worker = town.worker(new, "starting")
    await town.look()
    assert town.catalog.serving("echo") == old
    worker.announce(state="ready")
    await town.look()
    assert town.catalog.serving("echo") == new
    worker.withdraw()
    await town.look()
    assert town.catalog.serving("echo") == old


# --- conflicts -----------------------------------------------------------------------------------


async def test_two_manifests_under_one_version_are_a_conflict(town: Town) -> None:
    """The newcomer is quarantined, visibly and for as long as the first one lives, and no job is
    sent its way; when the first one has left, it may serve."""
    first, second = from_document(a_document()), from_document(a_document(summary="Another."))
    elder = town.worker(first)
    await town.look()
    newcomer = town.worker(second, slots=9, started_at=0)  # whatever it says of its age
    for _ in range(3):
        await town.look()
        assert town.catalog.serving("echo") == first
        ((name, reason),) = town.quarantined().items()
        assert name == newcomer.instance.instance
        assert "already served with another manifest" in reason
        assert first.digest[:12] in reason
        assert town.catalog.slots(second.digest) == 0
        assert town.catalog.conflicts == 1
    same = town.worker(first)
    elder.withdraw()
    await town.look()
    assert town.catalog.serving("echo") == first
    same.withdraw()
    await town.look()
    assert town.catalog.serving("echo") == second
    assert town.catalog.conflicts == 0


async def test_after_a_restart_the_elder_is_believed(town: Town) -> None:
    """An orchestrator that has just started takes the worker that lives longer for the first."""
    first, second = from_document(a_document()), from_document(a_document(summary="Another."))
    town.worker(second, started_at=200)
    town.worker(first, started_at=100)
    town.catalog = town.another_catalog()
    await town.look()
    assert town.catalog.serving("echo") == first
    assert len(town.quarantined()) == 1


async def test_nobody_takes_a_version_with_a_bad_manifest(town: Town) -> None:
    """Who announces a version with a manifest that is refused, absent or of another service does
    not keep the honest workers of that version from serving."""
    honest = from_document(a_document())
    other = from_document(a_document("other"))
    town.stranger(a_document(handler="no colon"), "echo", started_at=0)
    town.record(
        "echo@absent",
        json.dumps(
            {"instance": "echo@absent", "service": "echo", "version": "1.0.0", "digest": "0" * 64,
             "state": "ready", "slots": 1, "started_at": 0}
        ).encode(), "echo",
    )  # fmt: skip
    town.stranger(other.document, "echo", started_at=0)
    town.worker(honest, started_at=500)
    town.worker(other)
    await town.look()
    assert town.catalog.serving("echo") == honest
    assert town.catalog.serving("other") == other
    reasons = " ".join(town.quarantined().values())
    assert "handler" in reasons
    assert "not in the registry" in reasons
    town.worker(honest)
    await town.look()
    assert town.catalog.slots(honest.digest) == 2


OURS, OTHER = Seal("s3cret").fingerprint, Seal("other").fingerprint


@pytest.mark.parametrize(
    ("ours", "its", "reason"),
    [
        (OURS, "", "It has no WIRE_SECRET, and this orchestrator has one."),
        (OURS, OTHER, "It has another WIRE_SECRET than this orchestrator."),
        ("", OTHER, "It has a WIRE_SECRET, and this orchestrator has none."),
    ],
)
async def test_who_has_another_seal_gets_no_job(
    town: Town, ours: str, its: str, reason: str
) -> None:
    """It counts no slot, takes no version from the others, and hears why; alone it is a stranger
    and makes no service available."""
    manifest = from_document(a_document())
    town.catalog = Catalog(Registry(town.looker, town.namespace), ours)
    wrong = town.worker(manifest, slots=9, started_at=1, seal=its)
    assert wrong.verdict is None
    await town.look()
    (stranger,) = town.catalog.strangers
    assert stranger.quarantined == reason
    await town.catalog.tell()
    wrong.announce()
    assert wrong.verdict == reason
    other = from_document(a_document(summary="Another."))
    right = town.worker(other, slots=2, started_at=2, seal=ours)
    await town.look()
    assert town.catalog.serving("echo") == other
    assert town.quarantined() == {wrong.instance.instance: reason}
    assert (town.catalog.slots(manifest.digest), town.catalog.slots(other.digest)) == (0, 2)
    assert town.catalog.conflicts == 1
    await town.catalog.tell()
    right.announce()
    assert right.verdict is None
    right.withdraw()
    await town.look()
    with pytest.raises(errors.NoWorker, match="WIRE_SECRET"):
        town.catalog.serving("echo")


async def test_a_manifest_that_comes_late_is_learned(town: Town) -> None:
    """A worker whose manifest was not in the registry yet is used once it is."""
    manifest = from_document(a_document())
    worker = town.worker(manifest)
    key = f"{town.namespace}:manifest:{manifest.digest}"
    document = town.redis.get(key)
    town.redis.delete(key)
    assert await town.look() == []
    (stranger,) = town.catalog.strangers
    assert "not in the registry" in (stranger.quarantined or "")
    assert document is not None
    town.redis.set(key, document)
    assert await town.look() == [manifest]
    assert town.catalog.serving("echo") == manifest
    assert town.catalog.strangers == []
    worker.withdraw()


# --- hostile content -----------------------------------------------------------------------------


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def _properties(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"text": schema}}


HOSTILE = {
    "10 MB": a_document("odd", description="x" * 10_000_000),
    "10 MB of nothing": b" " * 10_000_000,
    "no JSON": b"\x00\xff{{{",
    "a list": b"[]",
    "deep": b'{"a":' * 900 + b"1" + b"}" * 900,
    "deep inside": a_document("odd", **{"x-deep": _nested(200)}),
    "many nodes": a_document("odd", **{"x-many": [0] * 100_000}),
    "NaN": b'{"a": NaN}',
    "no version": a_document("odd", version="1.0.0+" + "1" * 5000),
    "an alias of a file": a_document("odd", input=_properties({"$ref": "file:///etc/passwd"})),
    "a slow pattern": a_document(
        "odd", input=_properties({"type": "string", "pattern": r"^(a+)+\1$"})
    ),
    "a huge pattern": a_document(
        "odd", input=_properties({"type": "string", "pattern": "(a{1000}){1000}"})
    ),
    "code in its handler": a_document("odd", handler="os.system('true')"),
    "a path for a name": a_document("../../etc"),
    "halves of a character": b'{"apiVersion": "\\ud800"}',
    "unknown keys": a_document("odd", exec="rm -rf /"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_manifest_is_shut_out(town: Town, kind: str) -> None:
    """A manifest built to hurt is refused with a visible reason, at little cost and once, while
    others are served."""
    honest = from_document(a_document())
    town.worker(honest)
    name = town.stranger(HOSTILE[kind])
    began = time.process_time()
    for _ in range(5):
        await town.look()
    assert time.process_time() - began < 1.0
    assert town.catalog.serving("echo") == honest
    (stranger,) = town.catalog.strangers
    assert stranger.instance.instance == name
    assert not stranger.usable
    assert 10 < len(stranger.quarantined or "") < 700
    assert town.catalog.conflicts == 1
    assert [entry.manifest.name for entry in town.catalog.entries()] == ["echo"]


async def test_nothing_named_in_a_manifest_is_fetched_or_imported(town: Town) -> None:
    """References to other machines are refused without a connection, and a handler that names
    dangerous code is only a text."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/schema.json"
        for place in ("$ref", "$schema", "$dynamicRef"):
            town.stranger(a_document("odd", input=_properties({place: url})))
        town.stranger(a_document("system", handler="os:system"), "system")
        for _ in range(2):
            await town.look()
        trap.settimeout(0.2)
        with pytest.raises(TimeoutError):
            trap.accept()
    assert len(town.catalog.strangers) == 3
    assert town.catalog.serving("system").handler == "os:system"


async def test_a_pattern_cannot_stall_the_orchestrator(town: Town) -> None:
    """A pattern that takes other engines for ever is matched in time linear in the input."""
    document = a_document(input=_properties({"type": "string", "pattern": "^(a+)+$"}))
    town.worker(from_document(document))
    await town.look()
    began = time.process_time()
    with pytest.raises(errors.InputInvalid):
        town.catalog.serving("echo").accept({"text": "a" * 50_000 + "!"})
    assert time.process_time() - began < 1.0


async def test_hostile_records_are_nobody(town: Town) -> None:
    """Records that are no records are left out, however large, and so are keys of other kinds."""
    honest = from_document(a_document())
    town.worker(honest)
    sound = {
        "instance": "odd@1", "service": "odd", "version": "1.0.0", "digest": honest.digest,
        "state": "ready", "slots": 1,
    }  # fmt: skip
    for number, (key, value) in enumerate(
        [
            ("slots", -1), ("slots", 10**30), ("slots", "many"), ("slots", True), ("state", "god"),
            ("digest", "../../x"), ("service", "a/b"), ("instance", "<script>"),
            ("started_at", "now"), ("error", "x" * 9000), ("unknown", 1), ("pid", 10**40),
        ]
    ):  # fmt: skip
        town.record(f"odd@{number}", json.dumps({**sound, key: value}).encode())
    for data in (b"", b"\xff", b"[]", b"1" * 5000, b"[" * 100_000, b"x" * 10_000_000):
        town.record(f"odd@{len(data)}", data)
    index = f"{town.namespace}:instances"
    town.redis.rpush(f"{town.namespace}:instance:odd:list", "a")
    town.redis.sadd(index, f"{town.namespace}:instance:odd:list", b"\xff\x00", "nowhere", "")
    began = time.process_time()
    for _ in range(3):
        await town.look()
    assert time.process_time() - began < 1.0
    assert [entry.manifest.name for entry in town.catalog.entries()] == ["echo"]
    assert town.catalog.strangers == []
    assert town.catalog.slots(honest.digest) == 1


async def test_the_catalog_forgets_what_is_gone(town: Town) -> None:
    """A stream of manifests under ever new digests does not pile up in memory."""
    for number in range(30):
        name = town.stranger(a_document("odd", summary=f"Number {number}.", handler="wrong"))
        await town.look()
        town.redis.delete(f"{town.namespace}:instance:odd:{name}")
    await town.look()
    assert town.catalog._manifests == {}
    assert town.catalog.strangers == []
