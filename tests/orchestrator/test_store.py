"""The store keeps its promises on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import peewee
import psycopg2
import pytest
from specimens import NOW, a_job, failed, started, succeeded, with_input

from runner import errors
from runner.orchestrator import tables
from runner.orchestrator.database import BATCH, Database
from runner.orchestrator.jobs import COMPOSITE, Job
from runner.orchestrator.queries import Backlog
from runner.orchestrator.rows import COLUMNS
from runner.orchestrator.session import Session
from runner.orchestrator.store import Store
from runner.payload import pack, unpack

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """Give an open store whose clock stands still and whose backoffs are half their most."""
    store = Store(database_url, now=lambda: NOW, chance=lambda: 0.5)
    await store.open()
    yield store
    await store.close()


async def submitted(store: Store, *jobs: Job) -> None:
    await asyncio.gather(*map(store.submit, with_input(*jobs)))


def ids(jobs: Any) -> list[str]:
    """Return the ids of jobs, or of pairs of a job and its input."""
    return [(one if isinstance(one, Job) else one[0]).id for one in jobs]


# --- the tables ----------------------------------------------------------------------------------

KINDS = {
    "TEXT": {"text"},
    "INT": {"integer"},
    "BIGINT": {"bigint"},
    "DOUBLE": {"double precision"},
    "BLOB": {"blob", "bytea"},
}


async def test_models_describe_the_tables(store: Store, database_url: str) -> None:
    """The peewee models say of every table what the migrations made of it."""

    def described(session: Session) -> None:
        database = session._database
        assert set(database.get_tables()) == {m._meta.table_name for m in tables.MODELS}
        for model in tables.MODELS:
            found = {column.name: column for column in database.get_columns(model._meta.table_name)}
            assert list(found) == model._meta.sorted_field_names
            for field in model._meta.sorted_fields:
                column = found[field.column_name]
                assert column.data_type.lower() in KINDS[field.field_type], column
                assert column.null == field.null, column
            key = model._meta.primary_key
            names = list(getattr(key, "field_names", None) or [key.name])
            assert database.get_primary_keys(model._meta.table_name) == names

    await store._database.read(described)


def test_job_row_is_the_job() -> None:
    """A job and its row have the same fields, so that none can be forgotten in between."""
    assert tuple(field.name for field in dataclasses.fields(Job)) == COLUMNS


def test_engines_have_the_same_migrations() -> None:
    """Every migration exists for both engines, numbered from 1 without a gap."""
    sqlite, postgresql = tables.migrations("sqlite"), tables.migrations("postgresql")
    assert [m.version for m in sqlite] == list(range(1, len(sqlite) + 1))
    assert [(m.version, m.name) for m in sqlite] == [(m.version, m.name) for m in postgresql]


async def test_many_may_open_at_once(database_url: str) -> None:
    """Orchestrators that start together on an empty database all come up, and migrate it once."""
    stores = [Store(database_url) for _ in range(5)]
    await asyncio.gather(*(store.open() for store in stores))
    job = a_job()
    await stores[0].submit((job, b""))
    assert await stores[4].get(job.id) == job
    await asyncio.gather(*(store.close() for store in stores))


async def test_reopening_changes_nothing(store: Store, database_url: str) -> None:
    """A database that is up to date opens again with all that is in it."""
    job = a_job()
    await store.submit((job, b""))
    again = Store(database_url)
    await again.open()
    assert await again.get(job.id) == job
    await again.close()


async def test_newer_database_is_refused(
    store: Store, database_url: str, sql: Callable[..., Any]
) -> None:
    """An old release says that the database is newer, instead of damaging it."""
    sql("INSERT INTO schema_version (version, name, applied_at) VALUES (999, 'later', 0)")
    with pytest.raises(errors.Unavailable, match="schema version 999"):
        await Store(database_url).open()


async def test_finished_status_is_final(store: Store, sql: Callable[..., Any]) -> None:
    """The database itself refuses to change the status of a finished job, whoever asks."""
    job = a_job()
    await store.submit((job, b""))
    await store.ingest([(job.id, succeeded(job), b"out")], NOW)
    with pytest.raises((sqlite3.IntegrityError, psycopg2.IntegrityError), match="finished job"):
        sql(f"UPDATE job SET status = 'queued' WHERE id = '{job.id}'")
    sql(f"UPDATE job SET expires_at = 1 WHERE id = '{job.id}'")
    assert (await store.get(job.id)).status == "succeeded"


# --- one job -------------------------------------------------------------------------------------


async def test_submitted_job_is_kept(store: Store) -> None:
    """What was submitted can be read back, field by field, with its input and its beginning."""
    job = a_job(
        owner="ada", priority=5, queue_deadline_at=NOW + 60, expires_at=NOW + 3600,
        input_bytes=3 * 10**9, progress={"steps": [{"name": "é\u0000\ud800"}]},
        error={"code": "x", "detail": "☃"},
    )  # fmt: skip
    await store.submit((job, pack({"text": "é"})))
    assert await store.get(job.id) == job
    assert unpack(await store.payload(job.id, "input")) == {"text": "é"}
    assert await store.payload(job.id, "output") is None
    [transition] = await store.transitions(job.id)
    assert (transition.revision, transition.status, transition.actor) == (1, "queued", "ada")


async def test_same_id_is_refused(store: Store) -> None:
    """A second job under the same id is an error, and the first one stays as it is."""
    job = a_job()
    await store.submit((job, b"first"))
    with pytest.raises(peewee.IntegrityError):
        await store.submit((dataclasses.replace(job, owner="eve"), b"second"))
    assert await store.get(job.id) == job
    assert await store.payload(job.id, "input") == b"first"


@pytest.mark.parametrize("job_id", ["", "nothing", "\0", "\ud800", "' OR 1=1 --", "%s", "?"])
async def test_unknown_job_is_none(store: Store, job_id: str) -> None:
    """An id that names no job finds nothing, whatever it is made of."""
    await store.submit((a_job(), b""))
    assert await store.get(job_id) is None
    assert await store.payload(job_id, "input") is None
    assert await store.transitions(job_id) == []
    assert await store.cancel(a_job(id=job_id), "ada", False, NOW) == []
    assert await store.delete(job_id) is False
    assert await store.repin(job_id, "d2", "1.0.1") is False
    assert await store.list(limit=5, owner=job_id or "nobody") == []


async def test_deleted_job_leaves_nothing(store: Store, sql: Callable[..., Any]) -> None:
    """Erasing a job erases its payloads and its history as well."""
    job, other = a_job(), a_job()
    await submitted(store, job, other)
    await store.ingest([(job.id, succeeded(job), b"out")], NOW)
    assert await store.delete(job.id) is True
    assert await store.delete(job.id) is False
    for table in ("job", "payload", "transition"):
        key = "id" if table == "job" else "job_id"
        assert sql(f"SELECT DISTINCT {key} FROM {table}") == [(other.id,)]


async def test_cancel_before_and_after_dispatch(store: Store) -> None:
    """A waiting job is canceled at once; one on the conveyor is only marked, or ends if revoked."""
    waiting, sent, revoked = a_job(), a_job(manifest_digest="d2"), a_job(manifest_digest="d2")
    await submitted(store, waiting, sent, revoked)
    await store.claim("ner", "d2", 10, NOW)
    [job] = await store.cancel(waiting, "ada", False, NOW + 1)
    assert (job.status, job.reason, job.finished_at) == ("canceled", "canceled_by_user", NOW + 1)
    assert (await store.transitions(waiting.id))[-1].actor == "ada"
    [job] = await store.cancel(sent, "ada", False, NOW + 1)
    assert (job.status, job.cancel_requested_at, job.cancel_actor) == ("queued", NOW + 1, "ada")
    assert await store.cancel(sent, "bob", False, NOW + 2) == []
    assert [job.status for job in await store.cancel(revoked, "ada", True, NOW + 1)] == ["canceled"]
    assert [job.id for job in await store.cancel(sent, "ada", True, NOW + 3)] == [sent.id]
    for one in (waiting, sent, revoked):
        assert await store.cancel(one, "ada", True, NOW + 4) == []


async def test_repin_moves_only_what_waits(store: Store) -> None:
    """A job changes its manifest only while it waits, and only within its major version."""
    waiting, sent = a_job(), a_job(service="other")
    await submitted(store, waiting, sent)
    await store.claim("other", "d1", 1, NOW)
    assert await store.repin(sent.id, "d2", "1.2.0") is False
    assert await store.repin(waiting.id, "d2", "2.0.0") is False
    assert await store.repin(waiting.id, "d2", "1.2.0") is True
    job = await store.get(waiting.id)
    assert (job.manifest_digest, job.service_version, job.revision) == ("d2", "1.2.0", 2)
    assert [t.revision for t in await store.transitions(waiting.id)] == [1, 2]
    assert ids(await store.claim("ner", "d2", 1, NOW)) == [waiting.id]


async def test_position_counts_who_goes_first(store: Store) -> None:
    """A job's position follows the order of claims: priority, then age."""
    first, urgent, last = a_job(), a_job(priority=9), a_job()
    await submitted(store, first, urgent, last, a_job(service="other"))
    assert [await store.ahead(job) for job in (urgent, first, last)] == [(0, 0), (1, 0), (2, 0)]
    await store.cancel(urgent, "ada", False, NOW)
    assert [await store.ahead(job) for job in (first, last)] == [(0, 0), (1, 0)]
    assert await store.ahead(await store.get(urgent.id)) == (0, 0)
    await store.ingest([(first.id, started(first), None)], NOW)
    assert await store.ahead(last) == (0, 1)


