"""What `runner.registry` promises: the living are listed, the dead absent, liars ignored."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

import pytest
import redis

from runner import connection
from runner.errors import ManifestInvalid
from runner.manifest import Manifest, from_document
from runner.registry import ALIVE, MANIFEST_TTL, Announcer, Instance, Registry

pytestmark = pytest.mark.anyio

XSS = '<script>alert("é")</script>{{7*7}}\x1b[2J\u202e'


@pytest.fixture
async def registry(redis_url: str, namespace: str) -> AsyncIterator[Registry]:
    """Give the reading side."""
    client = connection.connect_async(redis_url, "test-registry")
    yield Registry(client, namespace)
    await client.aclose()


def a_manifest(name: str = "echo", **more: Any) -> Manifest:
    """Return a manifest of a small service."""
    side = {"type": "object", "properties": {"text": {"type": "string"}}}
    document = {
        "apiVersion": "nlp-runner/v1", "name": name, "version": "1.0.0", "summary": "Echoes.",
        "handler": f"handlers.{name}:run", "input": side, "output": side, **more,
    }  # fmt: skip
    return from_document(document)


MANIFEST = a_manifest()


def an_instance(manifest: Manifest = MANIFEST, **fields: Any) -> Instance:
    """Return what a ready worker says about itself."""
    instance = Instance(
        f"{manifest.name}@host-1", manifest.name, manifest.version, manifest.digest, "ready",
        slots=2, host="host", pid=1, started_at=1_000_000.0,
    )  # fmt: skip
    return replace(instance, **fields)


@pytest.fixture
def announcer(raw: redis.Redis, namespace: str) -> Announcer:
    """Give the announcing side of one worker."""
    return Announcer(raw, namespace, MANIFEST, an_instance(state="starting"))


# --- the living ----------------------------------------------------------------------------------


async def test_who_announces_is_listed(registry: Registry, announcer: Announcer) -> None:
    """What a worker says about itself is what a reader gets, and its newest word counts."""
    assert await registry.living() == []
    announcer.announce()
    assert await registry.living() == [an_instance(state="starting")]
    announcer.announce(state="ready", busy=1, load_seconds=0.5)
    assert await registry.living() == [an_instance(busy=1, load_seconds=0.5)]


async def test_what_an_operator_and_a_handler_say_is_announced(
    registry: Registry, raw: redis.Redis, namespace: str
) -> None:
    """Warnings, a second name, a sentence, languages and a queue's name survive the journey."""
    instance = an_instance(
        warnings=("é" * 500,) * 20, alias="kw_fr", info="i" * 500, languages=("fr", "en-US"),
        queue_name="kw.fr-1", seal="0123456789abcdef",
    )  # fmt: skip
    Announcer(raw, namespace, MANIFEST, instance).announce()
    assert await registry.living() == [instance]


async def test_a_record_without_them_is_sound(
    registry: Registry, raw: redis.Redis, namespace: str
) -> None:
    """A worker of an older version says nothing about warnings and names, and is listed."""
    new = ("warnings", "alias", "info", "languages", "queue_name", "seal")
    put(raw, namespace, {key: value for key, value in SOUND.items() if key not in new})
    assert await registry.living() == [an_instance()]


async def test_a_worker_hears_why_it_is_sent_nothing(
    registry: Registry, announcer: Announcer, raw: redis.Redis, namespace: str
) -> None:
    """It hears the reason while an orchestrator says it, and is listed as before; whatever else
    stands there hurts nobody."""
    key = f"{namespace}:instance:echo:echo@host-1:verdict:1000000"
    announcer.announce(state="ready")
    assert announcer.verdict is None
    await registry.tell([(announcer.instance, "It is late. é" * 1000)])
    announcer.announce()
    assert announcer.verdict is not None
    assert announcer.verdict.startswith("It is late. é")
    assert len(announcer.verdict) <= 1001
    assert 0 < raw.ttl(key) <= ALIVE
    assert await registry.living() == [announcer.instance]
    anew = Announcer(raw, namespace, MANIFEST, an_instance(started_at=1_000_001.0))
    anew.announce()
    assert anew.verdict is None
    raw.delete(key)
    raw.lpush(key, "no text")
    announcer.announce()
    assert announcer.verdict is None
    raw.set(key, b"\xff")
    announcer.announce()
    assert announcer.verdict == "\ufffd"
    announcer.withdraw()
    assert not raw.exists(key)


async def test_who_leaves_is_gone_at_once(
    registry: Registry, announcer: Announcer, raw: redis.Redis, namespace: str
) -> None:
    """A worker that stops leaves nothing but its manifest."""
    announcer.announce()
    announcer.withdraw()
    assert await registry.living() == []
    assert list(raw.scan_iter(f"{namespace}:*")) == [
        f"{namespace}:manifest:{MANIFEST.digest}".encode()
    ]


