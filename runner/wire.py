"""How a running job talks through Redis: claim, lease, cancel, progress, result.

Every key stands under one namespace:

- `job:{id}` hash: `attempt`, `input` (compressed JSON), `cancel`, `done`, `starts:{attempt}`,
  `progress`.
- `lease:{id}`: who works on it; expires by itself when the worker stops renewing it.
- `live:{id}` stream: what a person who follows the job sees; capped, with a time to live.
- `results` stream: what changes the job's state, read by the orchestrators as one consumer group
  and acknowledged after their commit.
- `done` channel: ids of jobs that have just finished.

Messages themselves travel through `runner.broker`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import orjson
import redis
import redis.asyncio

from runner import events, payload

LEASE = 15
"""Seconds after which a job whose worker fell silent is taken for lost."""

JOB_TTL = 24 * 3600
LIVE_TTL = 3600
LIVE_LENGTH = 1000
MAX_STARTS = 3
"""How often one attempt may be started before it is taken for poison."""

GROUP = "orchestrators"


# The mark is left even where there is no job yet: whoever lays it there later must find it.


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
    """What Redis says to a worker that holds a message: go, drop, canceled or poisoned."""

    verdict: str
    input: Any = None
    actor: str = ""


class WorkerWire:
    """The worker's end of the wire; every call blocks for at most a few seconds."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._redis = client
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
                return Claim("go", input=payload.unpack(rest[0]))
            case b"canceled":
                return Claim("canceled", actor=rest[0].decode())
        return Claim(verdict.decode())

    def renew(self, job_id: str, attempt: int, instance: str) -> tuple[bool, str | None]:
        """Keep the lease; return whether this attempt is still wanted, and who canceled it."""
        keys = [self.keys.job(job_id), self.keys.lease(job_id)]
        wanted, *rest = self._renew(keys=keys, args=[attempt, instance, LEASE])
        actor = rest[0].decode() if rest and rest[0] else None
        return bool(wanted), actor

    def publish(self, event: events.Event) -> None:
        """Tell those who follow the job; a start also goes to the orchestrators."""
        body = payload.write(event.to_json())
        live, job = self.keys.live(event.job), self.keys.job(event.job)
        pipe = self._redis.pipeline(transaction=False)
        if isinstance(event, events.Started):
            pipe.xadd(self.keys.results, {"event": body, "output": b""})
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
        args: list[int | bytes] = [event.attempt, payload.write(document), packed, JOB_TTL]
        return bool(self._finish(keys=keys, args=args))


@dataclass(frozen=True, slots=True)
class Result:
    """One entry of the results stream: an event, and the packed output where it has one."""

    entry: bytes
    event: events.Event | None
    output: bytes | None


class OrchestratorWire:
    """The orchestrator's end of the wire, for its event loop."""

    def __init__(self, client: redis.asyncio.Redis, namespace: str) -> None:
        self.redis = client
        self.keys = Keys(namespace)
        self._cancel = client.register_script(_lua("cancel"))

    async def load(self, job_id: str, attempt: int, packed_input: bytes) -> None:
        """Lay the input of an attempt where its worker will find it."""
        key = self.keys.job(job_id)
        pipe = self.redis.pipeline(transaction=True)
        pipe.hset(key, mapping={"attempt": attempt, "input": packed_input})
        pipe.hdel(key, "done", "progress")
        pipe.expire(key, JOB_TTL)
        await pipe.execute()

    async def cancel(self, job_id: str, actor: str) -> str:
        """Ask for an end: `revoked` if no worker can start the job any more, or `requested`."""
        keys = [self.keys.job(job_id), self.keys.lease(job_id)]
        return str((await self._cancel(keys=keys, args=[actor, JOB_TTL])).decode())

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Take finished jobs off the conveyor; what people follow stays for its time to live."""
        keys = [key for job in job_ids for key in (self.keys.job(job), self.keys.lease(job))]
        if keys:
            await self.redis.unlink(*keys)

    async def bar(self, job_ids: Iterable[str]) -> None:
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
        pipe.hdel(key, "input", "progress")
        pipe.hset(key, "cancel", "erasure")
        pipe.expire(key, LIVE_TTL)
        pipe.unlink(self.keys.live(job_id))
        await pipe.execute()

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
        return [_result(*entry) for entry in _entries(answer)]

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
        return [_result(*entry) for entry in answer[1] if entry[1]]

    async def acknowledge(self, entries: list[bytes]) -> None:
        """Say that these results are committed; they leave the stream."""
        if not entries:
            return
        pipe = self.redis.pipeline(transaction=True)
        pipe.xack(self.keys.results, GROUP, *entries)
        pipe.xdel(self.keys.results, *entries)
        await pipe.execute()

    # --- those who follow a job ------------------------------------------------------------------

    async def tell(self, stories: Iterable[tuple[str, str, Any]], done: Iterable[str]) -> None:
        """Append (job, event name, data) to live streams, and wake who waits for `done` jobs."""
        pipe = self.redis.pipeline(transaction=False)
        for job_id, name, data in stories:
            live = self.keys.live(job_id)
            body = payload.write({"event": name, "data": data})
            pipe.xadd(live, {"event": body}, maxlen=LIVE_LENGTH, approximate=True)
            pipe.expire(live, LIVE_TTL)
        for job_id in done:
            pipe.publish(self.keys.done, job_id)
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


def connect(url: str, name: str, *, timeout: float = 10) -> redis.Redis:
    """Return a blocking client that gives up on a silent server after `timeout` seconds."""
    return redis.Redis.from_url(url, **_options(name, timeout))


def connect_async(url: str, name: str, *, timeout: float = 10) -> redis.asyncio.Redis:
    """Return a client for the event loop; blocking reads must ask for less than `timeout`."""
    return redis.asyncio.Redis.from_url(url, **_options(name, timeout))


def _options(name: str, timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "client_name": name,
        "protocol": 2,
    }


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return [entry for _, entries in answer or () for entry in entries]


def _result(entry: bytes, fields: dict[bytes, bytes]) -> Result:
    """Read one entry; what is not an event of ours has none, and is only acknowledged."""
    document = payload.read_object(fields.get(b"event", b""))
    if document.get("event") == events.Succeeded.kind:
        document["output"] = None
    try:
        event = events.from_json(document)
    except ValueError:
        return Result(entry, None, None)
    if "\0" in event.job or "\0" in getattr(event, "worker", ""):  # no database takes that
        return Result(entry, None, None)
    return Result(entry, event, fields.get(b"output") or None)