# --- lists and counts ----------------------------------------------------------------------------


async def test_list_pages_without_gap_or_repeat(store: Store) -> None:
    """Pages of a list hold every job once, newest first, though new ones come in between."""
    jobs = [a_job(created_at=NOW + number // 3) for number in range(10)]
    await submitted(store, *jobs)
    expected = ids(sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True))
    seen: list[Job] = []
    while page := await store.list(
        limit=3, before=(seen[-1].created_at, seen[-1].id) if seen else None
    ):
        seen += page
        await store.submit((a_job(created_at=NOW + 100), b""))
    assert ids(seen) == expected


async def test_list_filters(store: Store) -> None:
    """A list can be narrowed to a status, a service and an owner, alone and together."""
    one, two, three = a_job(owner="ada"), a_job(service="topics", owner="ada"), a_job(owner="bob")
    await submitted(store, one, two, three)
    await store.ingest([(one.id, succeeded(one), b"out"), (two.id, started(two), None)], NOW)
    assert ids(await store.list(limit=9, status="succeeded")) == [one.id]
    assert ids(await store.list(limit=9, status="running")) == [two.id]
    assert ids(await store.list(limit=9, status="queued")) == [three.id]
    assert ids(await store.list(limit=9, status="failed")) == []
    assert ids(await store.list(limit=9, service="ner")) == [three.id, one.id]
    assert ids(await store.list(limit=9, owner="ada")) == [two.id, one.id]
    assert ids(await store.list(limit=9, owner="ada", service="ner", status="succeeded")) == [
        one.id
    ]


async def test_counts_agree_with_the_jobs(store: Store) -> None:
    """Counts, backlog and ages say of every service what its jobs say."""
    jobs = [a_job(created_at=NOW - n, available_at=NOW - n) for n in range(4)]
    later = a_job(available_at=NOW + 50)
    other = a_job(service="topics", manifest_digest="t1")
    await submitted(store, *jobs, later, other)
    [(sent, _)] = await store.claim("ner", "d1", 1, NOW)
    [(going, _)] = await store.claim("ner", "d1", 1, NOW)
    await store.ingest([(going.id, started(going), None), (other.id, succeeded(other), b"o")], NOW)
    assert await store.counts() == {
        ("ner", "queued"): 4, ("ner", "running"): 1, ("topics", "succeeded"): 1,
    }  # fmt: skip
    assert await store.backlog() == {("ner", "d1"): Backlog(waiting=2, delayed=1, dispatched=2)}
    assert (await store.unfinished("ner"), await store.unfinished("topics")) == (5, 0)
    assert await store.queue_ages(NOW) == {"ner": (4, 3.0)}
    assert await store.in_progress() == {"ner": 1}
    assert ids(await store.running()) == [going.id]
    assert ids(await store.dispatched(NOW + 1)) == [sent.id]
    assert ids(await store.dispatched(NOW)) == []


async def test_overdue_is_what_still_waits(store: Store) -> None:
    """Only a queued job is overdue, and only past its latest start."""
    late, running, timely, patient = (
        a_job(queue_deadline_at=NOW + 1),
        a_job(queue_deadline_at=NOW + 1),
        a_job(queue_deadline_at=NOW + 10),
        a_job(),
    )
    await submitted(store, late, running, timely, patient)
    await store.ingest([(running.id, started(running), None)], NOW)
    assert ids(await store.overdue(NOW + 1)) == []
    assert ids(await store.overdue(NOW + 2)) == [late.id]


# --- the conveyor --------------------------------------------------------------------------------


async def test_claim_takes_in_order(store: Store) -> None:
    """Claims take the urgent first, then the oldest, each once and with its input."""
    low, first, second, urgent = a_job(priority=-1), a_job(), a_job(), a_job(priority=7)
    await submitted(store, low, first, second, urgent)
    assert ids(await store.waiting_inputs("ner", "d1", 1)) == [urgent.id]
    claimed = await store.claim("ner", "d1", 3, NOW + 5)
    assert ids(claimed) == [urgent.id, first.id, second.id]
    for job, packed in claimed:
        assert unpack(packed) == {"text": job.id}
        assert job.dispatched_at == NOW + 5
        assert await store.get(job.id) == job
    assert ids(await store.claim("ner", "d1", 3, NOW)) == [low.id]
    assert await store.claim("ner", "d1", 3, NOW) == []


async def test_claim_takes_only_what_may_go(store: Store) -> None:
    """A job of another service or manifest, or one whose time has not come, is not claimed."""
    await submitted(
        store, a_job(service="topics"), a_job(manifest_digest="d2"), a_job(available_at=NOW + 9)
    )
    assert await store.claim("ner", "d1", 9, NOW) == []
    assert len(await store.claim("ner", "d1", 9, NOW + 9)) == 1


async def test_claims_of_several_never_overlap(store: Store, database_url: str) -> None:
    """Several orchestrators that claim at the same time share the jobs, and no job goes twice."""
    await submitted(store, *(a_job() for _ in range(120)))
    others = [Store(database_url) for _ in range(3)]
    await asyncio.gather(*(other.open() for other in others))
    claims = await asyncio.gather(
        *(one.claim("ner", "d1", 7, NOW) for _ in range(10) for one in (store, *others))
    )
    taken = [job_id for claim in claims for job_id in ids(claim)]
    assert len(taken) == len(set(taken)) == 120
    await asyncio.gather(*(other.close() for other in others))


async def test_release_gives_back_what_did_not_start(store: Store) -> None:
    """A job whose message was lost can be claimed again, unless it started or was tried anew."""
    lost, going, newer = a_job(), a_job(), a_job()
    await submitted(store, lost, going, newer)
    await store.claim("ner", "d1", 9, NOW)
    await store.ingest([(going.id, started(going), None)], NOW)
    await store.ingest([(newer.id, failed(newer, errors.WorkerLost()), None)], NOW)
    await store.claim("ner", "d1", 9, NOW + 100)
    released = await store.release([(job.id, 1) for job in (lost, going, newer)])
    assert ids(released) == [lost.id]
    assert (await store.get(lost.id)).revision == 1
    assert ids(await store.claim("ner", "d1", 9, NOW + 100)) == [lost.id]


async def test_release_ends_what_was_to_be_canceled(store: Store) -> None:
    """A job that was to be canceled and comes back from the conveyor never goes out again."""
    job = a_job()
    await store.submit((job, b""))
    await store.claim("ner", "d1", 1, NOW)
    await store.cancel(job, "ada", False, NOW)
    [back] = await store.release([(job.id, 1)])
    assert (back.status, back.cancel_actor) == ("canceled", "ada")
    assert await store.get(job.id) == back
    assert await store.claim("ner", "d1", 1, NOW) == []


# --- what workers say ----------------------------------------------------------------------------


async def test_ingest_folds_a_batch(store: Store) -> None:
    """A batch moves many jobs in one commit, in the order of its events, and keeps the outputs."""
    jobs = [a_job() for _ in range(5)]
    await submitted(store, *jobs)
    before = store.commits
    story = [(job.id, started(job), None) for job in jobs]
    story += [(job.id, succeeded(job), pack({"of": job.id})) for job in jobs[:4]]
    changed = await store.ingest(story, NOW + 3)
    assert store.commits == before + 1
    assert [job.status for job in changed] == ["succeeded"] * 4 + ["running"]
    for job in changed:
        assert await store.get(job.id) == job
    for job in jobs[:4]:
        assert unpack(await store.payload(job.id, "output")) == {"of": job.id}
    history = await store.transitions(jobs[0].id)
    assert [(t.revision, t.status, t.actor) for t in history] == [
        (1, "queued", ""), (2, "running", "w1"), (3, "succeeded", "w1"),
    ]  # fmt: skip


async def test_ingest_twice_is_ingest_once(store: Store) -> None:
    """Results that are delivered again change nothing and are answered with nothing."""
    job, other = a_job(), a_job()
    await submitted(store, job, other)
    story = [
        (job.id, started(job), None),
        (job.id, succeeded(job), b"first"),
        (other.id, failed(other, errors.TransientFailure()), None),
    ]
    await store.ingest(story, NOW)
    kept = [await store.get(one.id) for one in (job, other)]
    assert await store.ingest([*story, (job.id, succeeded(job), b"second")], NOW + 9) == []
    assert [await store.get(one.id) for one in (job, other)] == kept
    assert await store.payload(job.id, "output") == b"first"


async def test_output_of_an_old_attempt_never_lands(store: Store) -> None:
    """A worker that was given up for lost cannot put its result under the next attempt."""
    job = a_job()
    await store.submit((job, b""))
    [again] = await store.ingest([(job.id, failed(job, errors.WorkerLost()), None)], NOW)
    assert (again.status, again.attempt, again.available_at) == ("queued", 2, NOW + 0.5)
    assert await store.ingest([(job.id, succeeded(job, attempt=1), b"old")], NOW) == []
    assert await store.payload(job.id, "output") is None
    await store.ingest([(job.id, succeeded(job, attempt=2), b"new")], NOW)
    assert await store.payload(job.id, "output") == b"new"
    history = await store.transitions(job.id)
    assert [(t.status, t.reason, t.attempt) for t in history] == [
        ("queued", None, 1), ("queued", "worker_lost", 2), ("succeeded", None, 2),
    ]  # fmt: skip


async def test_ingest_skips_what_it_does_not_know(store: Store) -> None:
    """Events of erased or invented jobs do not hold up the others in their batch."""
    job, strange = a_job(), a_job(id="\0\ud800")
    await store.submit((job, b""))
    batch = [(strange.id, started(strange), None), (job.id, started(job, "w\0\ud800"), None)]
    assert ids(await store.ingest(batch, NOW)) == [job.id]
    assert (await store.get(job.id)).status == "running"
    assert await store.ingest([], NOW) == []


async def test_results_and_cancels_at_once_agree(store: Store, database_url: str) -> None:
    """When two orchestrators end the same jobs differently, each job has one end, told once."""
    other = Store(database_url, now=lambda: NOW)
    await other.open()
    jobs = [a_job() for _ in range(40)]
    await submitted(store, *jobs)
    await store.claim("ner", "d1", 40, NOW)
    canceled, *ingested = await asyncio.gather(
        asyncio.gather(*(other.cancel(job, "ada", True, NOW) for job in jobs)),
        *(
            store.ingest([(job.id, succeeded(job), b"out") for job in part], NOW)
            for part in (jobs[30:], jobs[10:20], jobs[:10], jobs[20:30])
        ),
    )
    told = {job.id: job.status for part in ingested for job in part}
    for job, seen in zip(jobs, canceled, strict=True):
        final = await store.get(job.id)
        assert seen == ([] if final.id in told else [final])
        assert (final.status == "succeeded") == (final.id in told)
        assert (await store.payload(final.id, "output") is not None) == (final.id in told)
        assert len(await store.transitions(final.id)) == 2
    await other.close()


# --- composite jobs ------------------------------------------------------------------------------


async def a_family(store: Store, number: int = 2, **fields: Any) -> tuple[Job, list[Job]]:
    """Submit a composite job and return it with its parts."""
    whole = a_job(service=COMPOSITE, manifest_digest="", queue_deadline_at=None)
    parts = [a_job(**{"parent_id": whole.id, "part": f"p{n}", **fields}) for n in range(number)]
    await store.submit((whole, pack({})), *((part, pack({"n": 1})) for part in parts))
    return whole, parts


async def test_only_the_parts_of_a_composite_job_are_sent(store: Store) -> None:
    """A composite job is kept with its parts in their order, and is itself no work for anybody."""
    whole, parts = await a_family(store, 3)
    assert [part.part for part in await store.parts(whole.id)] == ["p0", "p1", "p2"]
    assert set(await store.backlog()) == {("ner", "d1")}
    assert await store.claim(COMPOSITE, "", 10, NOW) == []
    assert ids(job for job, _ in await store.claim("ner", "d1", 10, NOW)) == ids(parts)
    assert ids(await store.list(limit=9)) == [whole.id]
    assert sorted(ids(await store.list(limit=9, service="ner"))) == sorted(ids(parts))


async def test_a_composite_job_runs_and_ends_with_its_parts(store: Store) -> None:
    """It runs when the first part does and ends with the last, in the commit of that part."""
    whole, (one, other) = await a_family(store)
    await store.claim("ner", "d1", 10, NOW)
    changed = await store.ingest([(one.id, started(one), None)], NOW + 1)
    assert [(job.id, job.status) for job in changed] == [(one.id, "running"), (whole.id, "running")]
    assert ids(await store.ingest([(one.id, succeeded(one), b"x")], NOW + 2)) == [one.id]
    error = errors.InputRejected("no")
    changed = await store.ingest([(other.id, failed(other, error), None)], NOW + 3)
    final = changed[-1]
    assert (final.id, final.status, final.reason) == (whole.id, "failed", "part_failed")
    assert final.error["parts"] == {"p1": "input_rejected"}
    statuses = [row.status for row in await store.transitions(whole.id)]
    assert statuses == ["queued", "running", "failed"]


async def test_the_last_two_parts_may_end_at_once(store: Store, database_url: str) -> None:
    """When two orchestrators take in the last two parts together, the whole ends, once."""
    other = Store(database_url, now=lambda: NOW)
    await other.open()
    families = [await a_family(store) for _ in range(20)]
    await store.claim("ner", "d1", 100, NOW)
    left = [(parts[0].id, succeeded(parts[0]), b"x") for _, parts in families]
    right = [(parts[1].id, succeeded(parts[1]), b"x") for _, parts in reversed(families)]
    batches = [(store, left[:7]), (other, right[:9]), (store, left[7:]), (other, right[9:])]
    told = await asyncio.gather(*(at.ingest(batch, NOW + 1) for at, batch in batches))
    ended = [job.id for part in told for job in part if job.composite and job.finished]
    assert sorted(ended) == sorted(whole.id for whole, _ in families)
    for whole, _ in families:
        assert (await store.get(whole.id)).status == "succeeded"
    await other.close()


async def test_canceling_the_whole_cancels_its_parts(store: Store) -> None:
    """What waits is canceled at once, what has gone is marked, and the whole ends with the last."""
    whole, (one, other) = await a_family(store)
    await store.claim("ner", "d1", 1, NOW)
    changed = {job.id: job for job in await store.cancel(whole, "ada", False, NOW + 1)}
    assert changed[other.id].status == "canceled"
    assert (changed[one.id].status, changed[one.id].cancel_actor) == ("queued", "ada")
    # It runs, for one of its parts has begun to end.
    assert (changed[whole.id].status, changed[whole.id].cancel_actor) == ("running", "ada")
    changed = {job.id: job for job in await store.cancel(one, "ada", True, NOW + 2)}
    assert (changed[whole.id].status, changed[whole.id].reason) == ("canceled", "canceled_by_user")


async def test_erasing_the_whole_erases_its_parts(store: Store, sql: Callable[..., Any]) -> None:
    """Nothing is left of a composite job, nor of its parts."""
    whole, _ = await a_family(store)
    assert await store.delete(whole.id) is True
    for table in ("job", "payload", "transition"):
        assert sql(f"SELECT COUNT(*) FROM {table}") == [(0,)]


# --- manifests -----------------------------------------------------------------------------------


async def test_manifests_are_remembered(store: Store) -> None:
    """The last valid copy of each manifest is kept, with the time it was last seen."""
    await store.save_manifest("d1", "ner", {"name": "ner", "summary": "é"}, NOW)
    await store.save_manifest("d2", "topics", {"name": "topics"}, NOW)
    await store.save_manifest("d1", "ner", {"name": "ner", "summary": "é"}, NOW + 5)
    assert await store.manifests() == [
        ("d1", {"name": "ner", "summary": "é"}, NOW + 5),
        ("d2", {"name": "topics"}, NOW),
    ]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a database without a store, with an empty table `t` of one unique number."""
    database = Database(database_url)
    database.start()
    await database.write(lambda session: session.run("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield database
    await asyncio.to_thread(database.stop)


async def kept(database: Database) -> list[int]:
    """Return what the table holds."""
    rows = await database.read(lambda session: session.rows("SELECT n FROM t ORDER BY n"))
    return [number for (number,) in rows]


@contextlib.asynccontextmanager
async def held(database: Database) -> AsyncIterator[None]:
    """Keep the writer busy, so that what is written inside waits for it together."""
    begun, gate = threading.Event(), threading.Event()

    def hold(session: Session) -> None:
        begun.set()
        gate.wait(10)

    holding = asyncio.ensure_future(database.write(hold))
    await asyncio.to_thread(begun.wait, 10)
    yield
    await asyncio.sleep(0)  # lets the tasks that were made put their units in the line
    gate.set()
    await holding


# --- commits, troubles, ends ---------------------------------------------------------------------


async def test_waiting_writers_share_a_commit(store: Store) -> None:
    """Two hundred submits at once need few commits, and each is kept when it answers."""
    jobs = [a_job() for _ in range(200)]
    before = store.commits
    await submitted(store, *jobs)
    assert store.commits - before <= 200 // BATCH + 5
    assert await store.unfinished("ner") == 200


async def test_raising_unit_leaves_its_neighbours(database: Database) -> None:
    """A unit that raises is undone alone: the others of its commit are kept and answered."""

    def insert(session: Session, number: int, then: Exception | None) -> int:
        session.run("INSERT INTO t VALUES (?)", number)
        if then is not None:
            raise then
        return number

    before = database.commits
    async with held(database):
        writes = [
            asyncio.ensure_future(database.write(partial(insert, number=number, then=then)))
            for number, then in [(1, None), (2, ValueError("two")), (3, None), (1, None), (5, None)]
        ]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [a for a in answers if isinstance(a, int)] == [1, 3, 5]
    assert (str(answers[1]), type(answers[3])) == ("two", peewee.IntegrityError)
    assert database.commits - before == 2  # the one that held the others, and theirs
    assert await kept(database) == [1, 3, 5]


async def test_abandoned_unit_is_not_run(database: Database) -> None:
    """A write whose caller has gone away before its turn does not happen."""
    async with held(database):
        write = asyncio.ensure_future(
            database.write(lambda session: session.run("INSERT INTO t VALUES (1)"))
        )
        await asyncio.sleep(0)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
    assert await kept(database) == []


async def test_slow_database_is_not_waited_for(database: Database) -> None:
    """A caller gets an answer in time even when the database gives none."""
    async with held(database):
        with pytest.raises(errors.StoreUnavailable, match=r"did not answer within 0.01 s\.$"):
            await database.write(lambda session: session.rows("SELECT 1"), within=0.01)
    assert await database.write(lambda session: session.rows("SELECT 1")) == [(1,)]


async def test_a_late_write_is_in_doubt(database: Database) -> None:
    """A write that has begun when its caller gives up may be kept, and its caller is told so."""
    gate = threading.Event()

    def insert(session: Session) -> None:
        session.run("INSERT INTO t VALUES (1)")
        gate.wait(10)

    with pytest.raises(errors.StoreUnavailable, match="not known"):
        await database.write(insert, within=0.2)
    gate.set()
    await database.write(lambda session: session.rows("SELECT 1"))  # its turn comes after
    assert await kept(database) == [1]


async def test_broken_connections_are_replaced(
    postgres_databases: Callable[[], str],
) -> None:
    """After PostgreSQL has dropped every connection, reads and writes go on without an error."""
    url = postgres_databases()
    store = Store(url, now=lambda: NOW)
    await store.open()
    jobs = [a_job() for _ in range(8)]
    await submitted(store, *jobs)
    await asyncio.gather(*(store.get(job.id) for job in jobs))
    admin = psycopg2.connect(url)
    admin.autocommit = True
    cursor = admin.cursor()
    for _ in range(2):
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'nlp-runner' AND datname = current_database()"
        )
        assert cursor.fetchone()[0] >= 2
        more = a_job()
        found, *_ = await asyncio.gather(store.get(jobs[0].id), submitted(store, more))
        assert found == jobs[0]
        assert await store.get(more.id) == more
        await asyncio.gather(*(store.get(job.id) for job in jobs))
    admin.close()
    await store.close()


@pytest.mark.parametrize("times", [1, 100])
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_connection_lost_in_the_middle(database: Database, times: int) -> None:
    """Units whose connection breaks before COMMIT run again; one that always breaks it fails."""
    tries = itertools.count()

    def insert(session: Session, number: int) -> int:
        session.run("INSERT INTO t VALUES (?)", number)
        if number == 2 and next(tries) < times:
            session.rows("SELECT pg_terminate_backend(pg_backend_pid())")
        return number

    async with held(database):
        writes = [
            asyncio.ensure_future(database.write(partial(insert, number=number)))
            for number in range(5)
        ]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    rest = [0, 1, 2, 3, 4] if times == 1 else [0, 1, 3, 4]
    assert [answer for answer in answers if isinstance(answer, int)] == rest
    assert times == 1 or isinstance(answers[2], errors.StoreUnavailable)
    assert await kept(database) == rest


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_broken_commit_is_not_repeated(database: Database) -> None:
    """When the connection breaks in COMMIT nobody is told that the write happened, or did not."""
    await database.write(
        lambda session: session.run(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'; "
            "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION cut()"
        )
    )
    runs = itertools.count()

    def insert(session: Session) -> None:
        next(runs)
        session.run("INSERT INTO t VALUES (1)")

    with pytest.raises(errors.StoreUnavailable, match="not known"):
        await database.write(insert)
    assert next(runs) == 1
    assert await kept(database) == []


async def test_absent_postgresql_is_said_without_secrets() -> None:
    """A database that cannot be reached is a 503 that names neither host nor password."""
    store = Store("postgresql://ada:s3cret@127.0.0.1:1/jobs")
    with pytest.raises(errors.StoreUnavailable, match="cannot be reached") as caught:
        await store.open()
    assert caught.value.retry_after
    for word in ("s3cret", "ada", "127.0.0.1"):
        assert word not in str(caught.value.to_problem())


async def test_missing_folder_is_said() -> None:
    """A SQLite file that cannot be made is a sentence about the file, and no traceback."""
    with pytest.raises(errors.StoreUnavailable, match="cannot be opened"):
        await Store("sqlite:////nowhere/at/all/jobs.db").open()


async def test_full_disk_is_said(tmp_path: Path) -> None:
    """When the disk is full a submit says so, what was there can be read, and room heals it."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    store = Store(url)
    await store.open()
    job = a_job()
    await store.submit((job, b""))
    # SQLite's own limit gives the same error as a disk without room; it is per connection.
    limit = "PRAGMA max_page_count = {}".format
    [(pages,)] = await store._database.write(lambda session: session.rows("PRAGMA page_count"))
    await store._database.write(lambda session: session.rows(limit(pages)))
    with pytest.raises(errors.StoreUnavailable, match="disk of the database is full") as caught:
        await store.submit((a_job(), b"x" * 200_000))
    assert caught.value.retry_after
    assert await store.get(job.id) == job
    await store._database.write(lambda session: session.rows(limit(pages * 1000)))
    after = a_job()
    await store.submit((after, b"x" * 200_000))
    assert await store.get(after.id) == after
    await store.close()


async def test_foreign_file_is_said(tmp_path: Path) -> None:
    """A file that is no database is refused in words, and left as it is."""
    file = tmp_path / "notes.txt"
    file.write_text("dear diary " * 1000)
    with pytest.raises(errors.StoreUnavailable, match="not one of SQLite"):
        await Store(f"sqlite:///{file}").open()
    assert file.read_text() == "dear diary " * 1000


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ada:s3cret@host/jobs",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "postgresql://ada:s3cret@host",
        "postgresql://ada:s3cret@[::1/jobs",
        "s3cret",
    ],
)
def test_wrong_url_is_refused(url: str) -> None:
    """A URL that cannot work is refused at once, without a word of what it holds in secret."""
    with pytest.raises(errors.SettingInvalid) as caught:
        Store(url)
    assert "ada" not in str(caught.value)
    assert "s3cret@" not in str(caught.value)