async def test_who_falls_silent_is_gone(
    registry: Registry, announcer: Announcer, raw: redis.Redis, namespace: str
) -> None:
    """A record lives for `ALIVE` seconds after the last word; the index forgets it too."""
    announcer.announce()
    key = f"{namespace}:instance:echo:echo@host-1"
    assert 0 < raw.ttl(key) <= ALIVE
    raw.expireat(key, 1)  # long ago
    assert await registry.living() == []
    assert raw.scard(f"{namespace}:instances") == 0


async def test_the_list_has_a_stable_order(
    registry: Registry, raw: redis.Redis, namespace: str
) -> None:
    """Readers compare lists, so the order does not depend on who spoke last."""
    for name in ("b", "c", "a"):
        Announcer(raw, namespace, MANIFEST, an_instance(instance=name)).announce()
    assert [one.instance for one in await registry.living()] == ["a", "b", "c"]


async def test_a_change_is_told_at_once(
    registry: Registry, announcer: Announcer, redis_url: str
) -> None:
    """A new manifest, a new state and a farewell are told on the channel; a mere beat is not."""
    client = connection.connect_async(redis_url, "test-listener")
    async with client.pubsub() as channel:
        await channel.subscribe(registry.channel)
        await channel.get_message(timeout=5)

        async def told() -> bool:
            return await channel.get_message(timeout=0.2) is not None

        announcer.announce()
        assert await told()
        announcer.announce(busy=1)
        assert not await told()
        announcer.announce(state="ready")
        assert await told()
        announcer.withdraw()
        assert await told()
    await client.aclose()


# --- manifests -----------------------------------------------------------------------------------


async def test_a_manifest_is_fetched_by_its_digest(
    registry: Registry, announcer: Announcer
) -> None:
    """The orchestrator gets the very manifest that the worker has, by its digest."""
    announcer.announce()
    fetched = await registry.manifest(MANIFEST.digest)
    assert fetched.document == MANIFEST.document
    assert fetched.digest == MANIFEST.digest
    assert fetched.path is None


@pytest.mark.parametrize(
    "more",
    [
        {"x-note": "naïve œuvre 日本語 🎈 \u2028 \x7f"},
        {"x-numbers": [0.1, 1e22, -0.0, 1e-7, 2**53 + 1, 999_999_999_999_999_999, 1.0]},
        {"x-mixed": {"b": [None, True, {"a": ""}], "a": []}},
    ],
    ids=["characters", "numbers", "shapes"],
)
async def test_every_manifest_survives_the_journey(
    registry: Registry, raw: redis.Redis, namespace: str, more: dict[str, Any]
) -> None:
    """Whatever a manifest may hold, its digest is the same on the other side."""
    manifest = a_manifest(**more)
    Announcer(raw, namespace, manifest, an_instance(manifest)).announce()
    assert (await registry.manifest(manifest.digest)).document == manifest.document


async def test_a_manifest_stays_for_a_day_after_its_last_worker(
    announcer: Announcer, raw: redis.Redis, namespace: str
) -> None:
    """Every announcement winds its time up again."""
    key = f"{namespace}:manifest:{MANIFEST.digest}"
    announcer.announce()
    raw.expire(key, 5)
    announcer.announce()
    assert MANIFEST_TTL - 5 < raw.ttl(key) <= MANIFEST_TTL


async def test_a_redis_that_lost_its_memory_is_filled_again(
    registry: Registry, announcer: Announcer, raw: redis.Redis, namespace: str
) -> None:
    """The next beat brings everything back: record, index and manifest."""
    announcer.announce(state="ready")
    for key in raw.scan_iter(f"{namespace}:*"):  # FLUSHALL, but on a Redis that tests share
        raw.delete(key)
    assert await registry.living() == []
    announcer.announce()
    assert await registry.living() == [an_instance()]
    assert (await registry.manifest(MANIFEST.digest)).name == "echo"


# --- the hostile ---------------------------------------------------------------------------------


def put(raw: redis.Redis, namespace: str, record: Any, name: str = "echo@host-1") -> None:
    """Write a record as nobody of ours would."""
    body = record if isinstance(record, bytes) else json.dumps(record).encode()
    key = f"{namespace}:instance:echo:{name}"
    raw.set(key, body, ex=60)
    raw.sadd(f"{namespace}:instances", key)


