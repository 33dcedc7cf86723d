"""Jobs keep moving: the real store, Redis, messages and wire, and a worker played by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
import redis
import redis.asyncio

from runner import connection, errors, events, payload, wire
from runner.broker import Producer, queue_name
from runner.manifest import Manifest, from_document
from runner.orchestrator.admission import Asked
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.dispatch import Dispatcher
from runner.orchestrator.jobs import Job
from runner.orchestrator.repair import REPAIR, Repair
from runner.orchestrator.store import Store
from runner.orchestrator.terms import Terms
from runner.registry import Announcer, Instance, Registry
from runner.wire import GROUP, LEASE, OrchestratorWire, Result, WorkerWire

pytestmark = pytest.mark.anyio


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
        self._wire = WorkerWire(deployment.redis, deployment.namespace)
        self._queue = f"{deployment.namespace}:{queue_name(manifest.name, manifest.digest)}"
        self.announcer = Announcer(
            deployment.redis, deployment.namespace, manifest,
            Instance(name, manifest.name, manifest.version, manifest.digest, "starting", slots),
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
            events.Canceled(
                job=job, service="hand", attempt=attempt, seq=0, at=time.time(), error=error
            )
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
        self, redis_url: str, namespace: str, database_url: str, retention: float | None = None
    ) -> None:
        self.namespace = namespace
        self.ahead = 0.0
        self.redis = redis.Redis.from_url(redis_url)
        self._redis = connection.connect_async(redis_url, "test")
        self.store = Store(database_url, now=self.now, chance=lambda: 0.5)
        self.catalog = Catalog(Registry(self._redis, namespace))
        self.wire = OrchestratorWire(self._redis, namespace)
        self.producer = Producer(redis_url, namespace, connection.connect(redis_url, "test"))
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


@pytest.fixture
async def deployment(
    redis_url: str, namespace: str, database_url: str
) -> AsyncIterator[Deployment]:
    """Give a dispatcher at work, on SQLite and on PostgreSQL."""
    deployment = Deployment(redis_url, namespace, database_url)
    await deployment.open()
    yield deployment
    await deployment.close()


# --- the window ----------------------------------------------------------------------------------


async def test_redis_holds_a_window_of_the_queue(deployment: Deployment) -> None:
    """However many jobs wait, Redis holds two for each slot and one more, in their order."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest, slots=2)
    jobs = [await deployment.submit(manifest, n) for n in range(14)]
    await deployment.message(hand, 5)
    done = []
    while len(done) < len(jobs):
        await deployment.until(hand.messages)
        message = hand.start()
        assert len(hand.messages()) + 1 <= 5
        hand.succeed(message)
        await deployment.status(message[0], "succeeded")
        done.append(message[0])
    assert done == [job.id for job in jobs]
    assert hand.messages() == []
    assert await deployment.store.unfinished("hand") == 0


