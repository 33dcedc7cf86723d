"""Jobs come in once for each key, all or none, with a result where one is kept, and go in time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import specimens
from specimens import NOW, Clock, failed, started, succeeded, with_input

from runner import errors
from runner.orchestrator.deliveries import Webhook
from runner.orchestrator.intake import KEPT, Once
from runner.orchestrator.jobs import COMPOSITE, Job
from runner.orchestrator.store import Store
from runner.payload import pack, unpack

WEEK = 7 * 86400.0
pytestmark = pytest.mark.anyio
a_job = partial(specimens.a_job, retention=WEEK)


@pytest.fixture
def clock() -> Clock:
    """Give the clock of the stores."""
    return Clock()


@pytest.fixture
async def stores(database_url: str, clock: Clock) -> AsyncIterator[tuple[Store, Store]]:
    """Give two orchestrators' stores on one database."""
    pair = Store(database_url, now=clock), Store(database_url, now=clock)
    await asyncio.gather(*(store.open() for store in pair))
    yield pair
    await asyncio.gather(*(store.close() for store in pair))


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    """Give one of them."""
    return stores[0]


@pytest.fixture
def count(sql: Callable[..., list[tuple[Any, ...]]]) -> Callable[[str], int]:
    """Give a way to count the rows of a table."""
    return lambda table: int(sql(f"SELECT COUNT(*) FROM {table}")[0][0])


def once(key: str = "k", fingerprint: str = "f", owner: str = "") -> Once:
    return Once(owner, key, fingerprint)


async def succeed(store: Store, job: Job, output: Any, at: float) -> Job:
    """Let a job start and succeed at that time."""
    told = replace(job, updated_at=at)
    batch = [(job.id, started(told), None), (job.id, succeeded(told), pack(output))]
    await store.ingest(batch, at)
    return await store.get(job.id)


# --- one key, one job ----------------------------------------------------------------------------


async def test_a_key_makes_one_job(
    stores: tuple[Store, Store], count: Callable[[str], int]
) -> None:
    """The second request under a key gets the first one's job, wherever it comes in."""
    first = a_job(idempotency_key="k")
    taken = await stores[0].submit(*with_input(first), once=once())
    assert (taken.job, taken.replayed) == (first, False)
    for store in stores:
        again = await store.submit(*with_input(a_job(idempotency_key="k")), once=once())
        assert (again.job, again.replayed) == (first, True)
        assert await store.replay(once()) == [first]
    assert count("job") == 1


async def test_fifty_at_the_same_instant_make_one_job(
    stores: tuple[Store, Store], count: Callable[[str], int]
) -> None:
    """Fifty callers with one key, at two orchestrators at once, all get the same job."""
    jobs = [a_job(idempotency_key="k") for _ in range(50)]
    answers = await asyncio.gather(
        *(stores[place % 2].submit(*with_input(job), once=once()) for place, job in enumerate(jobs))
    )
    assert len({taken.job.id for taken in answers}) == 1
    assert sum(not taken.replayed for taken in answers) == 1
    assert (count("job"), count("idempotency")) == (1, 1)


async def test_crossing_keys_do_not_stop_each_other(stores: tuple[Store, Store]) -> None:
    """Two orchestrators that take the same keys in opposite orders both get through."""
    keys = [f"k{number}" for number in range(30)]

    async def all_of(store: Store, order: list[str]) -> dict[str, str]:
        taken = await asyncio.gather(
            *(store.submit(*with_input(a_job(idempotency_key=k)), once=once(k)) for k in order)
        )
        return {key: one.job.id for key, one in zip(order, taken, strict=True)}

    left, right = await asyncio.gather(
        all_of(stores[0], keys), all_of(stores[1], list(reversed(keys)))
    )
    assert left == right


async def test_another_request_under_a_key_is_refused(store: Store) -> None:
    """A key that belongs to another request is an error, and makes nothing."""
    await store.submit(*with_input(a_job(idempotency_key="k")), once=once())
    other = a_job(idempotency_key="k")
    with pytest.raises(errors.IdempotencyMismatch):
        await store.submit(*with_input(other), once=once(fingerprint="other"))
    with pytest.raises(errors.IdempotencyMismatch):
        await store.replay(once(fingerprint="other"))
    assert await store.get(other.id) is None


async def test_keys_of_others_are_unknown(store: Store) -> None:
    """Each owner has keys of its own, so that nobody can find out those of another."""
    mine = a_job(owner="ada", idempotency_key="k")
    await store.submit(*with_input(mine), once=once(owner="ada"))
    assert await store.replay(once(owner="bob")) is None
    theirs = a_job(owner="bob", idempotency_key="k")
    taken = await store.submit(*with_input(theirs), once=once("k", "other", "bob"))
    assert (taken.job.id, taken.replayed) == (theirs.id, False)