SOUND = asdict(an_instance())
HOSTILE: dict[str, Any] = {
    "huge": b" " * 10_000_000 + json.dumps(SOUND).encode(),
    "empty": b"",
    "nonsense": b"certainly",
    "not text": b"\xff\xfe\x00",
    "not an object": [SOUND],
    "null": None,
    "deep": b"[" * 50_000,
    "nan": json.dumps({**SOUND, "started_at": float("nan")}).encode(),
    "infinity": json.dumps(SOUND).replace("1000000.0", "1e999").encode(),
    "no time of ours": {**SOUND, "started_at": 1e300},
    "a digest that is none": {**SOUND, "digest": "../../etc/passwd"},
    "a name that is none": {**SOUND, "service": "Echo; DROP TABLE job"},
    "an instance that is none": {**SOUND, "instance": "a b\n"},
    "another state": {**SOUND, "state": "pwned"},
    "slots as text": {**SOUND, "slots": "2"},
    "too many slots": {**SOUND, "slots": 10**9},
    "negative slots": {**SOUND, "slots": -1},
    "half a slot": {**SOUND, "slots": 0.5},
    "true slots": {**SOUND, "slots": True},
    "a pid beyond all": {**SOUND, "pid": 10**400},
    "one key too many": {**SOUND, "admin": True},
    "one key too few": {key: value for key, value in SOUND.items() if key != "digest"},
    "an error of 10 kB": {**SOUND, "error": "e" * 10_000},
    "a warning too many": {**SOUND, "warnings": ["w"] * 21},
    "a warning too long": {**SOUND, "warnings": ["w" * 501]},
    "a warning that is none": {**SOUND, "warnings": [{"a": 1}]},
    "warnings as text": {**SOUND, "warnings": "w"},
    "an alias that is none": {**SOUND, "alias": "a b"},
    "an alias of 10 kB": {**SOUND, "alias": "a" * 10_000},
    "a story as info": {**SOUND, "info": "i" * 501},
    "a language that is none": {**SOUND, "languages": ["<b>"]},
    "too many languages": {**SOUND, "languages": ["en"] * 51},
    "a queue that is none": {**SOUND, "queue_name": "q\n"},
    "a seal that is none": {**SOUND, "seal": "s3cret"},
    "a seal and more": {**SOUND, "seal": "0123456789abcdef\n"},
    "somebody else": {**SOUND, "instance": "echo@host-2"},
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_record_is_nobody(
    registry: Registry, raw: redis.Redis, namespace: str, case: str
) -> None:
    """What is not a record of ours is not listed, and does not hide the honest ones."""
    put(raw, namespace, HOSTILE[case])
    put(raw, namespace, {**SOUND, "instance": "echo@host-9"}, "echo@host-9")
    assert [one.instance for one in await registry.living()] == ["echo@host-9"]


async def test_an_index_that_names_other_keys_is_harmless(
    registry: Registry, announcer: Announcer, raw: redis.Redis, namespace: str
) -> None:
    """Keys of another kind, of other deployments and without an end name no worker."""
    announcer.announce(state="ready")
    raw.hset(f"{namespace}:job:1", "attempt", 1)
    raw.set(f"{namespace}:elsewhere", json.dumps(SOUND))
    names = [f"{namespace}:job:1", f"{namespace}:elsewhere", "gone", b"\xff\xfe", "x" * 100_000]
    raw.sadd(f"{namespace}:instances", *names)
    assert await registry.living() == [an_instance()]


async def test_words_of_a_record_stay_words(
    registry: Registry, raw: redis.Redis, namespace: str
) -> None:
    """Markup and control characters are handed on as they are: whoever shows them escapes them."""
    put(raw, namespace, {**SOUND, "error": XSS, "host": XSS[:50]})
    (instance,) = await registry.living()
    assert (instance.error, instance.host) == (XSS, XSS[:50])


async def test_whole_numbers_are_whole(
    registry: Registry, raw: redis.Redis, namespace: str
) -> None:
    """JSON's 2.0 is an integer to a schema and must be one to a database."""
    put(raw, namespace, {**SOUND, "slots": 2.0, "busy": 1.0})
    (instance,) = await registry.living()
    assert (repr(instance.slots), repr(instance.busy)) == ("2", "1")


def documents() -> dict[str, bytes]:
    """Return what nobody may take for the manifest of a digest."""
    good = MANIFEST.document
    return {
        "another one": json.dumps({**good, "summary": "Lies."}).encode(),
        "huge": json.dumps({**good, "x-fill": "a" * 600_000}).encode(),
        "nonsense": b"certainly",
        "empty": b"",
        "not an object": b"[]",
        "deep": b'{"x-a": ' * 900 + b"1" + b"}" * 900,
        "wrong": json.dumps({**good, "input": 1}).encode(),
        "nan": json.dumps({**good, "x-a": float("nan")}).encode(),
        "a surrogate": json.dumps({**good, "x-a": "\ud800"}).encode(),
        "with a tail": json.dumps(good).encode() + b" {}",
    }


@pytest.mark.parametrize("case", documents())
async def test_a_hostile_manifest_is_refused(
    registry: Registry, raw: redis.Redis, namespace: str, case: str
) -> None:
    """A manifest is believed only if it is sound and is the one that its digest names."""
    raw.set(f"{namespace}:manifest:{MANIFEST.digest}", documents()[case])
    with pytest.raises(ManifestInvalid) as caught:
        await registry.manifest(MANIFEST.digest)
    assert str(caught.value)


async def test_a_manifest_that_is_not_there_is_told(
    registry: Registry, raw: redis.Redis, namespace: str
) -> None:
    """A missing manifest, and a key of another kind in its place, are sentences too."""
    for _ in range(2):
        with pytest.raises(ManifestInvalid, match="the manifest is not there"):
            await registry.manifest(MANIFEST.digest)
        raw.hset(f"{namespace}:manifest:{MANIFEST.digest}", "a", "b")