async def test_the_urgent_goes_first(deployment: Deployment) -> None:
    """Of what waits in the database the highest priority goes first, whenever it came."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    early = [await deployment.submit(manifest) for _ in range(5)]
    await deployment.message(hand, 3)
    urgent = await deployment.submit(manifest, priority=5)
    order = []
    for _ in range(6):
        await deployment.until(hand.messages)
        message = hand.start()
        hand.succeed(message)
        await deployment.status(message[0], "succeeded")
        order.append(message[0])
    assert order == [*(job.id for job in early[:3]), urgent.id, *(job.id for job in early[3:])]


async def test_a_full_queue_refuses(deployment: Deployment) -> None:
    """Beyond `limits.max_queued` unfinished jobs a submit is refused, until one has finished."""
    manifest = a_manifest(max_queued=3)
    hand = await deployment.hand(manifest)
    jobs = [await deployment.submit(manifest) for _ in range(3)]
    with pytest.raises(errors.QueueFull, match="max_queued") as caught:
        await deployment.submit(manifest)
    assert 1 <= (caught.value.retry_after or 0) <= 300
    await deployment.message(hand, 3)
    hand.fail(hand.start(), errors.TransientFailure("later"))
    await deployment.until(lambda: _delayed(deployment, jobs[0].id))
    with pytest.raises(errors.QueueFull):
        await deployment.submit(manifest)
    await deployment.dispatcher.cancel(jobs[1].id, "ada")

    async def accepted() -> bool:
        try:
            await deployment.submit(manifest)
        except errors.QueueFull:
            return False
        return True

    await deployment.until(accepted)


async def _delayed(deployment: Deployment, job_id: str) -> bool:
    job = await deployment.dispatcher.following.job(job_id)
    return job.status == "queued" and job.attempt == 2


async def test_many_submits_at_once_respect_the_bound(deployment: Deployment) -> None:
    """Twenty callers at the same instant cannot pass a bound of five together."""
    manifest = a_manifest(max_queued=5)
    answers = await asyncio.gather(
        *(deployment.submit(manifest) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, Job) for answer in answers) == 5
    assert sum(isinstance(answer, errors.QueueFull) for answer in answers) == 15


async def test_two_orchestrators_send_a_job_once(
    deployment: Deployment, redis_url: str, namespace: str, database_url: str
) -> None:
    """Dispatchers that share a database do not send the same job twice."""
    other = Deployment(redis_url, namespace, database_url)
    await other.open()
    manifest = a_manifest()
    hand = await deployment.hand(manifest, slots=30)
    await other.look()
    jobs = await asyncio.gather(*((deployment, other)[n % 2].submit(manifest) for n in range(40)))
    messages = await deployment.message(hand, 40)
    assert sorted(job for job, _ in messages) == sorted(job.id for job in jobs)
    # Whichever takes a result in, those who wait at the other one are woken.
    waits = [
        asyncio.create_task(d.dispatcher.following.wait(jobs[0], 10)) for d in (deployment, other)
    ]
    for message in messages:
        hand.succeed(hand.start(message))
    assert {job.status for job, _ in await asyncio.gather(*waits)} == {"succeeded"}
    await deployment.until(lambda: _none_left(deployment))
    assert len(deployment.finished) + len(other.finished) == 40
    await other.close()


async def _none_left(deployment: Deployment) -> bool:
    return await deployment.store.unfinished("hand") == 0


# --- what got lost -------------------------------------------------------------------------------


async def test_a_lost_message_is_sent_again(deployment: Deployment) -> None:
    """A message that vanished from Redis is sent again as the same attempt; one that waits or is
    held by a worker is not."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    jobs = [await deployment.submit(manifest) for _ in range(3)]
    lost, held, waiting = await deployment.message(hand, 3)
    assert hand.take() == lost
    assert hand.claim(hand.take()).verdict == "go"  # its start has not been told yet
    await deployment.repair(looks=1)
    assert hand.messages() == [waiting]
    await deployment.repair(looks=1)
    await deployment.message(hand, 2)
    assert sorted(hand.messages()) == sorted([waiting, lost])
    await deployment.repair(looks=3)
    assert len(hand.messages()) == 2
    hand.succeed(held)
    for _ in range(2):
        hand.succeed(hand.start())
    for job in jobs:
        done = await deployment.status(job.id, "succeeded")
        assert done.attempt == 1