async def test_a_key_lives_as_long_as_its_job(
    store: Store, clock: Clock, count: Callable[[str], int]
) -> None:
    """A key is known for 24 hours and for as long as its job; then it may be used anew."""
    early = a_job(idempotency_key="early", retention=60.0)
    lasting = a_job(idempotency_key="lasting", retention=WEEK)
    for job in (early, lasting):
        await store.submit(*with_input(job), once=once(job.idempotency_key or ""))
        await succeed(store, job, {}, NOW)
    clock.now = NOW + 61
    assert await store.purge(clock.now, 100) == [early.id]
    with pytest.raises(errors.JobErased):  # within the day nobody does it again by mistake
        await store.submit(*with_input(a_job(idempotency_key="early")), once=once("early"))
    clock.now = NOW + KEPT + 1
    await store.purge(clock.now, 100)
    assert (await store.replay(once("lasting")) or [])[0].id == lasting.id
    assert await store.replay(once("early")) is None
    again = a_job(idempotency_key="early")
    taken = await store.submit(*with_input(again), once=once("early"))
    assert not taken.replayed
    assert count("idempotency") == 2


async def test_erasing_a_job_erases_its_key(store: Store, count: Callable[[str], int]) -> None:
    """Who has his job deleted leaves nothing behind, not even the fingerprint of his request."""
    one, two = a_job(idempotency_key="k"), a_job(idempotency_key="k")
    await store.submit(*with_input(one, two), once=once())
    await store.delete(one.id)
    assert count("idempotency") == 1
    assert await store.replay(once()) == [two]
    await store.delete(two.id)
    assert count("idempotency") == 0


# --- all or none ---------------------------------------------------------------------------------


async def test_many_come_in_together(store: Store, count: Callable[[str], int]) -> None:
    """A thousand jobs are one commit, in their order, each with its own input."""
    jobs = [a_job(idempotency_key="k") for _ in range(1000)]
    before = store.commits
    taken = await store.submit(*with_input(*jobs), once=once())
    assert [job.id for job in taken.jobs] == [job.id for job in jobs]
    assert store.commits - before == 1
    assert count("transition") == 1000
    assert unpack(await store.payload(jobs[77].id, "input") or b"") == {"text": jobs[77].id}
    claimed = await store.claim("ner", "d1", 3, NOW)
    assert [job.id for job, _ in claimed] == [job.id for job in jobs[:3]]
    again = await store.submit(*with_input(a_job()), once=once())
    assert [job.id for job in again.jobs] == [job.id for job in jobs]


async def test_none_comes_in_without_the_others(store: Store, count: Callable[[str], int]) -> None:
    """When one of many cannot be kept, none is, and their key is free."""
    taken = a_job()
    await store.submit(*with_input(taken))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await store.submit(*with_input(a_job(), taken, a_job()), once=once())
    assert (count("job"), count("idempotency")) == (1, 0)


# --- results that answer again -------------------------------------------------------------------


async def test_an_equal_input_is_answered_at_once(store: Store, clock: Clock) -> None:
    """A job whose content was answered before is born succeeded, with output and origin."""
    first = a_job(fingerprint="f", owner="ada")
    await store.submit(*with_input(first))
    await succeed(store, first, {"n": 1}, NOW + 5)
    clock.now = NOW + 10
    again = a_job(fingerprint="f", owner="ada")
    job = (await store.submit(*with_input(again), since={"f": 0.0})).job
    assert job == await store.get(again.id)
    assert (job.status, job.reused_from, job.started_at) == ("succeeded", first.id, None)
    assert (job.finished_at, job.expires_at) == (NOW + 10, NOW + 10 + WEEK)
    assert unpack(await store.payload(again.id, "output") or b"") == {"n": 1}
    assert [row.status for row in await store.transitions(again.id)] == ["succeeded"]
    assert await store.claim("ner", "d1", 9, NOW + 99) == []
    # What was answered is a job of its own: it stays when the first one goes.
    await store.delete(first.id)
    assert unpack(await store.payload(again.id, "output") or b"") == {"n": 1}
    third = a_job(fingerprint="f", owner="ada")
    assert (await store.submit(*with_input(third), since={"f": 0.0})).job.status == "queued"


async def test_who_is_answered_at_once_is_told_as_well(
    store: Store, count: Callable[[str], int]
) -> None:
    """A job that is born finished owes its webhook a message, in the same commit."""
    first = a_job(fingerprint="f")
    await store.submit(*with_input(first))
    await succeed(store, first, {"n": 1}, NOW)
    webhook = Webhook("https://example.org/hook", ("completed",))
    taken = await store.submit(*with_input(a_job(fingerprint="f")), since={"f": 0}, webhook=webhook)
    assert taken.job.reused_from == first.id
    assert (count("webhook"), count("webhook_delivery")) == (1, 1)


