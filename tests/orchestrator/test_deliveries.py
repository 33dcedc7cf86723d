"""Who asked to be told of a job is told, whatever breaks, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import fields
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from receiver import Receiver, drip, endless, hang, status
from specimens import Clock, a_job, failed, said, started, succeeded
from standardwebhooks import Webhook as Reference

from runner import errors, events, signature
from runner.egress import Egress
from runner.orchestrator.changes import ingest
from runner.orchestrator.deliveries import COLUMNS, LARGEST, Delivery, Webhook
from runner.orchestrator.jobs import COMPOSITE, Job
from runner.orchestrator.resource import job_resource
from runner.orchestrator.session import Session
from runner.orchestrator.store import Store
from runner.orchestrator.webhooks import DELAYS, LEASE, LONGEST_DELAY, Deliverer
from runner.payload import pack
from runner.targets import Allowed

pytestmark = pytest.mark.anyio

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DAY = 24 * 3600


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands at the present."""
    return Clock(time.time())


@pytest.fixture
async def store(database_url: str, clock: Clock) -> AsyncIterator[Store]:
    """Give an open store."""
    store = Store(database_url, now=clock)
    await store.open()
    yield store
    await store.close()


def deliverer(
    store: Store, clock: Clock, *, deadline: float = 5.0, chance: float = 0.5,
    heard: Callable[[str], None] = lambda outcome: None,
) -> Deliverer:  # fmt: skip
    """Return one that may call this machine."""
    egress = Egress(Allowed("127.0.0.1:*"), deadline=deadline)
    return Deliverer(
        store.deliveries, egress, signature.secrets(SECRET),
        count=heard, clock=clock, chance=lambda: chance,
    )  # fmt: skip


async def deliver(one: Deliverer) -> int:
    """Send all that is due, and wait until it is done."""
    total = 0
    while begun := await one.begin():
        total += begun
        await one.idle()
    return total


def at(now: float, **fields: Any) -> Job:
    """Return a new job of that time."""
    return a_job(**{"created_at": now, "available_at": now, "updated_at": now, **fields})


async def submitted(
    store: Store, clock: Clock, url: str, *words: str, traceparent: str | None = None, **fields: Any
) -> Job:
    """Keep a job that tells a URL of these events, or of its end."""
    job = at(clock.now, **fields)
    webhook = Webhook(url, words or ("completed",), traceparent)
    await store.submit((job, pack({})), webhook=webhook)
    return job


async def end(store: Store, job: Job, clock: Clock) -> Job:
    """Let a job succeed, told in one batch with its start, and return it."""
    batch = [(job.id, started(job), None), (job.id, succeeded(job), pack({"ok": 1}))]
    (after,) = await store.ingest(batch, clock.now)
    return after


async def owed(store: Store, job: Job) -> Delivery:
    """Return the only message of a job."""
    (one,) = await store.deliveries.of_job(job.id)
    return one


# --- what is owed --------------------------------------------------------------------------------


async def test_the_end_of_a_job_is_told_once_and_signed(store: Store, clock: Clock) -> None:
    """One signed CloudEvent arrives, whose data is the job as anybody can ask for it."""
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    with Receiver() as receiver:
        job = await submitted(store, clock, receiver.url + "?key=1", traceparent=trace)
        assert await deliver(deliverer(store, clock)) == 0
        after = await end(store, job, clock)
        assert await deliver(deliverer(store, clock)) == 1
        assert await deliver(deliverer(store, clock)) == 0
        (one,) = receiver.received
    event = Reference(SECRET).verify(one.body, one.headers)
    assert event == {
        "specversion": "1.0",
        "id": one.id,
        "type": "org.nlp-runner.job.succeeded.v1",
        "source": "/v1/jobs",
        "subject": job.id,
        "time": event["data"]["updated_at"],
        "datacontenttype": "application/json",
        "data": json.loads(json.dumps(job_resource(after))),
    }
    assert one.path == "/hook?key=1"
    assert one.headers["content-type"] == "application/cloudevents+json"
    assert one.headers["traceparent"] == trace
    delivery = await owed(store, job)
    assert (delivery.status, delivery.due_at, delivery.attempts) == ("delivered", None, 1)
    assert delivery.log[0]["status_code"] == 204


async def test_a_change_and_its_message_are_kept_together(store: Store, clock: Clock) -> None:
    """A change that is undone is not told, and one that is kept is owed from that moment."""
    job = await submitted(store, clock, "https://hooks.example/")

    def undone(session: Session) -> None:
        ingest(session, [(job.id, started(job), None), (job.id, succeeded(job), None)], 1.0, float)
        raise RuntimeError("undo")

    with pytest.raises(RuntimeError):
        await store._database.write(undone)
    assert await store.deliveries.of_job(job.id) == []
    await end(store, job, clock)
    assert (await owed(store, job)).status == "pending"


