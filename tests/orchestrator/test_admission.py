"""What is let in, how it is answered for, and which clock ends it, on a real store and Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from deployment import Deployment, Hand, a_manifest

from runner import errors
from runner.manifest import Manifest, from_document
from runner.orchestrator.admission import Asked
from runner.orchestrator.deadlines import Deadlines
from runner.orchestrator.intake import Taken
from runner.orchestrator.jobs import Job
from runner.orchestrator.resource import job_resource
from runner.orchestrator.retention import Retention
from runner.orchestrator.terms import Terms

pytestmark = pytest.mark.anyio


async def ask(deployment: Deployment, manifest: Manifest, n: int = 1, **terms: Any) -> Taken:
    """Submit a job under these terms; an equal input may be answered."""
    asked = Asked(manifest, {"n": n}, 10)
    return await deployment.dispatcher.admission.submit(asked, Terms(**terms))


async def done(deployment: Deployment, hand: Hand, output: Any = None) -> Job:
    """Let the worker do the next job, and return it."""
    await deployment.until(hand.messages)
    message = hand.start()
    hand.succeed(message, output)
    return await deployment.status(message[0], "succeeded")


async def spent(deployment: Deployment, hand: Hand, manifest: Manifest, seconds: float) -> None:
    """Let it be known that a job of this service takes so many seconds."""
    job = (await ask(deployment, manifest, 0, reuse=False)).job
    await deployment.until(hand.messages)
    message = hand.start()
    await deployment.status(job.id, "running")
    hand.succeed(message)
    await deployment.status(job.id, "succeeded")
    deployment.dispatcher.following._seconds[manifest.name] = seconds


# --- deadlines -----------------------------------------------------------------------------------


async def test_a_job_that_waits_past_its_deadline_fails(deployment: Deployment) -> None:
    """A job that no worker has begun at its deadline fails, and the error names the clock."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    await deployment.leave(hand)
    job = (await ask(deployment, manifest, deadline=30.0)).job
    look = Deadlines(deployment.dispatcher).look
    deployment.ahead += 29
    await look()
    assert (await deployment.dispatcher.following.job(job.id)).status == "queued"
    deployment.ahead += 2
    await look()
    ended = await deployment.status(job.id, "failed")
    error = ended.error or {}
    assert ended.reason == "deadline_exceeded"
    assert (error["clock"], error["seconds"], error["set_by"]) == ("deadline", 30, "request")
    assert "`Cancel-After` of its request" in error["detail"]
    assert error["waited_seconds"] > 29
    assert error["ran_seconds"] == 0


async def test_a_job_that_runs_past_its_deadline_is_stopped(deployment: Deployment) -> None:
    """A running job fails at its deadline, its worker is told, a late result changes nothing."""
    manifest = a_manifest(deadline="40s")
    hand = await deployment.hand(manifest)
    job = (await ask(deployment, manifest, deadline=60.0)).job
    await deployment.message(hand)
    message = hand.start()
    await deployment.status(job.id, "running")
    deployment.ahead += 41
    await Deadlines(deployment.dispatcher).look()
    ended = await deployment.status(job.id, "failed")
    error = ended.error or {}
    assert (ended.reason, error["set_by"], error["seconds"]) == (
        "deadline_exceeded",
        "manifest",
        40,
    )
    assert "`limits.deadline` of the manifest" in error["detail"]
    assert error["ran_seconds"] > 39
    wanted, actor = hand._wire.renew(*message, hand.name)
    assert (wanted, bool(actor)) == (True, True)
    hand.succeed(message)
    results = deployment.wire.keys.results
    await deployment.until(lambda: deployment.redis.xlen(results) == 0)
    assert await deployment.dispatcher.following.job(job.id) == ended
    assert await deployment.store.payload(job.id, "output") is None


async def test_no_attempt_begins_past_the_deadline(deployment: Deployment) -> None:
    """A failure that may pass ends the job when the next attempt would come after the deadline."""
    manifest = a_manifest(attempts=5)
    hand = await deployment.hand(manifest)
    job = (await ask(deployment, manifest, deadline=0.4)).job  # the backoff is half a second
    await deployment.message(hand)
    hand.fail(hand.start(), errors.TransientFailure("away"))
    ended = await deployment.status(job.id, "failed")
    assert (ended.reason, ended.attempt) == ("transient", 1)