async def test_a_redis_that_forgot_everything_loses_no_job(deployment: Deployment) -> None:
    """After Redis has lost all keys, what waited is sent again and what ran still counts."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    jobs = [await deployment.submit(manifest) for _ in range(4)]
    await deployment.message(hand, 3)
    running = hand.start()
    await deployment.status(running[0], "running")
    for key in deployment.redis.scan_iter(f"{deployment.namespace}:*", count=1000):
        deployment.redis.delete(key)
    hand.announcer.announce()
    await deployment.look()
    hand._wire.renew(*running, hand.name)
    await deployment.repair()
    assert hand.succeed(running, {"from": "before"})
    done = await deployment.status(running[0], "succeeded")
    assert done.attempt == 1
    for _ in jobs[1:]:
        await deployment.until(hand.messages)
        hand.succeed(hand.start())
    for job in jobs:
        assert (await deployment.status(job.id, "succeeded")).attempt == 1


async def test_a_silent_worker_loses_its_job(deployment: Deployment) -> None:
    """A running job without a lease is taken for lost at the second look, and tried again until
    its attempts are used up; the silent worker's late word does not count."""
    manifest = a_manifest(attempts=2)
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    await deployment.message(hand)
    first = hand.start()
    await deployment.status(job.id, "running")
    deployment.ahead += LEASE
    await deployment.repair(looks=2)
    assert (
        await deployment.dispatcher.following.job(job.id)
    ).status == "running"  # it has its lease
    deployment.redis.delete(deployment.wire.keys.lease(job.id))
    await deployment.repair(looks=1)
    assert (await deployment.dispatcher.following.job(job.id)).status == "running"
    await deployment.repair(looks=1)
    assert (await deployment.dispatcher.following.job(job.id)).attempt == 2
    deployment.ahead += 60
    deployment.dispatcher.poke()
    await deployment.message(hand)
    assert not hand.succeed(first)
    second = hand.start()
    assert second == (job.id, 2)
    await deployment.status(job.id, "running")
    deployment.ahead += LEASE
    deployment.redis.delete(deployment.wire.keys.lease(job.id))
    await deployment.repair(looks=2)
    done = await deployment.status(job.id, "failed")
    assert (done.reason, done.attempt) == ("worker_lost", 2)
    hand.succeed(second)
    assert await deployment.history(job.id) == [
        ("queued", None, 1), ("running", None, 1), ("queued", "worker_lost", 2),
        ("running", None, 2), ("failed", "worker_lost", 2),
    ]  # fmt: skip


async def test_results_that_a_dead_orchestrator_read_are_taken_over(
    deployment: Deployment,
) -> None:
    """What another orchestrator read and never committed is heard before the worker is missed."""
    manifest = a_manifest(attempts=1)
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    await deployment.message(hand)
    message = hand.start()
    await deployment.status(job.id, "running")
    results = deployment.wire.keys.results
    await deployment.until(lambda: deployment.redis.xlen(results) == 0)
    await deployment.pause()
    hand.succeed(message)
    deployment.redis.xreadgroup(GROUP, "dead", {results: ">"})
    (pending,) = deployment.redis.xpending_range(results, GROUP, "-", "+", 10)
    deployment.redis.xclaim(results, GROUP, "dead", 0, [pending["message_id"]], idle=20_000)
    deployment.ahead += LEASE
    deployment.resume()
    await deployment.repair()
    assert (await deployment.status(job.id, "succeeded")).attempt == 1
    await deployment.until(lambda: deployment.redis.xlen(results) == 0)


# --- results -------------------------------------------------------------------------------------


class ShortJob(OrchestratorWire):
    """A wire that hears the end of a job just after its start."""

    end: Callable[[], object] | None = None

    async def results(self, consumer: str, *, block: float, count: int = 100) -> list[Result]:
        """Read, and then let the job end."""
        found = await super().results(consumer, block=block, count=count)
        if found and self.end:
            self.end()
            self.end = None
        return found


async def test_a_short_job_costs_one_commit(deployment: Deployment) -> None:
    """A start that comes alone waits a moment for the end that follows it."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    await deployment.message(hand)
    await deployment.pause()
    message, before = hand.start(), deployment.store.commits
    heard = ShortJob(deployment.wire.redis, deployment.wire.keys.namespace)
    heard.end = lambda: hand.succeed(message)
    deployment.dispatcher.wire = heard
    deployment.resume()
    await deployment.status(job.id, "succeeded")
    assert deployment.store.commits == before + 1
    statuses = [one.status for one in await deployment.store.transitions(job.id)]
    assert statuses == ["queued", "running", "succeeded"]


async def test_a_result_counts_once(deployment: Deployment) -> None:
    """A result that is delivered twice, or contradicted later, is taken in once: the first."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    await deployment.message(hand)
    message = hand.start()
    results = deployment.wire.keys.results
    assert hand.succeed(message, {"first": True})
    assert not hand.succeed(message, {"second": True})
    await deployment.status(job.id, "succeeded")
    told = events.Succeeded(
        job=job.id, service="hand", attempt=1, seq=9, at=time.time(), output=None, progress={}
    )
    late = events.Failed(
        job=job.id, service="hand", attempt=1, seq=9, at=time.time(),
        error=errors.WorkerLost().to_problem(),
    )  # fmt: skip
    for event, output in ((told, payload.pack({"third": True})), (late, b"")):
        body = orjson.dumps(event.to_json())
        deployment.redis.xadd(results, {"event": body, "output": output})
    await deployment.until(lambda: deployment.redis.xlen(results) == 0)
    packed = await deployment.store.payload(job.id, "output")
    assert payload.unpack(packed or b"") == {"first": True}
    assert [state for state, _, _ in await deployment.history(job.id)] == [
        "queued", "running", "succeeded",
    ]  # fmt: skip
    assert [one.id for one in deployment.finished] == [job.id]