BROKEN = errors.HandlerFailed("It broke.")


async def by_cancel(store: Store, job: Job, now: float) -> None:
    await store.cancel(job, "me", False, now)


async def by_release(store: Store, job: Job, now: float) -> None:
    await store.claim("ner", "d1", 10, now)
    await store.cancel(job, "me", False, now)
    await store.release([(job.id, 1)])


async def by_failure(store: Store, job: Job, now: float) -> None:
    await store.ingest([(job.id, started(job), None)], now)
    await store.ingest([(job.id, failed(job, BROKEN), None)], now)


async def by_expiry(store: Store, job: Job, now: float) -> None:
    await store.ingest([(job.id, failed(job, errors.Expired("Late.")), None)], now)


async def by_last_attempt(store: Store, job: Job, now: float) -> None:
    for attempt in (1, 2, 3):
        error = errors.TransientFailure("Again.")
        told = started(job, attempt=attempt), failed(job, error, attempt=attempt)
        await store.ingest([(job.id, event, None) for event in told], now)


ENDS = [
    (by_cancel, "canceled", 0),
    (by_release, "canceled", 0),
    (by_failure, "failed", 1),
    (by_expiry, "failed", 0),
    (by_last_attempt, "failed", 3),
]


@pytest.mark.parametrize(("way", "word", "starts"), ENDS)
async def test_every_end_is_owed_once(
    store: Store, clock: Clock, way: Callable[..., Awaitable[None]], word: str, starts: int
) -> None:
    """However a job ends, one message tells it, and each start of an attempt is told if wanted."""
    job = await submitted(store, clock, "https://hooks.example/", "start", "completed", "failed")
    quiet = await submitted(store, clock, "https://hooks.example/", "succeeded")
    for one in (job, quiet):
        await way(store, one, clock.now)
        await store.ingest([(one.id, succeeded(one, attempt=9), None)], clock.now)
    told = Counter(one.event for one in await store.deliveries.of_job(job.id))
    assert told == Counter({"started": starts, word: 1}) - Counter()
    assert await store.deliveries.of_job(quiet.id) == []


async def test_a_composite_job_is_told_when_its_last_part_ends(store: Store, clock: Clock) -> None:
    """The whole is told once, by the commit of its last part; its parts are told to nobody."""
    whole = at(clock.now, service=COMPOSITE, service_version="", major=0, manifest_digest="")
    parts = [at(clock.now, parent_id=whole.id, part=name) for name in "ab"]
    both = Webhook("https://hooks.example/", ("start", "completed"))
    kept = [(whole, pack({})), *((part, pack({})) for part in parts)]
    await store.submit(*kept, webhook=both)
    for part in parts:
        batch = [(part.id, started(part), None), (part.id, succeeded(part), None)]
        await store.ingest(batch, clock.now)
    told = await store.deliveries.of_job(whole.id)
    assert sorted(one.event for one in told) == ["started", "succeeded"]
    assert [await store.deliveries.of_job(part.id) for part in parts] == [[], []]


async def test_a_body_stays_small_and_readable(store: Store, clock: Clock) -> None:
    """A worker that says much, and in no sound Unicode, makes no large or broken message."""
    long = "\ud800é" * 30_000
    problem = BROKEN.to_problem()
    error = {**dict.fromkeys(problem, long), "code": problem["code"], "more": [long]}
    with Receiver() as receiver:
        job = await submitted(store, clock, receiver.url)
        much = said(events.Failed, job, clock.now, error=error)
        await store.ingest([(job.id, started(job), None), (job.id, much, None)], clock.now)
        await deliver(deliverer(store, clock))
        (one,) = receiver.received
    assert len(one.body) <= LARGEST
    assert one.event["data"]["error"]["code"] == "handler_error"


async def test_a_url_that_is_no_longer_called_ends_no_job(store: Store, clock: Clock) -> None:
    """What an older release took for a URL fails as a message, and never as the job's change."""
    job = await submitted(store, clock, "https://hooks.example?key=hush\\@")
    assert (await end(store, job, clock)).status == "succeeded"
    await deliver(deliverer(store, clock))
    message = await owed(store, job)
    assert (message.status, message.target) == ("pending", "https://hooks.example")
    assert "percent-encoded" in message.log[0]["error"]


async def test_an_erased_job_tells_nothing_more(store: Store, clock: Clock) -> None:
    """With a job go the messages about it."""
    job = await submitted(store, clock, "https://hooks.example/")
    await end(store, job, clock)
    await store.delete(job.id)
    assert await store.deliveries.of_job(job.id) == []
    assert await store.deliveries.claim(clock.now, clock.now, 9, []) == []


