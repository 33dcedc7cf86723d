"""What `runner.wire` promises: one worker an attempt, one end an attempt, and no result lost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import redis
import redis.asyncio

from runner import connection, events, wire
from runner.errors import Canceled, HandlerFailed
from runner.orchestrator.wire import GROUP, TOLD_TTL, OrchestratorWire, Result
from runner.payload import pack, unpack
from runner.seal import Seal
from runner.wire import Claim, WorkerWire

pytestmark = pytest.mark.anyio

JOB = "0190-job"


@pytest.fixture
def worker(raw: redis.Redis, namespace: str) -> WorkerWire:
    """Give the worker's end."""
    return WorkerWire(raw, namespace)


@pytest.fixture
async def orchestrator(redis_url: str, namespace: str) -> AsyncIterator[OrchestratorWire]:
    """Give the orchestrator's end, with its consumer group."""
    client = connection.connect_async(redis_url, "test-orchestrator")
    end = OrchestratorWire(client, namespace)
    await end.open_results()
    yield end
    await client.aclose()


@pytest.fixture
async def loaded(orchestrator: OrchestratorWire) -> OrchestratorWire:
    """Give the orchestrator's end, with the first attempt of a job laid ready."""
    await orchestrator.load(JOB, 1, "", pack({"text": "é"}))
    return orchestrator


def said(kind: type[events.Event], *, attempt: int = 1, **fields: Any) -> Any:
    """Return an event of the job."""
    return kind(job=JOB, service="echo", attempt=attempt, seq=1, at=time.time(), **fields)


def succeeded(output: Any, attempt: int = 1) -> events.Succeeded:
    return said(events.Succeeded, attempt=attempt, output=output, progress={"percent": 100.0})


def failed(words: str, attempt: int = 1) -> events.Failed:
    return said(events.Failed, attempt=attempt, error=HandlerFailed(words).to_problem())


async def results(end: OrchestratorWire, consumer: str = "a") -> list[Result]:
    """Return what is new in the results stream now."""
    return await end.results(consumer, block=0.02)


# --- claim ---------------------------------------------------------------------------------------


async def test_a_claim_brings_the_input(loaded: OrchestratorWire, worker: WorkerWire) -> None:
    """The worker that claims an attempt may go and has the input as it was submitted."""
    claim = worker.claim(JOB, 1, "w1")
    assert (claim.verdict, claim.input) == ("go", {"text": "é"})
    assert await loaded.leased([JOB, "another"]) == [True, False]


async def test_nobody_claims_what_is_claimed(loaded: OrchestratorWire, worker: WorkerWire) -> None:
    """A message that comes a second time, to whomever, is dropped while the first is at work."""
    assert worker.claim(JOB, 1, "w1").verdict == "go"
    assert worker.claim(JOB, 1, "w2").verdict == "drop"
    assert worker.claim(JOB, 1, "w1").verdict == "drop"