async def test_a_deadline_out_of_reach_is_refused(deployment: Deployment) -> None:
    """Before anything is kept, a deadline that the measured rate cannot keep is refused."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    await ask(deployment, manifest, 1, deadline=5.0)  # nothing is known yet, so nothing is refused
    await done(deployment, hand)
    await spent(deployment, hand, manifest, 10.0)
    for n in range(3):
        await ask(deployment, manifest, n, reuse=False)
    with pytest.raises(errors.DeadlineUnreachable, match="Cancel-After") as caught:
        await ask(deployment, manifest, 9, deadline=30.0, reuse=False)
    assert caught.value.status == 422
    assert caught.value.extensions["position"] == 3
    assert caught.value.extensions["eta_seconds"] == pytest.approx(35, abs=1)
    assert await deployment.store.unfinished("hand") == 3
    assert (await ask(deployment, manifest, 9, deadline=60.0, reuse=False)).job.deadline_at
    # The urgent one stands before them.
    taken = await ask(deployment, manifest, 9, deadline=20.0, priority=9, reuse=False)
    assert taken.job.status == "queued"
    many = [Asked(manifest, {"n": n}, 10) for n in range(10)]
    with pytest.raises(errors.DeadlineUnreachable):  # the last of many counts
        await deployment.dispatcher.admission.submit_many(many, Terms(deadline=60.0, priority=9))


async def test_the_estimate_follows_the_queue(deployment: Deployment) -> None:
    """Position counts who waits before, and the estimate what runs and waits, over all slots."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest, slots=2)
    await spent(deployment, hand, manifest, 10.0)
    jobs = [(await ask(deployment, manifest, n, reuse=False)).job for n in range(6)]
    await deployment.message(hand, 5)
    for _ in range(2):
        message = hand.start()
        await deployment.status(message[0], "running")
    told = [await deployment.dispatcher.following.resource(job) for job in jobs]
    looks = [(await deployment.dispatcher.following.outlook(job)) for job in jobs[2:]]
    assert [position for position, _ in looks] == [0, 1, 2, 3]
    assert [eta for _, eta in looks] == pytest.approx([12.5, 17.5, 22.5, 27.5], abs=0.5)
    assert told[2]["position"] == 0
    together = await deployment.dispatcher.following.resources(jobs[2:])
    assert [one["position"] for one in together] == [0, 1, 2, 3]
    assert [one["eta_seconds"] for one in together] == pytest.approx([12.5, 17.5, 22.5, 27.5])


async def test_the_rate_is_known_after_a_restart(
    deployment: Deployment, redis_url: str, namespace: str, database_url: str
) -> None:
    """Another orchestrator estimates by what the database remembers."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    assert await deployment.dispatcher.following.mean_seconds("hand") is None
    await ask(deployment, manifest)
    await done(deployment, hand)
    other = Deployment(redis_url, namespace, database_url)
    await other.open()
    assert await other.dispatcher.following.mean_seconds("hand") == pytest.approx(0, abs=5)
    await other.close()


# --- results that answer again -------------------------------------------------------------------


async def test_an_equal_input_is_not_worked_on_twice(deployment: Deployment) -> None:
    """The second job of the same content has ended when it is kept, counts nowhere, and is told."""
    manifest = a_manifest(max_queued=1)
    hand = await deployment.hand(manifest)
    first = (await ask(deployment, manifest)).job
    await done(deployment, hand, {"n": 1})
    again = [(await ask(deployment, manifest)).job for _ in range(3)]
    assert {(job.status, job.reused_from) for job in again} == {("succeeded", first.id)}
    assert [job.id for job in deployment.finished][-3:] == [job.id for job in again]
    story = [name async for _, name, _ in deployment.dispatcher.following.follow(again[0], "0")]
    assert story == ["status", "completed"]
    assert hand.messages() == []
    # Nothing of it takes room in the queue.
    assert (await ask(deployment, manifest, 2)).job.status == "queued"


async def test_workers_started_anew_work_anew(deployment: Deployment) -> None:
    """A result that older workers gave answers nobody, for the new ones may have other models."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    await ask(deployment, manifest)
    await done(deployment, hand)
    hand.announcer.announce(started_at=deployment.now() + 1)
    await deployment.look()
    assert (await ask(deployment, manifest)).job.status == "queued"


