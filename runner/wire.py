"""How a running job talks through Redis: claim, lease, cancel, progress, result.

Every key stands under one namespace:

- `job:{id}` hash: `attempt`, `input` (compressed JSON), its `seal`, `traceparent`, `cancel`,
  `done`, `starts:{attempt}`, `progress`.
- `lease:{id}`: who works on it; expires by itself when the worker stops renewing it.
- `live:{id}` stream: what a person who follows the job sees; capped, with a time to live.
- `results` stream: what changes the job's state, read by the orchestrators as one consumer group
  and acknowledged after their commit.
- `done` channel: ids of jobs that have just finished.

Messages themselves travel through `runner.broker`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import orjson
import redis
import redis.asyncio

from runner import events, payload, traceparent
from runner.seal import OPEN, Seal

log = logging.getLogger(__name__)

LEASE = 15
"""Seconds after which a job whose worker fell silent is taken for lost."""

JOB_TTL = 24 * 3600
LIVE_TTL = 3600
TOLD_TTL = 900  # after a job's end, or what a busy hour told would not fit into a small Redis
LIVE_LENGTH = 1000
MAX_STARTS = 3
"""How often one attempt may be started before it is taken for poison."""

GROUP = "orchestrators"

Ids = Iterable[str]
Stories = Iterable[tuple[str, str, Any]]
"""(job, event name, data) each."""


def _lua(name: str) -> str:
    """Return a script that Redis runs in one piece."""
    return resources.files("runner").joinpath("lua", f"{name}.lua").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of a deployment's Redis keys."""

    namespace: str

    def job(self, job_id: str) -> str:
        return f"{self.namespace}:job:{job_id}"

    def lease(self, job_id: str) -> str:
        return f"{self.namespace}:lease:{job_id}"

    def live(self, job_id: str) -> str:
        return f"{self.namespace}:live:{job_id}"

    @property
    def results(self) -> str:
        return f"{self.namespace}:results"

    @property
    def done(self) -> str:
        return f"{self.namespace}:done"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker that holds a message is told: go, drop, canceled, poisoned, or forged."""

    verdict: str
    input: Any = None
    actor: str = ""
    traceparent: str | None = None


class WorkerWire:
    """The worker's end of the wire; every call blocks for at most a few seconds."""

    def __init__(
        self, client: redis.Redis, namespace: str, digest: str = "", seal: Seal = OPEN
    ) -> None:
        self._redis, self._digest, self._seal = client, digest, seal
        self.keys = Keys(namespace)
        self._claim = client.register_script(_lua("claim"))
        self._renew = client.register_script(_lua("renew"))
        self._finish = client.register_script(_lua("finish"))

    def claim(self, job_id: str, attempt: int, instance: str) -> Claim:
        """Ask to be the only one who works on this attempt, and take its input."""
        keys = [self.keys.job(job_id), self.keys.lease(job_id)]
        verdict, *rest = self._claim(keys=keys, args=[attempt, instance, LEASE, MAX_STARTS])
        match verdict:
            case b"go":
                if not self._seal.holds(rest[1], *_work(job_id, attempt, self._digest, rest[0])):
                    return Claim("forged")
                trace = traceparent.read(rest[2].decode("latin-1"))  # not sealed
                return Claim("go", payload.unpack(rest[0]), traceparent=trace)
            case b"canceled":
                return Claim("canceled", actor=rest[0].decode())
        return Claim(verdict.decode())

    def renew(self, job_id: str, attempt: int, instance: str) -> tuple[bool, str | None]:
        """Keep the lease; return whether this attempt is still wanted, and who canceled it."""
        keys = [self.keys.job(job_id), self.keys.lease(job_id)]
        wanted, *rest = self._renew(keys=keys, args=[attempt, instance, LEASE])
        return bool(wanted), rest[0].decode() if rest and rest[0] else None

    def publish(self, event: events.Event) -> None:
        """Tell those who follow the job; a start also goes to the orchestrators."""
        body = payload.write(event.to_json())
        live, job = self.keys.live(event.job), self.keys.job(event.job)
        pipe = self._redis.pipeline(transaction=False)
        if isinstance(event, events.Started):
            sealed = self._seal.of(b"result", body, b"")
            pipe.xadd(self.keys.results, {"event": body, "output": b"", "seal": sealed})
        if isinstance(event, events.Step | events.Progress):
            pipe.hset(job, "progress", payload.write(event.progress))
            pipe.expire(job, JOB_TTL)  # a worker that came too late must not leave a key for ever
        pipe.xadd(live, {"event": body}, maxlen=LIVE_LENGTH, approximate=True)
        pipe.expire(live, LIVE_TTL)
        pipe.execute()

    def finish(self, event: events.Event) -> bool:
        """Hand over how the attempt ended, once; False if it is no longer this one's to say."""
        document = event.to_json()
        output = document.pop("output", None)
        packed = payload.pack(output) if isinstance(event, events.Succeeded) else b""
        keys = [self.keys.job(event.job), self.keys.lease(event.job), self.keys.results]
        body = payload.write(document)
        sealed = self._seal.of(b"result", body, packed)
        return bool(self._finish(keys=keys, args=[event.attempt, body, packed, JOB_TTL, sealed]))


