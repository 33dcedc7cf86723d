"""The orchestrator's end of the wire: it lays inputs out, takes results in, and tells stories."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import redis
import redis.asyncio

from runner import events, payload
from runner.seal import OPEN, Seal
from runner.wire import JOB_TTL, LIVE_LENGTH, LIVE_TTL, Keys, script, work

log = logging.getLogger(__name__)

TOLD_TTL = 900  # after a job's end, or what a busy hour told would not fit into a small Redis
GROUP = "orchestrators"
"""The consumer group of the results stream."""

Ids = Iterable[str]
Stories = Iterable[tuple[str, str, Any]]
"""(job, event name, data) each."""


@dataclass(frozen=True, slots=True)
class Result:
    """One entry of the results stream: an event, and the packed output where it has one."""

    entry: bytes
    event: events.Event | None
    output: bytes | None


class OrchestratorWire:
    """The orchestrator's end of the wire, for its event loop.

    `on_dropped` hears why a result was dropped: `unsealed` or `unreadable`.
    """

    def __init__(
        self, client: redis.asyncio.Redis, namespace: str, seal: Seal = OPEN,
        on_dropped: Callable[[str], None] = lambda reason: None,
    ) -> None:  # fmt: skip
        self.redis, self._seal, self._on_dropped = client, seal, on_dropped
        self.keys = Keys(namespace)
        self._cancel = client.register_script(script("cancel"))
        self._dismiss = client.register_script(script("dismiss"))

    async def load(
        self, job_id: str, attempt: int, digest: str, packed_input: bytes, trace: str = ""
    ) -> None:
        """Lay an attempt's input where a worker of this manifest will find it, and its trace."""
        key = self.keys.job(job_id)
        sealed = self._seal.of(*work(job_id, attempt, digest, packed_input))
        pipe = self.redis.pipeline(transaction=True)
        pipe.hset(key, mapping={"attempt": attempt, "input": packed_input, "seal": sealed,
                                "sealer": self._seal.fingerprint,
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
            self._on_dropped("unsealed")
            log.error(
                "a result without our seal was dropped%s; is WIRE_SECRET the same everywhere?",
                _claimed(_event(body)),
            )
            return Result(entry, None, None)
        event = _event(body)
        if event is None:
            self._on_dropped("unreadable")
        return Result(entry, event, output if event and output else None)

    async def acknowledge(self, entries: list[bytes]) -> None:
        """Say that these results are committed; they leave the stream."""
        if not entries:
            return
        pipe = self.redis.pipeline(transaction=True)
        pipe.xack(self.keys.results, GROUP, *entries)
        pipe.xdel(self.keys.results, *entries)
        await pipe.execute()

    async def dismiss(self, *, idle: float, consumer: str = "") -> None:
        """Take those off the group, or only one, who hold no result and were silent so long (s)."""
        await self._dismiss(keys=[self.keys.results], args=[GROUP, int(idle * 1000), consumer])

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
        key, last, wait = self.keys.live(job_id), after, int(block * 1000)
        while True:
            entries = _entries(await self.redis.xread({key: last}, count=100, block=wait))
            for entry, fields in entries:
                last = entry.decode()
                event = payload.read_object(fields.get(b"event", b""))
                if "event" in event:
                    yield last, event
            if not entries:
                yield None


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return [entry for _, entries in answer or () for entry in entries]


def _claimed(event: events.Event | None) -> str:
    """Say whose an event says it is; whoever wrote it may have written anything, at any length."""
    if event is None:
        return ""
    worker = f", worker {event.worker:.200}" if isinstance(event, events.Started) else ""
    whose = f"job {event.job:.64}, service {event.service:.64}, attempt {event.attempt}"
    return f"; it says it is of {whose}{worker}"


def _event(body: bytes) -> events.Event | None:
    """Read the event of an entry; what is none of ours is None, and is only acknowledged."""
    document = payload.read_object(body)
    if document.get("event") == events.Succeeded.kind:
        document["output"] = None
    try:
        event = events.from_json(document)
    except ValueError:
        return None
    # No database takes a NUL.
    return None if "\0" in event.job + getattr(event, "worker", "") else event
