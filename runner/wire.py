"""How a running job talks through Redis: claim, lease, cancel, progress, result.

Every key stands under one namespace:

- `job:{id}` hash: `attempt`, `input` (compressed JSON), its `seal`, the `sealer`'s
  fingerprint, `traceparent`, `cancel`, `done`, `starts:{attempt}`, `progress`.
- `lease:{id}`: who works on it; expires by itself when the worker stops renewing it.
- `live:{id}` stream: what a person who follows the job sees; capped, with a time to live.
- `results` stream: what changes the job's state, read by the orchestrators as one consumer group
  and acknowledged after their commit.
- `done` channel: ids of jobs that have just finished.

Messages themselves travel through `runner.broker`; the orchestrator's end is in
`runner.orchestrator.wire`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import redis

from runner import events, payload, traceparent
from runner.seal import OPEN, Seal

LEASE = 15
"""Seconds after which a job whose worker fell silent is taken for lost."""

JOB_TTL = 24 * 3600
LIVE_TTL = 3600
LIVE_LENGTH = 1000
MAX_STARTS = 3
"""How often one attempt may be started before it is taken for poison."""


def script(name: str) -> str:
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
        self._claim = client.register_script(script("claim"))
        self._renew = client.register_script(script("renew"))
        self._finish = client.register_script(script("finish"))

    def claim(self, job_id: str, attempt: int, instance: str) -> Claim:
        """Ask to be the only one who works on this attempt, and take its input."""
        keys = [self.keys.job(job_id), self.keys.lease(job_id)]
        verdict, *rest = self._claim(
            keys=keys, args=[attempt, instance, LEASE, MAX_STARTS, self._seal.fingerprint]
        )
        if verdict != b"go":
            return Claim(verdict.decode(), actor=rest[0].decode() if rest else "")
        packed, seal, trace = rest
        if not self._seal.holds(seal, *work(job_id, attempt, self._digest, packed)):
            return Claim("forged")
        trace = traceparent.read(trace.decode("latin-1"))  # not sealed
        return Claim("go", payload.unpack(packed), traceparent=trace)

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


def work(job_id: str, attempt: int, digest: str, packed_input: bytes) -> tuple[bytes, ...]:
    """Return what the seal of an attempt is about."""
    return b"work", job_id.encode(), str(attempt).encode(), digest.encode(), packed_input