@dataclass(frozen=True, slots=True)
class Result:
    """One entry of the results stream: an event, and the packed output where it has one."""

    entry: bytes
    event: events.Event | None
    output: bytes | None


class OrchestratorWire:
    """The orchestrator's end of the wire, for its event loop."""

    def __init__(self, client: redis.asyncio.Redis, namespace: str, seal: Seal = OPEN) -> None:
        self.redis, self._seal = client, seal
        self.keys = Keys(namespace)
        self._cancel = client.register_script(_lua("cancel"))

    async def load(
        self, job_id: str, attempt: int, digest: str, packed_input: bytes, trace: str = ""
    ) -> None:
        """Lay an attempt's input where a worker of this manifest will find it, and its trace."""
        key = self.keys.job(job_id)
        sealed = self._seal.of(*_work(job_id, attempt, digest, packed_input))
        pipe = self.redis.pipeline(transaction=True)
        pipe.hset(key, mapping={"attempt": attempt, "input": packed_input, "seal": sealed,
                                "traceparent": trace})  # fmt: skip
        pipe.hdel(key, "done", "progress")
        pipe.expire(key, JOB_TTL)
        await pipe.execute()

    async def cancel(self, job_id: str, actor: str) -> str:
        """Ask for an end: `revoked` if no worker can start the job any more, or `requested`."""
        keys = [self.keys.job(job_id), self.keys.lease(job_id)]
        return str((await self._cancel(keys=keys, args=[actor, JOB_TTL])).decode())

    async def bar(self, job_ids: Ids) -> None:
        """Keep jobs that ended before their start from a message that is still on its way."""
        pipe = self.redis.pipeline(transaction=True)
        for key in map(self.keys.job, job_ids):
            pipe.hdel(key, "input")
            pipe.hsetnx(key, "cancel", "its end")
            pipe.expire(key, LIVE_TTL)
        await pipe.execute()

    async def erase(self, job_id: str) -> None:
        """Remove everything about a job; a worker that holds it stops at its next checkpoint."""
        key = self.keys.job(job_id)
        pipe = self.redis.pipeline(transaction=True)
        pipe.hdel(key, "input", "seal", "progress", "traceparent")
        pipe.hset(key, "cancel", "erasure")
        pipe.expire(key, LIVE_TTL)
        pipe.unlink(self.keys.live(job_id))
        await pipe.execute()

    async def clear(self, job_ids: Ids) -> None:
        """Remove all that is left of jobs that have long finished."""
        keys = [key for job in job_ids for key in (self.keys.job(job), self.keys.live(job))]
        if keys:
            await self.redis.unlink(*keys)

    async def leased(self, job_ids: list[str]) -> list[bool]:
        """Say for each job whether a worker holds it now."""
        if not job_ids:
            return []
        values = await self.redis.mget([self.keys.lease(job) for job in job_ids])
        return [value is not None for value in values]

    async def progress(self, job_id: str) -> dict[str, Any] | None:
        """Return the latest picture of a running job's progress, if it has told one."""
        raw = await self.redis.hget(self.keys.job(job_id), "progress")
        return orjson.loads(raw) if raw else None

    # --- results ---------------------------------------------------------------------------------

    async def open_results(self) -> None:
        """Make the consumer group, from the stream's beginning; harmless when it is there."""
        try:
            await self.redis.xgroup_create(self.keys.results, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def results(self, consumer: str, *, block: float, count: int = 100) -> list[Result]:
        """Wait up to `block` seconds for new results; each stays pending until acknowledged."""
        answer = await self.redis.xreadgroup(
            GROUP, consumer, {self.keys.results: ">"}, count=count, block=int(block * 1000)
        )
        return [self._result(*entry) for entry in _entries(answer)]

    async def abandoned(self, consumer: str, *, idle: float) -> list[Result]:
        """Take over results that another orchestrator read and left for `idle` seconds."""
        try:
            answer = await self.redis.xautoclaim(
                self.keys.results, GROUP, consumer, min_idle_time=int(idle * 1000), count=100
            )
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            return []
        return [self._result(*entry) for entry in answer[1] if entry[1]]

    def _result(self, entry: bytes, fields: dict[bytes, bytes]) -> Result:
        body, output = fields.get(b"event", b""), fields.get(b"output", b"")
        if not self._seal.holds(fields.get(b"seal"), b"result", body, output):
            log.error("a result without our seal was dropped; is WIRE_SECRET the same everywhere?")
            return Result(entry, None, None)
        return _result(entry, body, output)

    async def acknowledge(self, entries: list[bytes]) -> None:
        """Say that these results are committed; they leave the stream."""
        if not entries:
            return
        pipe = self.redis.pipeline(transaction=True)
        pipe.xack(self.keys.results, GROUP, *entries)
        pipe.xdel(self.keys.results, *entries)
        await pipe.execute()

    # --- those who follow a job ------------------------------------------------------------------

    async def tell(self, stories: Stories, done: Ids = (), over: Ids = ()) -> None:
        """Append to live streams, and wake who waits for `done` jobs.

        Those that are `over` leave the conveyor; what people follow stays for its time to live.
        """
        pipe = self.redis.pipeline(transaction=False)
        for job_id, name, data in stories:
            live = self.keys.live(job_id)
            body = payload.write({"event": name, "data": data})
            pipe.xadd(live, {"event": body}, maxlen=LIVE_LENGTH, approximate=True)
            pipe.expire(live, TOLD_TTL if name == "completed" else LIVE_TTL)
        for job_id in done:
            pipe.publish(self.keys.done, job_id)
        for job_id in over:
            pipe.unlink(self.keys.job(job_id), self.keys.lease(job_id))
        await pipe.execute()

    async def follow(
        self, job_id: str, after: str, *, block: float
    ) -> AsyncIterator[tuple[str, dict[str, Any]] | None]:
        """Yield (entry id, event) from a live stream, and None whenever `block` seconds pass."""
        key, last = self.keys.live(job_id), after
        while True:
            answer = await self.redis.xread({key: last}, count=100, block=int(block * 1000))
            entries = _entries(answer)
            for entry, fields in entries:
                last = entry.decode()
                event = payload.read_object(fields.get(b"event", b""))
                if "event" in event:
                    yield last, event
            if not entries:
                yield None


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return [entry for _, entries in answer or () for entry in entries]


def _work(job_id: str, attempt: int, digest: str, packed_input: bytes) -> tuple[bytes, ...]:
    """Return what the seal of an attempt is about."""
    return b"work", job_id.encode(), str(attempt).encode(), digest.encode(), packed_input


def _result(entry: bytes, body: bytes, output: bytes) -> Result:
    """Read one entry; what is not an event of ours has none, and is only acknowledged."""
    document = payload.read_object(body)
    if document.get("event") == events.Succeeded.kind:
        document["output"] = None
    try:
        event = events.from_json(document)
    except ValueError:
        return Result(entry, None, None)
    if "\0" in event.job or "\0" in getattr(event, "worker", ""):  # no database takes that
        return Result(entry, None, None)
    return Result(entry, event, output or None)