@pytest.mark.parametrize(
    ("change", "since"),
    [
        ({"owner": "bob"}, {"f": 0.0}),
        ({"fingerprint": "g"}, {"f": 0.0, "g": 0.0}),
        ({"fingerprint": None}, {"f": 0.0}),
        ({}, {}),
        ({}, {"f": NOW + 6}),
    ],
    ids=["another owner", "another content", "no content", "not wanted", "too old"],
)
async def test_only_the_same_is_answered(
    store: Store, change: dict[str, Any], since: dict[str, float]
) -> None:
    """Nobody gets the result of somebody else, of something else, or one that he finds too old."""
    first = a_job(fingerprint="f", owner="ada")
    await store.submit(*with_input(first))
    await succeed(store, first, {"n": 1}, NOW + 5)
    again = a_job(**{"fingerprint": "f", "owner": "ada", **change})
    taken = await store.submit(*with_input(again), since=since)
    assert (taken.job.status, taken.job.reused_from) == ("queued", None)


async def test_what_is_over_does_not_answer(store: Store, clock: Clock) -> None:
    """A failed job, one whose time is over and one without its output answer nobody."""
    broken, over, bare = (a_job(fingerprint=f) for f in ("failed", "over", "bare"))
    await store.submit(*with_input(broken, over, bare))
    await store.ingest([(broken.id, failed(broken, errors.HandlerFailed()), None)], NOW)
    await succeed(store, over, {}, NOW - WEEK)
    await store.ingest([(bare.id, succeeded(bare), None)], NOW)
    clock.now = NOW + 1
    for content in ("failed", "over", "bare"):
        taken = await store.submit(*with_input(a_job(fingerprint=content)), since={content: 0.0})
        assert taken.job.status == "queued", content


async def test_a_job_that_moved_to_another_manifest_does_not_answer(store: Store) -> None:
    """A result of another manifest than the one that was asked answers nobody."""
    job = a_job(fingerprint="f")
    await store.submit(*with_input(job))
    assert await store.repin(job.id, "d2", "1.1.0")
    await succeed(store, job, {}, NOW + 1)
    taken = await store.submit(*with_input(a_job(fingerprint="f")), since={"f": 0.0})
    assert taken.job.status == "queued"


async def test_a_whole_may_be_answered_part_by_part(store: Store) -> None:
    """A composite job whose parts were all answered before has ended; else the rest is done."""
    known = a_job(fingerprint="f")
    await store.submit(*with_input(known))
    await succeed(store, known, {"n": 1}, NOW)

    async def ask(*contents: str) -> list[Job]:
        whole = a_job(service=COMPOSITE, manifest_digest="", major=0, service_version="")
        parts = [
            a_job(parent_id=whole.id, part=content, fingerprint=content, retention=None)
            for content in contents
        ]
        since = {"f": 0.0, "g": 0.0}
        return (await store.submit(*with_input(whole, *parts), since=since)).jobs

    whole, part = await ask("f")
    assert (whole.status, part.status) == ("succeeded", "succeeded")
    assert (whole.expires_at, part.expires_at) == (NOW + WEEK, None)
    whole, done, waiting = await ask("f", "g")
    assert (whole.status, done.status, waiting.status) == ("running", "succeeded", "queued")
    await succeed(store, waiting, {"n": 2}, NOW + 1)
    assert (await store.get(whole.id)).status == "succeeded"


# --- what goes in time ---------------------------------------------------------------------------


async def test_what_is_over_is_erased(
    store: Store, clock: Clock, count: Callable[[str], int]
) -> None:
    """A finished job whose time is over leaves no row, and what still runs or is kept stays."""
    over, kept, forever, open_ = a_job(), a_job(), a_job(retention=None), a_job()
    whole = a_job(service=COMPOSITE, manifest_digest="", major=0, service_version="")
    part = a_job(parent_id=whole.id, part="p", retention=None)
    await store.submit(*with_input(over, kept, forever, open_, whole, part))
    for job, at in ((over, NOW), (part, NOW), (forever, NOW), (kept, NOW + 60)):
        await succeed(store, job, {}, at)
    assert (await store.get(over.id)).expires_at == NOW + WEEK
    assert (await store.get(forever.id)).expires_at is None
    assert (await store.get(open_.id)).expires_at is None
    assert await store.purge(NOW + WEEK - 1, 100) == []
    assert sorted(await store.purge(NOW + WEEK, 100)) == sorted([over.id, whole.id, part.id])
    left = {job.id for job in await store.list(limit=9, service="ner")}
    assert left == {kept.id, forever.id, open_.id}
    assert (count("job"), count("payload"), count("transition")) == (3, 5, 7)


async def test_two_orchestrators_erase_in_batches(stores: tuple[Store, Store]) -> None:
    """However many erase at once, in however small batches, all goes and nothing is stuck."""
    jobs = [a_job() for _ in range(60)]
    await stores[0].submit(*with_input(*jobs))
    for job in jobs:
        await succeed(stores[0], job, {}, NOW)

    async def erase(store: Store) -> list[str]:
        found: list[str] = []
        with contextlib.suppress(StopIteration):
            while batch := await store.purge(NOW + WEEK, 7):
                found += batch
        return found

    erased = await asyncio.gather(*map(erase, stores))
    assert sorted(itertools.chain(*erased)) == sorted(job.id for job in jobs)