# --- until it arrives ----------------------------------------------------------------------------


async def test_a_message_is_tried_for_about_a_day(store: Store, clock: Clock) -> None:
    """A receiver that is down gets ten tries in a day, all with the same id and body; then none."""
    heard: list[str] = []
    began = clock.now
    with Receiver(500) as receiver:
        job = await submitted(store, clock, receiver.url)
        await end(store, job, clock)
        one = deliverer(store, clock, heard=heard.append)
        while (message := await owed(store, job)).due_at is not None:
            clock.now = message.due_at - 0.001
            assert await deliver(one) == 0, "nothing goes early"
            clock.now = message.due_at
            assert await deliver(one) == 1
        received = receiver.received
    assert len(received) == len(DELAYS) + 1 == 10
    assert {(r.id, r.body) for r in received} == {(message.id, received[0].body)}
    assert 0.9 * DAY < clock.now - began < 1.1 * DAY
    assert message.status == "failed"
    assert [entry["status_code"] for entry in message.log] == [500] * 10
    assert heard == ["retried"] * 9 + ["failed"]


async def test_retries_are_spread(store: Store, clock: Clock) -> None:
    """Messages that failed together are not tried again together."""
    waits = []
    with Receiver(500) as receiver:
        for chance in (0.0, 0.999):
            job = await submitted(store, clock, receiver.url)
            await end(store, job, clock)
            await deliver(deliverer(store, clock, chance=chance))
            waits.append(((await owed(store, job)).due_at or 0) - clock.now)
    assert waits == pytest.approx([4.0, 6.0], abs=0.01)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("90", 90), ("1", 5), ("99999999", LONGEST_DELAY), ("date", 120), ("soon", 5), ("-4", 5)],
)
async def test_retry_after_is_followed(
    store: Store, clock: Clock, header: str, seconds: float
) -> None:
    """A receiver may ask for more time, in seconds or as a date, but not for ever."""
    clock.now = float(int(clock.now))
    if header == "date":
        header = format_datetime(datetime.fromtimestamp(clock.now + 120, UTC), usegmt=True)
    with Receiver(status(503, retry_after=header)) as receiver:
        job = await submitted(store, clock, receiver.url)
        await end(store, job, clock)
        await deliver(deliverer(store, clock))
    assert (await owed(store, job)).due_at == pytest.approx(clock.now + seconds, abs=0.01)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (500, "the receiver answered 500"),
        (status(302, location="http://127.0.0.1:1/"), "redirects are not followed"),
        (hang, "no answer within 1 s"),
        (drip, "no answer within 1 s"),
    ],
    ids=["500", "redirect", "hang", "drip"],
)
async def test_what_fails_once_arrives_later(
    store: Store, clock: Clock, answer: Any, error: str
) -> None:
    """The first try meets a fault and says which; the second one arrives with the same id."""
    with Receiver(answer, 200) as receiver:
        job = await submitted(store, clock, receiver.url)
        await end(store, job, clock)
        one = deliverer(store, clock, deadline=1.0)
        await deliver(one)
        first = await owed(store, job)
        assert first.status == "pending"
        assert error in first.log[0]["error"]
        clock.now += 10
        assert await deliver(one) == 1
        second = await owed(store, job)
        assert (second.status, len(second.log)) == ("delivered", 2)
        assert [r.id for r in receiver.received] == [second.id] * 2


async def test_a_huge_answer_is_an_answer(store: Store, clock: Clock) -> None:
    """A receiver that answers 200 with ten gigabytes has been told."""
    with Receiver(endless) as receiver:
        job = await submitted(store, clock, receiver.url)
        await end(store, job, clock)
        await deliver(deliverer(store, clock))
    assert (await owed(store, job)).status == "delivered"


async def test_gone_means_no_more(store: Store, clock: Clock) -> None:
    """A receiver that answers 410 hears nothing more of that job, not even other events."""
    with Receiver(410) as receiver:
        job = await submitted(store, clock, receiver.url, "start", "completed")
        await store.ingest([(job.id, started(job), None)], clock.now)
        await deliver(deliverer(store, clock))
        await store.ingest([(job.id, succeeded(job), None)], clock.now)
        clock.now += DAY
        assert await deliver(deliverer(store, clock)) == 0
        assert len(receiver.received) == 1
    message = await owed(store, job)
    assert (message.event, message.status) == ("started", "failed")