async def test_a_manifest_may_say_no(deployment: Deployment) -> None:
    """A service whose equal inputs have different results is never answered from what is kept."""
    manifest = from_document({**a_manifest().document, "reuse": False})
    hand = await deployment.hand(manifest)
    await ask(deployment, manifest)
    await done(deployment, hand)
    assert (await ask(deployment, manifest)).job.status == "queued"


async def test_who_does_not_lend(deployment: Deployment) -> None:
    """`no-store` keeps a result from answering others; `max-age` refuses one that is too old."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    await ask(deployment, manifest, reuse=False, lend=False)
    await done(deployment, hand)
    lent = (await ask(deployment, manifest)).job
    assert lent.status == "queued"
    await done(deployment, hand)
    deployment.ahead += 100
    assert (await ask(deployment, manifest, max_age=50.0)).job.status == "queued"
    assert (await ask(deployment, manifest, max_age=200.0)).job.reused_from == lent.id


# --- cancel receipts -----------------------------------------------------------------------------


async def test_a_killed_job_says_where_it_was(deployment: Deployment) -> None:
    """Of a job that did not listen, the receipt says who asked, where it was, and its end."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    job = (await ask(deployment, manifest)).job
    await deployment.message(hand)
    message = hand.start()
    await deployment.status(job.id, "running")
    steps = [
        {"name": "read", "title": "Read", "status": "succeeded"},
        {"name": "tag", "title": "Tag", "status": "running"},
        {"name": "write", "title": "Write", "status": "pending"},
    ]
    hand.tell_step(message, {"percent": 40.0, "step": "tag", "steps": steps})
    asked = await deployment.dispatcher.cancel(job.id, "ada")
    receipt = job_resource(asked)["cancel"]
    assert (receipt["by"], receipt["ended"]) == ("ada", None)
    hand.killed(message)
    resource = job_resource(await deployment.status(job.id, "canceled"))
    assert resource["cancel"] == {
        "requested_at": receipt["requested_at"], "by": "ada", "step": "tag", "ended": "killed",
    }  # fmt: skip
    states = [step["status"] for step in resource["progress"]["steps"]]
    assert states == ["succeeded", "canceled", "skipped"]


async def test_how_a_cancel_ended(deployment: Deployment) -> None:
    """A receipt tells apart: never begun, attempt lost meanwhile, and too late."""
    manifest = a_manifest()
    hand = await deployment.hand(manifest, slots=3)
    lost, late = [(await ask(deployment, manifest, n)).job for n in (1, 2)]
    await deployment.message(hand, 2)
    messages = {message[0]: message for message in (hand.start(), hand.start())}
    for job in (lost, late):
        await deployment.status(job.id, "running")
        await deployment.dispatcher.cancel(job.id, "ada")
    hand.fail(messages[lost.id], errors.WorkerLost("died"))
    hand.succeed(messages[late.id])
    await deployment.leave(hand)
    waiting = (await ask(deployment, manifest, 3)).job
    await deployment.dispatcher.cancel(waiting.id, "bob")
    ends = {}
    for job, status in ((lost, "canceled"), (late, "succeeded"), (waiting, "canceled")):
        ended = await deployment.status(job.id, status)
        ends[job.id] = job_resource(ended)["cancel"]["ended"]
    assert ends == {lost.id: "attempt_lost", late.id: "too_late", waiting.id: "before_start"}


# --- retention -----------------------------------------------------------------------------------


async def test_what_is_over_leaves_nothing_anywhere(
    redis_url: str, namespace: str, database_url: str
) -> None:
    """When its time is over a job is gone from the database and from Redis, in small batches."""
    deployment = Deployment(redis_url, namespace, database_url, retention=60.0)
    await deployment.open()
    manifest = a_manifest()
    hand = await deployment.hand(manifest)
    jobs = []
    for n in range(5):
        jobs.append((await ask(deployment, manifest, n)).job)
        await done(deployment, hand)
    expiry = (await deployment.dispatcher.following.job(jobs[-1].id)).expires_at or 0
    assert expiry == pytest.approx(deployment.now() + 60, abs=5)
    retention = Retention(deployment.dispatcher, batch=2)
    await retention.look()
    assert len(await deployment.store.list(limit=9)) == 5
    deployment.ahead += 61
    await asyncio.wait_for(retention.look(), 10)
    assert await deployment.store.list(limit=9) == []
    left = [key for job in jobs for key in deployment.redis.keys(f"{namespace}:*{job.id}*")]
    assert left == []
    await deployment.close()
