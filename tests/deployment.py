"""An orchestrator's dispatcher on a real store and Redis, and a worker played by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis
import redis.asyncio

from runner import connection, errors, events, wire
from runner.broker import Producer, queue_name
from runner.manifest import Manifest, from_document
from runner.orchestrator.admission import Asked
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.dispatch import Dispatcher
from runner.orchestrator.jobs import Job
from runner.orchestrator.repair import REPAIR, Repair
from runner.orchestrator.store import Store
from runner.orchestrator.terms import Terms
from runner.orchestrator.wire import OrchestratorWire
from runner.registry import Announcer, Instance, Registry
from runner.seal import OPEN, Seal
from runner.wire import WorkerWire


def a_manifest(version: str = "1.0.0", required: str = "n", **limits: Any) -> Manifest:
    """Return a manifest of the service `hand`; versions differ in what their input requires."""
    return from_document(
        {
            "apiVersion": "nlp-runner/v1",
            "name": "hand",
            "version": version,
            "summary": "Is done by hand.",
            "handler": "nobody:imports",
            "input": {
                "type": "object",
                "required": [required],
                "properties": {"n": {"type": "integer"}, required: {"type": "integer"}},
            },
            "output": {"type": "object"},
            "limits": limits,
        }
    )


class Hand:
    """A worker without a process: it says what workers say, when a test tells it to."""

    def __init__(self, deployment: Deployment, manifest: Manifest, slots: int, name: str) -> None:
        self.manifest, self.name = manifest, name
        self._redis = deployment.redis
        seal = deployment.seal
        self._wire = WorkerWire(deployment.redis, deployment.namespace, manifest.digest, seal)
        queue = queue_name(manifest.name, manifest.digest, seal.fingerprint)
        self._queue = f"{deployment.namespace}:{queue}"
        self.announcer = Announcer(
            deployment.redis, deployment.namespace, manifest,
            Instance(name, manifest.name, manifest.version, manifest.digest, "starting", slots,
                     seal=seal.fingerprint),
        )  # fmt: skip

    def messages(self) -> list[tuple[str, int]]:
        """Return (job, attempt) of what waits in the queue, the next first."""
        waiting: Any = self._redis.lrange(self._queue, 0, -1)
        ids = [json.loads(raw)["headers"]["id"].rpartition(".") for raw in reversed(waiting)]
        return [(job, int(attempt)) for job, _, attempt in ids]

    def take(self) -> tuple[str, int]:
        """Take the next message off the queue."""
        message = self.messages()[0]
        assert self._redis.rpop(self._queue)
        return message

    def claim(self, message: tuple[str, int]) -> wire.Claim:
        """Ask for the right to work on a message, and for its input."""
        return self._wire.claim(*message, self.name)

    def start(self, message: tuple[str, int] | None = None) -> tuple[str, int]:
        """Take a message, claim it, and say that its handler runs."""
        job, attempt = message = message or self.take()
        assert self.claim(message).verdict == "go"
        self._wire.publish(
            events.Started(
                job=job, service="hand", attempt=attempt, seq=1, at=time.time(), worker=self.name
            )
        )
        return message

    def succeed(self, message: tuple[str, int], output: Any = None) -> bool:
        """Hand over an output."""
        job, attempt = message
        return self._wire.finish(
            events.Succeeded(
                job=job, service="hand", attempt=attempt, seq=9, at=time.time(),
                output=output or {}, progress={"percent": 100.0, "step": None, "steps": []},
            )
        )  # fmt: skip

    def tell_step(self, message: tuple[str, int], picture: dict[str, Any]) -> None:
        """Say how far the handler is."""
        job, attempt = message
        self._wire.publish(
            events.Progress(
                job=job, service="hand", attempt=attempt, seq=2, at=time.time(),
                step=picture["step"], progress=picture,
            )
        )  # fmt: skip

    def killed(self, message: tuple[str, int]) -> bool:
        """Say that the handler did not listen to a cancel, and its process was ended."""
        job, attempt = message
        error = {**errors.Canceled("Canceled by ada.").to_problem(), "forced": True}
        return self._wire.finish(
            events.for_the_silent(job, "hand", attempt, error, time.time(), events.Canceled)
        )

    def fail(self, message: tuple[str, int], error: errors.RunnerError) -> bool:
        """Say that the handler failed."""
        job, attempt = message
        return self._wire.finish(
            events.Failed(
                job=job, service="hand", attempt=attempt, seq=9, at=time.time(),
                error=error.to_problem(),
            )
        )  # fmt: skip


class Deployment:
    """One orchestrator's dispatcher with all it needs, and a clock that can be put forward."""

    def __init__(
        self, redis_url: str, namespace: str, database_url: str, retention: float | None = None,
        seal: Seal = OPEN,
    ) -> None:  # fmt: skip
        self.namespace, self.seal = namespace, seal
        self.ahead = 0.0
        self.redis = redis.Redis.from_url(redis_url)
        self._redis = connection.connect_async(redis_url, "test")
        self.store = Store(database_url, now=self.now, chance=lambda: 0.5)
        self.catalog = Catalog(Registry(self._redis, namespace), seal.fingerprint)
        self.wire = OrchestratorWire(self._redis, namespace, seal)
        client = connection.connect(redis_url, "test")
        self.producer = Producer(redis_url, namespace, client, seal.fingerprint)
        self.finished: list[Job] = []
        self.dispatcher = Dispatcher(
            self.store, self.wire, self.producer, self.catalog,
            on_finished=self.finished.append, clock=self.now, retention=retention,
        )  # fmt: skip
        self.mender = Repair(self.dispatcher)

    def now(self) -> float:
        """Return the time; a test may have put it forward."""
        return time.time() + self.ahead

    async def open(self) -> None:
        """Connect, and begin."""
        await self.store.open()
        self.resume()

    def resume(self) -> None:
        """Keep jobs moving."""
        self._running = asyncio.create_task(self.dispatcher.run())

    async def pause(self) -> None:
        """Stop that."""
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running

    async def close(self) -> None:
        """Stop as the orchestrator does."""
        await self.pause()
        await self._redis.aclose()
        await asyncio.to_thread(self.producer.close)
        self.redis.close()
        await self.store.close()

    async def hand(self, manifest: Manifest, slots: int = 1, name: str = "hand@1") -> Hand:
        """Let a worker come, ready at once."""
        hand = Hand(self, manifest, slots, name)
        hand.announcer.announce(state="ready")
        await self.look()
        return hand

    async def leave(self, hand: Hand) -> None:
        """Let a worker go."""
        hand.announcer.withdraw()
        await self.look()

    async def look(self) -> None:
        """Look at the registry, as the orchestrator does when it is told of a change."""
        await self.catalog.refresh(self.now())
        self.dispatcher.poke()

    async def submit(self, manifest: Manifest, n: int = 1, **options: Any) -> Job:
        """Submit a job with an input that is right for the manifest."""
        inputs = dict.fromkeys(manifest.input["required"], n)
        terms = Terms(**{"reuse": False, **options})
        return (await self.dispatcher.admission.submit(Asked(manifest, inputs, 10), terms)).job

    async def repair(self, looks: int = 2) -> None:
        """Let so much time go by, as far as the clock says, and look for what got lost."""
        for _ in range(looks):
            self.ahead += REPAIR + 0.1
            await self.mender.look()

    async def until(self, check: Callable[[], Any], within: float = 10.0) -> Any:
        """Wait for something to become true, and return it."""
        async with asyncio.timeout(within):
            while True:
                found = check()
                if isinstance(found, Awaitable):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.01)

    async def status(self, job_id: str, status: str) -> Job:
        """Return a job once it has this status."""

        async def look() -> Job | None:
            job = await self.dispatcher.following.job(job_id)
            return job if job.status == status else None

        job: Job = await self.until(look)
        return job

    async def message(self, hand: Hand, count: int = 1) -> list[tuple[str, int]]:
        """Return the waiting messages once there are so many."""
        await self.until(lambda: len(hand.messages()) == count)
        return hand.messages()

    async def history(self, job_id: str) -> list[tuple[str, str | None, int]]:
        """Return (status, reason, attempt) of every change of a job."""
        changes = await self.store.transitions(job_id)
        return [(change.status, change.reason, change.attempt) for change in changes]