async def test_one_dead_receiver_holds_up_nobody(store: Store, clock: Clock, until: Any) -> None:
    """While a receiver hangs with many messages to come, those of others go."""
    with Receiver(hang) as dead, Receiver() as alive:
        for _ in range(30):
            await end(store, await submitted(store, clock, dead.url), clock)
        await end(store, await submitted(store, clock, alive.url), clock)
        one = deliverer(store, clock, deadline=5)
        while await one.begin():
            pass
        await asyncio.to_thread(until, lambda: alive.received)
        assert 0 < len(dead.received) <= 16
        dead.over.set()
        await one.idle()


# --- several, and crashes ------------------------------------------------------------------------


async def test_several_share_the_work(store: Store, database_url: str, clock: Clock) -> None:
    """Of many deliverers on one database, each message is sent by one."""
    with Receiver() as receiver:
        for _ in range(40):
            await end(store, await submitted(store, clock, receiver.url), clock)
        async with AsyncExitStack() as stack:
            others = [Store(database_url, now=clock) for _ in range(3)]
            for other in others:
                await other.open()
                stack.push_async_callback(other.close)
            several = [deliverer(other, clock) for other in (store, *others)]
            assert sum(await asyncio.gather(*map(deliver, several))) == 40
        assert len(receiver.received) == len({one.id for one in receiver.received}) == 40


async def test_what_a_dead_one_had_claimed_goes_again(store: Store, clock: Clock) -> None:
    """A message whose sender died goes again with its id; a sender thought dead is not heard."""
    with Receiver() as receiver:
        job = await submitted(store, clock, receiver.url)
        await end(store, job, clock)
        (lost,) = await store.deliveries.claim(clock.now, clock.now + LEASE, 9, [])
        assert await deliver(deliverer(store, clock)) == 0, "it is another's for now"
        clock.now += LEASE
        assert len(await store.deliveries.claim(clock.now, clock.now + LEASE, 9, [])) == 1
        late = {"attempt": 1, "status_code": None, "error": "late"}
        assert not await store.deliveries.settle(lost, "failed", 10, None, late)
        clock.now += LEASE
        assert await deliver(deliverer(store, clock)) == 1
        assert [one.id for one in receiver.received] == [lost.id]
    assert (await owed(store, job)).status == "delivered"


async def test_a_replay_is_the_same_message(store: Store, clock: Clock) -> None:
    """A message that was given up can be sent again, with its id, its body and a new plan."""
    with Receiver(410, 500, 200) as receiver:
        job = await submitted(store, clock, receiver.url)
        await end(store, job, clock)
        one = deliverer(store, clock)
        await deliver(one)
        message = await owed(store, job)
        assert message.status == "failed"
        assert await store.deliveries.replay(job.id, message.id, clock.now)
        assert not await store.deliveries.replay("other", message.id, clock.now)
        await deliver(one)
        clock.now += 10
        await deliver(one)
        assert len({(r.id, r.body) for r in receiver.received}) == 1
    again = await owed(store, job)
    assert again.status == "delivered"
    assert [entry["attempt"] for entry in again.log] == [1, 2, 3]


async def test_without_a_secret_nothing_goes(store: Store, clock: Clock) -> None:
    """An orchestrator that cannot sign leaves the messages to one that can."""
    with Receiver() as receiver:
        job = await submitted(store, clock, receiver.url)
        await end(store, job, clock)
        dumb = Deliverer(store.deliveries, Egress(Allowed("127.0.0.1:*")), (), clock=clock)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(dumb.run(), 0.3)
        assert receiver.received == []
    assert (await owed(store, job)).attempts == 0


async def test_a_running_one_tells_soon_and_stops_cleanly(
    store: Store, clock: Clock, until: Any
) -> None:
    """Poked, it tells at once; stopped in the middle of a try, it leaves the message to others."""
    with Receiver(200, hang) as receiver:
        one = deliverer(store, clock)
        running = asyncio.create_task(one.run())
        for number in (1, 2):
            job = await submitted(store, clock, receiver.url)
            await end(store, job, clock)
            one.poke()
            await asyncio.to_thread(until, lambda: len(receiver.received) == number)  # noqa: B023
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert (await owed(store, job)).status == "pending"


async def test_the_log_tells_no_secret(
    store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What we write of a failure names the host, and neither the path nor the query of the URL."""
    with Receiver(500) as receiver, caplog.at_level(logging.DEBUG):
        job = await submitted(store, clock, receiver.url + "/T0K3N?key=hush")
        await end(store, job, clock)
        await deliver(deliverer(store, clock))
    assert f"to http://127.0.0.1:{receiver.port}: the receiver answered 500" in caplog.text
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("runner.")]
    assert not any("hush" in line or "T0K3N" in line for line in ours)


def test_a_message_is_its_row() -> None:
    """A message and its row have the same fields, so that none can be forgotten in between."""
    assert tuple(field.name for field in fields(Delivery)) == COLUMNS
