"""The shared registry: workers announce their manifest in Redis, and orchestrators list the living.

Keys under the deployment's namespace: `instance:{service}:{instance}` says who is alive and expires
by itself (dead means absent), and the same with `:verdict:{its start}` tells that worker why an
orchestrator sends it nothing, while one does not; `manifest:{digest}` holds each announced manifest
once; `instances` names the instance keys, so that listing never scans the whole of Redis; the
`registry` channel tells of every change at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
import redis
import redis.asyncio

from runner.errors import ManifestInvalid, Problem
from runner.manifest import Manifest, digest_of, from_document
from runner.schema import Schema

BEAT = 5
"""Seconds between two announcements of a living worker."""

ALIVE = 15
"""Seconds after which a worker that fell silent is gone."""

MANIFEST_TTL = 24 * 3600
MAX_RECORD = 64 * 1024
MAX_MANIFEST = 512 * 1024
MAX_VERDICT = 1000
STATES = ("starting", "ready", "draining", "unhealthy")


@dataclass(frozen=True, slots=True)
class Instance:
    """What one worker says about itself; times are seconds since the epoch.

    The four after `warnings` are what its operator tells LinTO's clients: a second name, a
    sentence, languages and a name of the queue. Empty, the manifest says it. `seal` is the
    fingerprint of its secret.
    """

    instance: str
    service: str
    version: str
    digest: str
    state: str
    slots: int
    busy: int = 0
    host: str = ""
    pid: int = 0
    started_at: float = 0.0
    load_seconds: float | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    alias: str = ""
    info: str = ""
    languages: tuple[str, ...] = ()
    queue_name: str = ""
    seal: str = ""


_SENTENCE = {"type": "string", "maxLength": 500}
_TAG = {"type": "string", "maxLength": 255, "pattern": r"^(\*|[A-Za-z0-9-]+)$"}

_RECORD = Schema(
    {
        "type": "object",
        "required": ["instance", "service", "version", "digest", "state", "slots"],
        "additionalProperties": False,
        "properties": {
            "instance": {"type": "string", "pattern": "^[A-Za-z0-9._@-]{1,200}$"},
            "service": {"type": "string", "pattern": "^[a-z][a-z0-9]*(-[a-z0-9]+)*$"},
            "version": {"type": "string", "maxLength": 63},
            "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "state": {"enum": list(STATES)},
            "slots": {"type": "integer", "minimum": 0, "maximum": 10_000},
            "busy": {"type": "integer", "minimum": 0, "maximum": 10_000},
            "host": {"type": "string", "maxLength": 253},
            "pid": {"type": "integer", "minimum": 0, "maximum": 10**9},
            "started_at": {"type": "number", "minimum": 0, "maximum": 10**11},
            "load_seconds": {"type": ["number", "null"], "minimum": 0, "maximum": 10**9},
            "error": {"type": ["string", "null"], "maxLength": 8000},
            "warnings": {"type": "array", "maxItems": 20, "items": _SENTENCE},
            "alias": {"type": "string", "maxLength": 100, "pattern": "^[A-Za-z0-9._-]*$"},
            "info": _SENTENCE,
            "languages": {"type": "array", "maxItems": 50, "items": _TAG},
            "queue_name": {"type": "string", "maxLength": 100, "pattern": "^[A-Za-z0-9._-]*$"},
            "seal": {"type": "string", "pattern": "^([0-9a-f]{16})?$"},
        },
    }
)


class Announcer:
    """Keeps one worker's key alive; every call blocks for at most a few seconds.

    `verdict` is why an orchestrator sends this worker nothing, as it stood at the last call.
    """

    def __init__(
        self, client: redis.Redis, namespace: str, manifest: Manifest, instance: Instance
    ) -> None:
        self._redis, self._namespace = client, namespace
        self._manifest = manifest
        self.instance = instance
        self.verdict: str | None = None
        self._key = f"{namespace}:instance:{instance.service}:{instance.instance}"
        self._verdict = _verdict(self._key, instance)

    def announce(self, **changes: Any) -> None:
        """Renew the key, with what changed; a change of state is told to everyone at once."""
        before, self.instance = self.instance, replace(self.instance, **changes)
        manifest_key = f"{self._namespace}:manifest:{self.instance.digest}"
        known = self._redis.expire(manifest_key, MANIFEST_TTL)
        if not known:  # the manifest first: who sees the instance must find it
            self._redis.set(manifest_key, orjson.dumps(self._manifest.document), ex=MANIFEST_TTL)
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._key, orjson.dumps(asdict(self.instance)), ex=ALIVE)
        pipe.sadd(f"{self._namespace}:instances", self._key)
        pipe.execute()
        if not known or before.state != self.instance.state:
            self._redis.publish(f"{self._namespace}:registry", self._key)
        try:
            verdict: Any = self._redis.getrange(self._verdict, 0, MAX_VERDICT)
        except redis.ResponseError:  # what stands there is not even a text
            verdict = b""
        self.verdict = verdict.decode("utf-8", "replace") or None

    def withdraw(self) -> None:
        """Say that this worker is gone."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.delete(self._key, self._verdict)
        pipe.srem(f"{self._namespace}:instances", self._key)
        pipe.publish(f"{self._namespace}:registry", self._key)
        pipe.execute()