async def test_relative_path_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes name a file where the process stands."""
    monkeypatch.chdir(tmp_path)
    store = Store("sqlite:///jobs.db")
    await store.open()
    await store.close()
    assert (tmp_path / "jobs.db").is_file()


async def test_sqlite_survives_power_loss(tmp_path: Path) -> None:
    """Every connection to SQLite syncs each commit, writes ahead, and checks foreign keys."""
    store = Store(f"sqlite:///{tmp_path}/jobs.db")
    await store.open()

    def settings(session: Session) -> list[Any]:
        names = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        return [session.rows(f"PRAGMA {name}")[0][0] for name in names]

    expected = ["wal", 2, 5000, 1]
    assert await store._database.write(settings) == expected
    assert await store._database.read(settings) == expected
    await store.close()


async def test_postgresql_is_given_limits(postgres_databases: Callable[[], str]) -> None:
    """Every connection to PostgreSQL has its timeouts, and keeps the options of the URL."""
    url = postgres_databases()
    store = Store(f"{url}&options=-c%20work_mem%3D8MB")
    await store.open()

    def settings(session: Session) -> list[Any]:
        names = ("statement_timeout", "lock_timeout", "work_mem")
        return [session.rows(f"SHOW {name}")[0][0] for name in names]

    assert await store._database.read(settings) == ["30s", "10s", "8MB"]
    await store.close()


async def test_ping_and_closed_store(store: Store) -> None:
    """A store says whether its database answers, and one that is closed says that it is."""
    await store.ping()
    await store.close()
    with pytest.raises(errors.StoreUnavailable, match="not open"):
        await store.ping()


def test_close_leaves_no_thread(database_url: str) -> None:
    """A store that is closed leaves no thread and no connection behind."""
    before = set(threading.enumerate())

    async def story() -> None:
        store = Store(database_url)
        await store.open()
        await store.submit((a_job(), b""))
        await store.list(limit=1)
        await store.close()
        assert not store._database._pool._in_use
        assert not store._database._pool._connections

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, story()).result()
    assert {t for t in threading.enumerate() if t.is_alive()} <= before