async def test_a_lease_runs_out_by_itself(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """A worker that falls silent holds its job for `LEASE` seconds at most; then another may."""
    worker.claim(JOB, 1, "w1")
    assert 0 < raw.ttl(worker.keys.lease(JOB)) <= wire.LEASE
    raw.expireat(worker.keys.lease(JOB), 1)  # long ago
    assert worker.claim(JOB, 1, "w2").verdict == "go"


async def test_an_older_attempts_lease_blocks_nobody(
    loaded: OrchestratorWire, worker: WorkerWire
) -> None:
    """The next attempt starts at once, even if the one before has not noticed its end."""
    worker.claim(JOB, 1, "w1")
    await loaded.load(JOB, 11, "", pack({}))
    assert worker.claim(JOB, 11, "w2").verdict == "go"
    await loaded.load(JOB, 1, "", pack({}))  # "1" is the beginning of "11", and yet another attempt
    assert worker.claim(JOB, 1, "w3").verdict == "go"


@pytest.mark.parametrize("attempt", [0, 2, 10])
async def test_a_message_of_another_attempt_is_dropped(
    loaded: OrchestratorWire, worker: WorkerWire, attempt: int
) -> None:
    """Only the attempt that the orchestrator laid ready is run."""
    assert worker.claim(JOB, attempt, "w1").verdict == "drop"


async def test_a_job_that_nobody_knows_is_dropped(worker: WorkerWire) -> None:
    """A message whose job has long been forgotten does nothing."""
    assert worker.claim("gone", 1, "w1").verdict == "drop"


async def test_an_attempt_that_keeps_killing_is_poison(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """After `MAX_STARTS` starts without an end an attempt is not started again."""
    for _ in range(wire.MAX_STARTS):
        assert worker.claim(JOB, 1, "w1").verdict == "go"
        raw.delete(worker.keys.lease(JOB))  # its worker died
    assert worker.claim(JOB, 1, "w1").verdict == "poisoned"
    await loaded.load(JOB, 2, "", pack({}))
    assert worker.claim(JOB, 2, "w1").verdict == "go"


# --- lease and fence -----------------------------------------------------------------------------


async def test_a_lease_is_renewed_while_the_attempt_is_wanted(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """Renewing winds the lease up again."""
    worker.claim(JOB, 1, "w1")
    raw.expire(worker.keys.lease(JOB), 1)
    assert worker.renew(JOB, 1, "w1") == (True, None)
    assert raw.ttl(worker.keys.lease(JOB)) > 1


async def test_an_attempt_that_was_overtaken_learns_it(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """An attempt that is not the job's any more is not wanted, and takes no lease from it."""
    worker.claim(JOB, 1, "w1")
    await loaded.load(JOB, 2, "", pack({}))
    worker.claim(JOB, 2, "w2")
    assert worker.renew(JOB, 1, "w1") == (False, None)
    assert raw.get(worker.keys.lease(JOB)) == b"2:w2"


async def test_a_redis_that_lost_its_memory_stops_nobody(
    worker: WorkerWire, orchestrator: OrchestratorWire
) -> None:
    """Work that is under way goes on and its end is told: the database will decide."""
    assert worker.renew(JOB, 1, "w1") == (True, None)
    assert worker.finish(succeeded({"text": "a"}))
    (result,) = await results(orchestrator)
    assert isinstance(result.event, events.Succeeded)


async def test_an_attempt_ends_once(loaded: OrchestratorWire, worker: WorkerWire) -> None:
    """The first end counts, whatever else is said; nothing of the input stays behind."""
    worker.claim(JOB, 1, "w1")
    assert worker.finish(succeeded({"text": "a"}))
    assert not worker.finish(failed("too late"))
    assert worker.renew(JOB, 1, "w1") == (False, None)
    assert worker.claim(JOB, 1, "w2").verdict == "drop"
    assert await loaded.leased([JOB]) == [False]
    assert await loaded.redis.hget(worker.keys.job(JOB), "input") is None
    (result,) = await results(loaded)
    assert isinstance(result.event, events.Succeeded)
    assert unpack(result.output or b"") == {"text": "a"}


async def test_an_overtaken_attempt_cannot_end_the_job(
    loaded: OrchestratorWire, worker: WorkerWire
) -> None:
    """What a late worker says about an older attempt reaches no database."""
    await loaded.load(JOB, 2, "", pack({}))
    assert not worker.finish(succeeded({"text": "late"}, attempt=1))
    assert await results(loaded) == []
    assert worker.finish(succeeded({"text": "right"}, attempt=2))


async def test_an_attempt_after_an_ended_one_runs(
    loaded: OrchestratorWire, worker: WorkerWire
) -> None:
    """A job that is tried again starts afresh, with its input and without the old progress."""
    worker.claim(JOB, 1, "w1")
    worker.publish(said(events.Progress, step="run", progress={"percent": 50.0}))
    worker.finish(failed("once"))
    await loaded.load(JOB, 2, "", pack({"text": "again"}))
    assert await loaded.progress(JOB) is None
    assert worker.claim(JOB, 2, "w1").input == {"text": "again"}


# --- cancel and erase ----------------------------------------------------------------------------


async def test_a_job_that_nobody_started_is_revoked(
    loaded: OrchestratorWire, worker: WorkerWire
) -> None:
    """Its message is still on the way, and whoever gets it is told who canceled."""
    assert await loaded.cancel(JOB, "Ada") == "revoked"
    claim = worker.claim(JOB, 1, "w1")
    assert (claim.verdict, claim.actor) == ("canceled", "Ada")
    assert await loaded.leased([JOB]) == [False]


async def test_a_running_job_is_asked_to_stop(loaded: OrchestratorWire, worker: WorkerWire) -> None:
    """The worker hears at its next look who canceled; the first who did stays named."""
    worker.claim(JOB, 1, "w1")
    assert await loaded.cancel(JOB, "Ada") == "requested"
    assert await loaded.cancel(JOB, "Charles") == "requested"
    assert worker.renew(JOB, 1, "w1") == (True, "Ada")
    assert worker.finish(said(events.Canceled, error=Canceled("Stopped.").to_problem()))
    (result,) = await results(loaded)
    assert isinstance(result.event, events.Canceled)


async def test_a_job_that_has_ended_cannot_be_revoked(
    loaded: OrchestratorWire, worker: WorkerWire
) -> None:
    """Its end is on the way to the database, which decides."""
    worker.claim(JOB, 1, "w1")
    worker.finish(succeeded({"text": "a"}))
    assert await loaded.cancel(JOB, "Ada") == "requested"


async def test_a_cancel_comes_before_the_job_it_meets_on_the_way(
    orchestrator: OrchestratorWire, worker: WorkerWire
) -> None:
    """A job that is laid ready just after its cancel is canceled all the same."""
    assert await orchestrator.cancel(JOB, "Ada") == "revoked"
    await orchestrator.load(JOB, 1, "", pack({}))
    assert worker.claim(JOB, 1, "w1").verdict == "canceled"


async def test_erasing_leaves_nothing_to_read(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """Input, progress and story are gone, a worker that holds the job is told to stop."""
    worker.claim(JOB, 1, "w1")
    worker.publish(said(events.Log, level="info", message="secret"))
    worker.publish(said(events.Step, step="run", status="running", progress={"percent": 1.0}))
    await loaded.erase(JOB)
    assert raw.hkeys(worker.keys.job(JOB)) == [b"attempt", b"sealer", b"starts:1", b"cancel"]
    assert raw.exists(worker.keys.live(JOB)) == 0
    assert worker.renew(JOB, 1, "w1") == (True, "erasure")
    assert 0 < raw.ttl(worker.keys.job(JOB)) <= wire.LIVE_TTL


async def test_forgetting_takes_finished_jobs_off_the_conveyor(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """Job and lease go at once; what people follow stays for its time to live."""
    worker.claim(JOB, 1, "w1")
    worker.publish(said(events.Log, level="info", message="hello"))
    await loaded.tell([], over=[JOB])
    await loaded.tell([])
    keys = worker.keys
    assert [raw.exists(k) for k in (keys.job(JOB), keys.lease(JOB), keys.live(JOB))] == [0, 0, 1]


async def test_no_key_lives_for_ever(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis, namespace: str
) -> None:
    """Whatever a job leaves in Redis expires, even what a worker says after the job's end."""
    worker.claim(JOB, 1, "w1")
    for _ in range(2):
        worker.publish(said(events.Started, worker="w1"))
        worker.publish(said(events.Progress, step="run", progress={"percent": 1.0}))
        worker.publish(said(events.Log, level="info", message="hello"))
        await loaded.cancel(JOB, "Ada")
        await loaded.tell([], over=[JOB])  # the second round is that of a worker that came too late
    worker.renew(JOB, 1, "w1")
    await loaded.tell([(JOB, "status", {})])
    worker.finish(succeeded({}))
    keys = [key for key in raw.scan_iter(f"{namespace}:*") if not key.endswith(b":results")]
    assert keys
    assert [key for key in keys if raw.ttl(key) < 0] == []


# --- results -------------------------------------------------------------------------------------


async def test_results_leave_the_stream_when_they_are_acknowledged(
    orchestrator: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """Starts and ends come in their order; after the commit nothing of them is left."""
    worker.publish(said(events.Started, worker="w1"))
    worker.publish(said(events.Log, level="info", message="not for the database"))
    worker.finish(succeeded({"text": "a"}))
    found = await results(orchestrator)
    assert [result.event and result.event.kind for result in found] == ["started", "succeeded"]
    await orchestrator.acknowledge([result.entry for result in found])
    await orchestrator.acknowledge([])
    assert raw.xlen(worker.keys.results) == 0
    assert raw.xpending(worker.keys.results, GROUP)["pending"] == 0
    assert await results(orchestrator) == []


async def test_results_of_a_dead_orchestrator_are_taken_over(
    orchestrator: OrchestratorWire, worker: WorkerWire
) -> None:
    """What one orchestrator read and never acknowledged comes to another, once."""
    worker.finish(succeeded({"text": "a"}))
    (read,) = await results(orchestrator, "dead")
    assert await results(orchestrator, "alive") == []
    assert await orchestrator.abandoned("alive", idle=60) == []
    (taken,) = await orchestrator.abandoned("alive", idle=0)
    assert taken == read
    await orchestrator.acknowledge([taken.entry])
    assert await orchestrator.abandoned("alive", idle=0) == []


def consumers(raw: redis.Redis, end: OrchestratorWire) -> dict[str, int]:
    """Return who Redis knows to read the results, and how many each holds."""
    found: Any = raw.xinfo_consumers(end.keys.results, GROUP)
    return {one["name"].decode(): one["pending"] for one in found}


async def test_who_holds_no_result_is_forgotten(
    orchestrator: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """A reader that is gone leaves no trace, unless it holds a result: that one is not lost."""
    for name in ("left", "silent", "holding"):
        raw.xadd(worker.keys.results, {"a": "result"})
        (result,) = await results(orchestrator, name)
        if name != "holding":
            await orchestrator.acknowledge([result.entry])
    await orchestrator.dismiss(idle=60)
    assert consumers(raw, orchestrator) == {"left": 0, "silent": 0, "holding": 1}
    await orchestrator.dismiss(idle=0, consumer="holding")
    await orchestrator.dismiss(idle=0, consumer="left")
    assert consumers(raw, orchestrator) == {"silent": 0, "holding": 1}
    await orchestrator.dismiss(idle=0)
    assert consumers(raw, orchestrator) == {"holding": 1}
    assert await orchestrator.abandoned("alive", idle=0) == [result]


async def test_who_is_forgotten_and_comes_back_loses_nothing(
    orchestrator: OrchestratorWire, worker: WorkerWire, raw: redis.Redis, until: Any
) -> None:
    """A reader that was forgotten while it waited gets the next result all the same."""
    raw.xadd(worker.keys.results, {"a": "result"})
    await orchestrator.acknowledge([one.entry for one in await results(orchestrator, "a")])
    waiting = asyncio.create_task(orchestrator.results("a", block=5))

    def waits() -> bool:
        clients: Any = raw.client_list()
        return any(one["name"] == "test-orchestrator" and "b" in one["flags"] for one in clients)

    await asyncio.to_thread(until, waits)
    await orchestrator.dismiss(idle=0)
    assert consumers(raw, orchestrator) == {}
    worker.finish(succeeded({"text": "late"}))
    assert len(await waiting) == 1
    assert consumers(raw, orchestrator) == {"a": 1}


async def test_there_may_be_nobody_to_forget(
    orchestrator: OrchestratorWire, raw: redis.Redis
) -> None:
    """A Redis that has lost the group, or all its memory, is no error."""
    raw.xgroup_destroy(orchestrator.keys.results, GROUP)
    await orchestrator.dismiss(idle=0)
    raw.delete(orchestrator.keys.results)
    await orchestrator.dismiss(idle=0)


async def test_results_from_before_the_first_orchestrator_are_not_lost(
    redis_url: str, namespace: str, worker: WorkerWire
) -> None:
    """Workers may finish before any orchestrator has made the group, or while it is away."""
    worker.finish(succeeded({"text": "early"}))
    client = connection.connect_async(redis_url, "test-late")
    end = OrchestratorWire(client, namespace)
    await end.open_results()
    await end.open_results()
    assert len(await results(end)) == 1
    await client.aclose()


HOSTILE = [
    b"", b"nonsense", b"\xff\xfe", b"null", b"[]", b'"succeeded"', b"NaN", b"[" * 5000,
    b'{"event": "succeeded"}', b'{"event": ["succeeded"]}', b'{"event": "pwned", "job": "a"}',
    b'{"event": "failed", "job": 1, "service": "a", "attempt": 1, "seq": 1, "at": 0, "error": {}}',
    b'{"event": "failed", "job": "a", "service": "a", "attempt": 1, "seq": 1, "at": 0, "error": 1}',
    b'{"event": "failed", "job": "a\\u0000", "service": "a", "attempt": 1, "seq": 1, "at": 0, '
    b'"error": {}}',
    b'{"event": "started", "job": "a", "service": "a", "attempt": 1, "seq": 1, "at": 0, '
    b'"worker": "a\\u0000"}',
    b'{"event": "started", "job": "a", "service": "a", "attempt": 1, "seq": 1, "at": 0, "x": 1}',
]  # fmt: skip


async def test_hostile_results_are_passed_over(
    orchestrator: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """Garbage has no event and can be acknowledged; the honest result behind it arrives."""
    for body in HOSTILE:
        raw.xadd(worker.keys.results, {"event": body, "output": b"x"})
    raw.xadd(worker.keys.results, {"something": "else"})
    worker.finish(succeeded({"text": "honest"}))
    found = await results(orchestrator)
    assert [result.event is None for result in found] == [True] * (len(HOSTILE) + 1) + [False]
    assert all(result.output is None for result in found[:-1])
    await orchestrator.acknowledge([result.entry for result in found])
    assert raw.xlen(worker.keys.results) == 0


async def test_half_a_character_does_not_lose_an_end(
    orchestrator: OrchestratorWire, worker: WorkerWire
) -> None:
    """An error whose words are not Unicode, as file names can be, still ends its job."""
    worker.publish(said(events.Log, level="info", message="a \udce9"))
    assert worker.finish(failed("cannot open caf\udce9.txt"))
    (result,) = await results(orchestrator)
    assert isinstance(result.event, events.Failed)
    assert result.event.error["detail"] == "cannot open caf?.txt"


# --- those who follow ----------------------------------------------------------------------------


async def story(end: OrchestratorWire, after: str = "0") -> list[tuple[str, dict[str, Any]]]:
    """Return what a follower gets until nothing more comes."""
    told: list[tuple[str, dict[str, Any]]] = []
    async for entry in end.follow(JOB, after, block=0.02):
        if entry is None:
            return told
        told.append(entry)
    raise AssertionError("a follower is told when there is nothing new")


async def test_the_story_of_an_ended_job_goes_sooner(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """What an hour of jobs told must not fill Redis: a story stays for minutes after its end."""
    worker.publish(said(events.Started, worker="w1"))
    assert raw.ttl(worker.keys.live(JOB)) > TOLD_TTL
    await loaded.tell([(JOB, "completed", {"status": "succeeded"})])
    assert 0 < raw.ttl(worker.keys.live(JOB)) <= TOLD_TTL


async def test_a_follower_hears_everything_in_order(
    loaded: OrchestratorWire, worker: WorkerWire
) -> None:
    """Workers' events and the orchestrators' stories are one stream."""
    worker.publish(said(events.Started, worker="w1"))
    worker.publish(said(events.Progress, step="run", progress={"percent": 50.0}))
    await loaded.tell([(JOB, "completed", {"status": "succeeded"})])
    told = [event for _, event in await story(loaded)]
    assert [event["event"] for event in told] == ["started", "progress", "completed"]
    assert told[2]["data"] == {"status": "succeeded"}
    assert await loaded.progress(JOB) == {"percent": 50.0}


async def test_a_follower_goes_on_where_the_line_broke(
    loaded: OrchestratorWire, worker: WorkerWire
) -> None:
    """With the id of the last event it got, a follower misses none and hears none twice."""
    for number in range(3):
        worker.publish(said(events.Log, level="info", message=str(number)))
    told = await story(loaded)
    again = await story(loaded, after=told[0][0])
    assert [event["message"] for _, event in again] == ["1", "2"]
    assert await story(loaded, after=told[-1][0]) == []


async def test_a_follower_passes_over_garbage(
    loaded: OrchestratorWire, worker: WorkerWire, raw: redis.Redis
) -> None:
    """What is not an event in a live stream breaks nobody's line."""
    for body in (*HOSTILE[:8], b"{}"):
        raw.xadd(worker.keys.live(JOB), {"event": body})
    raw.xadd(worker.keys.live(JOB), {"no": "event"})
    worker.publish(said(events.Log, level="info", message="honest"))
    assert [event["message"] for _, event in await story(loaded)] == ["honest"]


async def test_a_story_is_bounded(loaded: OrchestratorWire, raw: redis.Redis) -> None:
    """A job that talks without end fills no memory: the newest events stay."""
    stories = [(JOB, "log", {"number": number}) for number in range(3 * wire.LIVE_LENGTH)]
    await loaded.tell(stories)
    assert raw.xlen(loaded.keys.live(JOB)) < 1.2 * wire.LIVE_LENGTH
    (_, body), *_ = raw.xrevrange(loaded.keys.live(JOB), count=1)
    assert orjson.loads(body[b"event"])["data"] == {"number": 3 * wire.LIVE_LENGTH - 1}


async def test_the_end_of_a_job_wakes_who_waits(loaded: OrchestratorWire) -> None:
    """The id of a job that is done is told on a channel, to every orchestrator."""
    async with loaded.redis.pubsub() as channel:
        await channel.subscribe(loaded.keys.done)
        await channel.get_message(timeout=5)
        await loaded.tell([], done=[JOB])
        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
    assert message is not None
    assert message["data"] == JOB.encode()


# --- connections ---------------------------------------------------------------------------------


def test_deployments_on_one_redis_do_not_meet(raw: redis.Redis, namespace: str) -> None:
    """Every key stands under the namespace."""
    keys = wire.Keys(namespace)
    names = [keys.job(JOB), keys.lease(JOB), keys.live(JOB), keys.results, keys.done]
    assert all(name.startswith(f"{namespace}:") for name in names)
    assert len(set(names)) == len(names)


def test_payloads_travel_small_and_come_back_whole() -> None:
    """What is packed is compressed, and unpacked it is the same."""
    value = {"documents": ["Ein Satz über Käse. " * 500], "numbers": [1, 2.5, None, True]}
    assert unpack(pack(value)) == value
    assert len(pack(value)) < 500


# --- seals ---------------------------------------------------------------------------------------


@pytest.fixture
async def sealing(redis_url: str, namespace: str) -> AsyncIterator[OrchestratorWire]:
    """Give an orchestrator's end that seals."""
    client = connection.connect_async(redis_url, "test-orchestrator")
    end = OrchestratorWire(client, namespace, Seal("s3cret"))
    await end.open_results()
    yield end
    await client.aclose()


async def test_sealed_work_is_run(
    sealing: OrchestratorWire, raw: redis.Redis, namespace: str
) -> None:
    """With one secret on both sides a job and its result pass as they do without."""
    worker = WorkerWire(raw, namespace, "d1", Seal("s3cret"))
    await sealing.load(JOB, 1, "d1", pack({"n": 1}))
    assert worker.claim(JOB, 1, "w1").input == {"n": 1}
    worker.finish(succeeded({"n": 2}))
    [result] = await sealing.results("c1", block=0.1)
    assert result.event is not None
    assert result.event.kind == "succeeded"
    assert unpack(result.output or b"") == {"n": 2}


@pytest.mark.parametrize("change", [{"input": pack({"n": 6})}, {"seal": b""}, {"seal": b"0" * 64}])
async def test_work_without_its_seal_is_not_run(
    sealing: OrchestratorWire, raw: redis.Redis, namespace: str, change: dict[str, bytes]
) -> None:
    """An input that somebody changed or laid into Redis is told from ours."""
    worker = WorkerWire(raw, namespace, "d1", Seal("s3cret"))
    await sealing.load(JOB, 1, "d1", pack({"n": 1}))
    raw.hset(worker.keys.job(JOB), mapping=change)
    assert worker.claim(JOB, 1, "w1") == Claim("forged")


async def test_a_seal_is_for_one_attempt_of_one_manifest(
    sealing: OrchestratorWire, raw: redis.Redis, namespace: str
) -> None:
    """A seal cannot be carried over to another attempt or another service."""
    await sealing.load(JOB, 1, "d1", pack({"n": 1}))
    key = sealing.keys.job(JOB)
    assert WorkerWire(raw, namespace, "d2", Seal("s3cret")).claim(JOB, 1, "w") == Claim("forged")
    raw.hset(key, "attempt", 2)
    assert WorkerWire(raw, namespace, "d1", Seal("s3cret")).claim(JOB, 2, "w") == Claim("forged")


async def test_a_trace_goes_along(
    sealing: OrchestratorWire, raw: redis.Redis, namespace: str
) -> None:
    """A worker is told the trace of its attempt, unless what stands there is no valid one."""
    worker = WorkerWire(raw, namespace, "d1", Seal("s3cret"))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await sealing.load(JOB, 1, "d1", pack({}), trace)
    assert worker.claim(JOB, 1, "w1").traceparent == trace
    await sealing.load(JOB, 2, "d1", pack({}), trace)
    raw.hset(sealing.keys.job(JOB), "traceparent", b"\xff\x1b[2J forged")
    assert worker.claim(JOB, 2, "w1") == Claim("go", {})


async def test_a_forged_result_is_dropped(
    sealing: OrchestratorWire, raw: redis.Redis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What claims to be a result and has not our seal is acknowledged and nothing else."""
    dropped: list[str] = []
    sealing._on_dropped = dropped.append
    WorkerWire(raw, namespace, "d1", Seal("other")).publish(said(events.Started, worker="w" * 999))
    raw.xadd(sealing.keys.results, {"event": b"{}", "output": b"", "seal": b"\xff"})
    results = await sealing.results("c1", block=0.1)
    assert [result.event for result in results] == [None, None]
    assert dropped == ["unsealed", "unsealed"]
    told, untold = caplog.messages
    assert f"it says it is of job {JOB}, service echo, attempt 1, worker {'w' * 200};" in told
    assert untold == "a result without our seal was dropped; is WIRE_SECRET the same everywhere?"
    assert "s3cret" not in caplog.text


async def test_who_has_another_seal_keeps_the_job_from_nobody(
    sealing: OrchestratorWire, raw: redis.Redis, namespace: str
) -> None:
    """It gets neither the input nor the lease, and counts as no start."""
    await sealing.load(JOB, 1, "d1", pack({"text": "x"}))
    for seal in (Seal("other"), Seal(None)):
        assert WorkerWire(raw, namespace, "d1", seal).claim(JOB, 1, "w1") == Claim("forged")
    assert not raw.exists(sealing.keys.lease(JOB))
    assert b"starts:1" not in raw.hkeys(sealing.keys.job(JOB))
    worker = WorkerWire(raw, namespace, "d1", Seal("s3cret"))
    assert worker.claim(JOB, 1, "w2") == Claim("go", {"text": "x"})


def test_a_fingerprint_tells_secrets_apart_and_says_none() -> None:
    """The same secret has the same one, another has another, and no secret has none."""
    ours = Seal("s3cret").fingerprint
    assert re.fullmatch("[0-9a-f]{16}", ours)
    assert ours == Seal("s3cret").fingerprint != Seal("other").fingerprint
    assert Seal(None).fingerprint == Seal("").fingerprint == ""


def test_no_two_lists_of_parts_have_one_seal() -> None:
    """Moving a byte from one part to the next breaks the seal, and so does leaving one out."""
    seal = Seal("s3cret")
    seals = {seal.of(b"ab", b"c"), seal.of(b"a", b"bc"), seal.of(b"abc"), seal.of(b"ab", b"c", b"")}
    assert len(seals) == 4
    assert Seal(None).holds(None, b"anything")
    assert not seal.holds(None, b"anything")