async def test_garbage_among_results_hurts_nobody(deployment: Deployment) -> None:
    """Entries that no worker of ours writes are dropped, and those around them are taken in."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    other = await deployment.submit(manifest)
    await deployment.message(hand, 2)
    first, second = hand.start(), hand.start()
    deep = b'{"a":' * 1000 + b"1" + b"}" * 1000
    event = {"event": "failed", "job": other.id, "service": "hand", "attempt": 1, "seq": 1, "at": 1}
    garbage: list[dict[str, Any]] = [
        {"nothing": b""},
        {"event": b"\xff\xfe"},
        {"event": b"[" * 2000},
        {"event": orjson.dumps({**event, "error": "no object"})},
        {"event": orjson.dumps({**event, "error": {}})[:-1] + b',"progress":' + deep + b"}"},
        {"event": orjson.dumps({**event, "error": {"code": "x" * 10**6}, "job": "nobody"})},
        {"event": orjson.dumps({**event, "error": {}, "job": "\0"})},
        {"event": orjson.dumps({**event, "error": {}, "attempt": 2**62})},
        {"event": orjson.dumps({**event, "event": "succeeded", "progress": {}, "attempt": -1})},
    ]
    results = deployment.wire.keys.results
    for fields in garbage:
        deployment.redis.xadd(results, fields)
    hand.succeed(first)
    hand.succeed(second)
    await deployment.status(job.id, "succeeded")
    await deployment.until(lambda: deployment.redis.xlen(results) == 0)
    assert deployment.redis.xpending(results, GROUP)["pending"] == 0


async def test_a_passing_failure_is_tried_again(deployment: Deployment) -> None:
    """A transient failure waits a little and is tried again; the last attempt's is the job's."""
    manifest = a_manifest(attempts=3)
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    for attempt in (1, 2, 3):
        await deployment.message(hand)
        message = hand.start()
        assert message == (job.id, attempt)
        hand.fail(message, errors.TransientFailure(f"away {attempt}"))
    done = await deployment.status(job.id, "failed")
    assert (done.reason, done.attempt) == ("transient", 3)
    assert (done.error or {})["detail"] == "away 3"
    assert [state for state, _, _ in await deployment.history(job.id)] == [
        "queued", "running", "queued", "running", "queued", "running", "failed",
    ]  # fmt: skip


# --- cancel --------------------------------------------------------------------------------------


async def test_cancel_between_two_attempts(deployment: Deployment) -> None:
    """A job that waits for its next attempt is canceled at once, and never starts again."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    await deployment.message(hand)
    hand.fail(hand.start(), errors.TransientFailure("away"))
    await deployment.until(lambda: _delayed(deployment, job.id))
    canceled = await deployment.dispatcher.cancel(job.id, "ada")
    assert (canceled.status, canceled.reason) == ("canceled", "canceled_by_user")
    deployment.ahead += 60
    deployment.dispatcher.poke()
    await deployment.repair()
    assert [hand.claim(message).verdict for message in hand.messages()] in ([], ["canceled"])
    assert (await deployment.dispatcher.following.job(job.id)).status == "canceled"


