"""Jobs keep moving: the real store, Redis, messages and wire, and a worker played by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from deployment import Deployment, a_manifest

from runner import errors, events, payload
from runner.orchestrator.jobs import Job
from runner.orchestrator.repair import Repair
from runner.orchestrator.wire import GROUP, OrchestratorWire, Result
from runner.seal import Seal
from runner.wire import LEASE

pytestmark = pytest.mark.anyio


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


async def test_a_lost_message_is_sent_again(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that vanished from Redis is sent again as the same attempt, and the log says of
    which service; one that waits or is held by a worker is not."""
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
    assert "hand: 1 message was lost or stranded; sending it again" in caplog.messages
    await deployment.repair(looks=3)
    assert len(hand.messages()) == 2
    hand.succeed(held)
    for _ in range(2):
        hand.succeed(hand.start())
    for job in jobs:
        done = await deployment.status(job.id, "succeeded")
        assert done.attempt == 1


async def test_a_redis_that_forgot_everything_loses_no_job(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert "hand: 2 messages were lost or stranded; sending them again" in caplog.messages
    assert hand.succeed(running, {"from": "before"})
    done = await deployment.status(running[0], "succeeded")
    assert done.attempt == 1
    for _ in jobs[1:]:
        await deployment.until(hand.messages)
        hand.succeed(hand.start())
    for job in jobs:
        assert (await deployment.status(job.id, "succeeded")).attempt == 1


async def test_another_secret_loses_no_job(
    deployment: Deployment, redis_url: str, namespace: str, database_url: str
) -> None:
    """An orchestrator that comes back with another WIRE_SECRET sends what waited to those who have
    it too; who still has the old one neither gets it nor keeps it from them."""
    manifest = a_manifest()
    old = await deployment.hand(manifest)
    jobs = [await deployment.submit(manifest) for _ in range(3)]
    first, second, _ = await deployment.message(old, 3)
    await deployment.pause()
    after = Deployment(redis_url, namespace, database_url, seal=Seal("new"))
    await after.open()
    try:
        await after.look()
        assert after.catalog.slots(manifest.digest) == 0
        assert old.start() == first  # it was sealed with the old one, as will be what it says
        old.succeed(first, {"by": "old"})
        new = await after.hand(manifest, name="hand@2")
        await after.repair(looks=3)
        await after.message(new, 3)
        assert old.take() == second
        assert old.claim(second).verdict == "forged"
        for _ in jobs:
            new.succeed(new.start(), {"by": "new"})
        for job in jobs:
            done = await after.status(job.id, "succeeded")
            assert (done.attempt, await after.store.output(job.id)) == (1, {"by": "new"})
    finally:
        await after.close()


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


async def test_who_reads_results_no_more_is_forgotten(deployment: Deployment) -> None:
    """Redis keeps no name of every orchestrator that there ever was, only of the latest."""
    results = deployment.wire.keys.results

    def known() -> list[bytes]:
        found: Any = deployment.redis.xinfo_consumers(results, GROUP)
        return [one["name"] for one in found]

    await deployment.until(lambda: deployment.redis.exists(results))
    deployment.redis.xgroup_createconsumer(results, GROUP, "earlier")
    await deployment.mender.look()
    assert known() == [b"earlier"]
    await Repair(deployment.dispatcher, gone=0).look()
    assert known() == []