class Registry:
    """Lists the living and fetches what they announced; all of it is treated as hostile input."""

    def __init__(self, client: redis.asyncio.Redis, namespace: str) -> None:
        self._redis, self._namespace = client, namespace

    @property
    def channel(self) -> str:
        """The channel on which every change is told."""
        return f"{self._namespace}:registry"

    async def living(self) -> list[Instance]:
        """Return every living instance whose record can be read, in a stable order."""
        index = f"{self._namespace}:instances"
        keys = sorted(await self._redis.smembers(index))
        if not keys:
            return []
        records = dict(zip(keys, await self._redis.mget(keys), strict=True))
        gone = [key for key, record in records.items() if record is None]
        if gone:
            await self._redis.srem(index, *gone)
        found = {key: _instance(record) for key, record in records.items()}
        return [it for key, it in found.items() if it and key == self._key(it).encode()]

    async def tell(self, verdicts: Iterable[tuple[Instance, str]]) -> None:
        """Say to workers why they are sent nothing; it holds while it is said again and again."""
        pipe = self._redis.pipeline(transaction=False)
        for instance, reason in verdicts:
            key = _verdict(self._key(instance), instance)
            pipe.set(key, reason[:MAX_VERDICT], ex=ALIVE)
        await pipe.execute()

    def _key(self, instance: Instance) -> str:
        return f"{self._namespace}:instance:{instance.service}:{instance.instance}"

    async def manifest(self, digest: str) -> Manifest:
        """Fetch and check one announced manifest; raises `ManifestInvalid`."""
        try:
            key = f"{self._namespace}:manifest:{digest}"
            data = await self._redis.getrange(key, 0, MAX_MANIFEST)
        except redis.ResponseError:  # what stands there is not even a text
            data = b""
        if not data or len(data) > MAX_MANIFEST:
            what = f"is larger than {MAX_MANIFEST} bytes" if data else "is not there"
            raise ManifestInvalid(problems=[Problem("", "announced", f"the manifest {what}")])
        try:
            document = orjson.loads(data)
        except ValueError:
            document = None
        manifest = from_document(document)
        if digest_of(manifest.document) != digest:
            raise ManifestInvalid(
                problems=[Problem("", "digest", "the manifest is not the one its digest names")]
            )
        return manifest


def _verdict(key: str, instance: Instance) -> str:
    # With its start: in a container that was started anew, the next worker has the same name.
    return f"{key}:verdict:{int(instance.started_at)}"


def _instance(record: bytes | str | None) -> Instance | None:
    """Read one record; what is not a record of ours is nobody."""
    if record is None or len(record) > MAX_RECORD:
        return None
    try:
        document = orjson.loads(record)
    except ValueError:
        return None
    if _RECORD.problems(document):
        return None
    # 3.0 is an integer too in JSON Schema, but not to a database.
    whole = {key: int(document.get(key, 0)) for key in ("slots", "busy", "pid")}
    lists = {key: tuple(document.get(key, ())) for key in ("warnings", "languages")}
    return Instance(**{**document, **whole, **lists})