async def test_a_canceled_job_is_not_tried_again(deployment: Deployment) -> None:
    """A failure that would be tried again ends a job whose cancel was already asked for."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    await deployment.message(hand)
    message = hand.start()
    await deployment.status(job.id, "running")
    asked = await deployment.dispatcher.cancel(job.id, "ada")
    assert asked.status == "running"
    assert asked.cancel_requested_at
    wanted, actor = hand._wire.renew(*message, hand.name)
    assert (wanted, actor) == (True, "ada")
    hand.fail(message, errors.TransientFailure("away"))
    assert (await deployment.status(job.id, "canceled")).attempt == 1


async def test_cancel_overtakes_a_message_on_its_way(deployment: Deployment) -> None:
    """A job canceled after it was claimed and before its message is sent is never run."""
    manifest = a_manifest()
    job = await deployment.submit(manifest)
    ((claimed, packed),) = await deployment.store.claim(
        "hand", manifest.digest, 1, deployment.now()
    )
    canceled = await deployment.dispatcher.cancel(job.id, "ada")
    assert canceled.status == "canceled"
    await deployment.wire.load(claimed.id, claimed.attempt, claimed.manifest_digest, packed)
    deployment.producer.send(claimed.id, claimed.attempt, "hand", manifest.digest)
    hand = await deployment.hand(manifest)
    assert hand.claim(hand.take()).verdict == "canceled"


async def test_cancel_needs_no_message(deployment: Deployment) -> None:
    """A job whose message and keys Redis has lost is canceled at once as well."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    await deployment.message(hand)
    hand.take()
    deployment.redis.delete(deployment.wire.keys.job(job.id))
    canceled = await deployment.dispatcher.cancel(job.id, "ada")
    assert canceled.status == "canceled"


async def test_first_end_wins(deployment: Deployment) -> None:
    """Of a cancel and a success that meet, the one that is committed first stays."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest, slots=5)
    for _ in range(5):
        job = await deployment.submit(manifest)
        await deployment.message(hand)
        message = hand.start()
        await deployment.status(job.id, "running")
        cancel = asyncio.create_task(deployment.dispatcher.cancel(job.id, "ada"))
        await asyncio.to_thread(hand.succeed, message)
        (outcome,) = await asyncio.gather(cancel, return_exceptions=True)
        # Who was told that the job is finished was also told that it was not canceled.
        assert isinstance(outcome, errors.JobFinished) or not outcome.finished
        await deployment.status(job.id, "succeeded")
    await deployment.until(lambda: len(deployment.finished) >= 5)
    assert len({job.id for job in deployment.finished}) == len(deployment.finished) == 5


# --- who waits -----------------------------------------------------------------------------------


async def test_those_who_wait_are_woken_at_once(deployment: Deployment) -> None:
    """Everybody who waits for a job hears of its end together, and nobody is kept in mind."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    waits = [asyncio.create_task(deployment.dispatcher.following.wait(job, 20)) for _ in range(20)]
    gone = asyncio.create_task(deployment.dispatcher.following.wait(job, 20))
    await deployment.message(hand)
    message = hand.start()
    gone.cancel()
    hand.succeed(message, {"n": 1})
    began = time.monotonic()
    told = await asyncio.gather(*waits)
    assert {one.status for one, _ in told} == {"succeeded"}
    assert {payload.unpack(output or b"")["n"] for _, output in told} == {1}
    assert len({id(one) for one, _ in told}) == 1  # handed over, and read by nobody
    assert time.monotonic() - began < 2
    late, output = await deployment.dispatcher.following.wait(job, 20)  # its end was told before
    assert (late.status, output) == ("succeeded", None)
    assert time.monotonic() - began < 4
    assert deployment.dispatcher.following.waiters == {}
    with pytest.raises(errors.JobUnknown):
        await deployment.dispatcher.following.wait(replace(job, id="nobody"), 1)
    assert deployment.dispatcher.following.waiters == {}


async def test_those_who_wait_get_the_output_that_counts(deployment: Deployment) -> None:
    """The first one of the attempt that succeeded, whatever else is heard."""
    job = await deployment.submit(a_manifest())
    following = deployment.dispatcher.following
    wait = asyncio.create_task(following.wait(job, 20))
    await deployment.until(lambda: following.waiters)
    said = [(1, b"of a lost attempt"), (2, b"first"), (2, b"again")]
    following.hand_over(
        Result(
            b"", events.Succeeded(
                job=job.id, service="hand", attempt=attempt, seq=2, at=time.time(), output=None,
                progress={},
            ), output,
        ) for attempt, output in said
    )  # fmt: skip
    ended = replace(job, status="succeeded", attempt=2)
    following.wake(job.id, ended)
    assert await wait == (ended, b"first")


# --- manifests that come and go ------------------------------------------------------------------


@pytest.mark.parametrize("sent", [False, True])
async def test_a_job_follows_its_service_to_a_newer_manifest(
    deployment: Deployment, sent: bool
) -> None:
    """A job whose manifest nobody serves any more goes to a compatible one that is served, sent
    to a queue already or not."""
    old, new = a_manifest("1.0.0"), a_manifest("1.1.0")
    hand = await deployment.hand(old)
    if sent:
        jobs = [await deployment.submit(old) for _ in range(5)]
        await deployment.message(hand, 3)
        await deployment.leave(hand)
    else:
        await deployment.leave(hand)
        jobs = [await deployment.submit(old) for _ in range(5)]
    newer = await deployment.hand(new, name="hand@2")
    if sent:
        await deployment.repair()
    assert hand.messages() == []
    for _ in jobs:
        await deployment.until(newer.messages)
        newer.succeed(newer.start())
    for job in jobs:
        done = await deployment.status(job.id, "succeeded")
        assert (done.manifest_digest, done.service_version) == (new.digest, "1.1.0")
        assert done.attempt == 1


@pytest.mark.parametrize(("version", "required"), [("1.1.0", "other"), ("2.0.0", "n")])
async def test_a_job_waits_for_its_own_manifest(
    deployment: Deployment, version: str, required: str
) -> None:
    """A job that a newer manifest would not take, or must not, waits for a worker of its own."""
    old, new = a_manifest("1.0.0"), a_manifest(version, required)
    hand = await deployment.hand(old)
    sent = await deployment.submit(old)
    await deployment.message(hand)
    await deployment.leave(hand)
    waiting = await deployment.submit(old)
    newer = await deployment.hand(new, name="hand@2")
    await deployment.repair(looks=3)
    assert newer.messages() == []
    hand = await deployment.hand(old)
    for _ in range(2):
        await deployment.until(hand.messages)
        hand.succeed(hand.start())
    for job in (sent, waiting):
        done = await deployment.status(job.id, "succeeded")
        assert done.manifest_digest == old.digest


async def test_a_job_that_waits_too_long_expires(deployment: Deployment) -> None:
    """Past `limits.queue_timeout` a job that has not started fails as `expired`, sent or not."""
    manifest = a_manifest(queue_timeout="60s")
    hand = await deployment.hand(manifest)
    running, sent = [await deployment.submit(manifest) for _ in range(2)]
    await deployment.message(hand, 2)
    first = hand.start()
    await deployment.status(running.id, "running")
    late = hand.take()
    await deployment.leave(hand)
    waiting = await deployment.submit(manifest)
    deployment.ahead += 61
    hand._wire.renew(*first, hand.name)
    await deployment.mender.look()
    for job in (sent, waiting):
        done = await deployment.status(job.id, "failed")
        assert done.reason == "expired"
        assert "`limits.queue_timeout`" in (done.error or {})["detail"]
    assert hand.claim(late).verdict != "go"
    hand.succeed(first)
    assert (await deployment.status(running.id, "succeeded")).attempt == 1


async def test_a_job_that_starts_at_the_last_moment_runs(deployment: Deployment) -> None:
    """A job that a worker has just claimed does not expire, though its start was not heard yet."""
    manifest = a_manifest(queue_timeout="60s")
    hand = await deployment.hand(manifest)
    job = await deployment.submit(manifest)
    await deployment.message(hand)
    message = hand.take()
    assert hand.claim(message).verdict == "go"
    deployment.ahead += 61
    await deployment.mender.look()
    hand.succeed(message)
    assert (await deployment.status(job.id, "succeeded")).attempt == 1
