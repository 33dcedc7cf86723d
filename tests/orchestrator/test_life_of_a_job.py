"""Whatever happens to jobs in whatever order, the database says what a model of them says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from specimens import a_job, said

from runner import errors, events
from runner.orchestrator.intake import KEPT, Once
from runner.orchestrator.jobs import (
    RANK,
    CancelRequested,
    Job,
    advance,
    backoff_delay,
    expiry,
)
from runner.orchestrator.store import Store
from runner.payload import pack, unpack

BACKOFF = partial(backoff_delay, random=lambda: 0.5)
KINDS = {
    "lost": errors.WorkerLost, "transient": errors.TransientFailure,
    "interrupted": errors.Interrupted, "raised": errors.HandlerFailed,
    "poisoned": errors.Poisoned, "late": errors.TimedOut, "rejected": errors.InputRejected,
}  # fmt: skip


ASKED = st.fixed_dictionaries(
    {
        "fingerprint": st.sampled_from(["a", "a", "b", None]),
        "priority": st.integers(0, 9),
        "attempts": st.integers(1, 3),
        "retention": st.sampled_from([None, 30.0]),
        "deadline_at": st.sampled_from([None, 2.0, 20.0]),
    }
)
"""What a caller may ask for; the deadline is in seconds from now."""


@dataclass
class World:
    """The real store, its clock, and a loop to run it on."""

    url: str
    at: float = 1_000_000.0
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.runner = asyncio.Runner()
        self.store = Store(self.url, now=lambda: self.at, chance=lambda: 0.5)
        self.run(self.store.open())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def close(self) -> None:
        self.run(self.store.close())
        self.runner.close()


class LifeOfAJob(RuleBasedStateMachine):
    """Everything that can happen to the jobs of one service, done to the store and to a model."""

    world: ClassVar[World]

    @initialize(asked=st.lists(ASKED, min_size=2, max_size=4))
    def begin(self, asked: list[dict[str, Any]]) -> None:
        """Start with a service that has been asked for a few things."""
        self.name = f"service-{next(self.world.numbers)}"
        self.world.at += 10 * KEPT  # nothing of an earlier story is in force
        self.jobs: dict[str, Job] = {}
        self.outputs: dict[str, Any] = {}
        self.keys: dict[str, tuple[str, list[str], float]] = {}
        self.told: list[tuple[str, events.Event, bytes | None]] = []
        for fields in asked:
            self.submit(fields, reuse=True)

    # --- helpers ---------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.world.at

    def pick(self, data: st.DataObject, *statuses: str) -> Job:
        """Choose a job, of these states if any are named."""
        found = [job for job in self.jobs.values() if not statuses or job.status in statuses]
        assume(found)
        chosen: Job = data.draw(st.sampled_from(found))
        return chosen

    def a_job(self, **fields: Any) -> Job:
        return a_job(
            owner=self.name, service=self.name, created_at=self.now, available_at=self.now,
            updated_at=self.now, queue_deadline_at=self.now + 100, **fields,
        )  # fmt: skip

    def moves(self, after: Job) -> None:
        """Take a change into the model, and see that it goes forward."""
        before = self.jobs[after.id]
        assert (after.attempt, RANK[after.status]) >= (before.attempt, RANK[before.status])
        assert after is before or not before.finished
        self.jobs[after.id] = after

    def tell(self, job: Job, event: events.Event, output: Any = None) -> None:
        """Let something be heard of a job."""
        packed = None if output is None else pack(output)
        self.told.append((job.id, event, packed))
        self.hear(*self.told[-1])

    def hear(self, job_id: str, event: events.Event, packed: bytes | None) -> None:
        changed = self.world.run(self.world.store.ingest([(job_id, event, packed)], self.now))
        before = self.jobs.get(job_id)
        if before is None:
            assert changed == []
            return
        after = advance(before, event, self.now, BACKOFF)
        assert changed == ([] if after is before else [after])
        self.moves(after)
        if after is not before and after.status == "succeeded" and packed is not None:
            self.outputs[job_id] = unpack(packed)

    def said(self, kind: type[events.Event], job: Job, attempt: int, **fields: Any) -> Any:
        return said(kind, job, self.now, attempt=attempt, **fields)

    # --- what callers do -------------------------------------------------------------------------

    @rule(fields=ASKED, reuse=st.sampled_from([True, True, False]))
    def submit(self, fields: dict[str, Any], reuse: bool) -> None:
        """Ask for a job."""
        content, deadline = fields["fingerprint"], fields["deadline_at"]
        due = None if deadline is None else self.now + deadline
        job = self.a_job(**{**fields, "deadline_at": due})
        since = {content: 0.0} if content and reuse else {}
        taken = self.world.run(
            self.world.store.submit((job, pack({"content": content})), since=since)
        )
        lenders = [
            one
            for one in self.jobs.values()
            if since and one.fingerprint == content and one.status == "succeeded"
            and one.id in self.outputs and (one.expires_at is None or one.expires_at > self.now)
        ]  # fmt: skip
        assert not taken.replayed
        assert taken.job.finished == bool(lenders)
        self.jobs[job.id] = job
        if lenders:
            latest = max(one.finished_at or 0 for one in lenders)
            assert taken.job.reused_from in [o.id for o in lenders if o.finished_at == latest]
            self.outputs[job.id] = self.outputs[taken.job.reused_from]
            self.jobs[job.id] = replace(
                job, status="succeeded", reused_from=taken.job.reused_from, fingerprint=None,
                finished_at=self.now, progress=taken.job.progress,
                expires_at=expiry(job, self.now),
            )  # fmt: skip

    @precondition(lambda self: self.outputs)
    @rule(data=st.data(), fields=ASKED)
    def submit_the_same(self, data: st.DataObject, fields: dict[str, Any]) -> None:
        """Ask for what was answered before."""
        job = self.pick(data, "succeeded")
        assume(job.fingerprint is not None)
        self.submit({**fields, "fingerprint": job.fingerprint}, reuse=True)

    @rule(key=st.sampled_from("kl"), says=st.sampled_from("xy"), count=st.integers(1, 2))
    def submit_once(self, key: str, says: str, count: int) -> None:
        """Ask under a key, for the first time or again, perhaps for something else."""
        once = Once(self.name, key, says)
        jobs = [self.a_job(idempotency_key=key, retention=30.0) for _ in range(count)]
        work = self.world.store.submit(*((job, pack({})) for job in jobs), once=once)
        known = self.keys.get(key)
        if known is None:
            assert self.world.run(work).jobs == jobs
            self.keys[key] = (says, [job.id for job in jobs], self.now)
            self.jobs |= {job.id: job for job in jobs}
            return
        left = [self.jobs[one] for one in known[1] if one in self.jobs]
        wrong = errors.IdempotencyMismatch if known[0] != says else errors.JobErased
        if known[0] != says or not left:
            with pytest.raises(wrong):
                self.world.run(work)
            return
        taken = self.world.run(work)
        assert (taken.jobs, taken.replayed) == (left, True)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Ask again for what a finished job was asked."""
        old = self.pick(data, "failed", "canceled", "succeeded")
        job = self.a_job(retry_of=old.id)
        packed = self.world.run(self.world.store.payload(old.id, "input"))
        taken = self.world.run(self.world.store.submit((job, packed)))
        assert taken.job == job
        self.jobs[job.id] = job

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), actor=st.sampled_from(["ada", "bob"]), revoked=st.booleans())
    def cancel(self, data: st.DataObject, actor: str, revoked: bool) -> None:
        """Ask for a job to end."""
        job = self.pick(data)
        changed = self.world.run(self.world.store.cancel(job, actor, revoked, self.now))
        after = advance(job, CancelRequested(actor, revoked), self.now, BACKOFF)
        assert changed == ([] if after is job else [after])
        self.moves(after)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        """Have a job deleted."""
        job = self.pick(data)
        assert self.world.run(self.world.store.delete(job.id))
        self.forget([job.id], keys=True)

    def forget(self, ids: list[str], *, keys: bool) -> None:
        for job_id in ids:
            job = self.jobs.pop(job_id)
            self.outputs.pop(job_id, None)
            key = job.idempotency_key
            if keys and key and not any(one in self.jobs for one in self.keys[key][1]):
                del self.keys[key]

    # --- what the conveyor and the workers do ----------------------------------------------------

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        """Take the next jobs for the conveyor."""
        work = self.world.store.claim(self.name, "d1", limit, self.now)
        taken = [job for job, _ in self.world.run(work)]
        waiting = [
            job
            for job in self.jobs.values()
            if job.status == "queued" and not job.dispatched_at and job.available_at <= self.now
        ]
        waiting.sort(key=lambda job: (-job.priority, job.created_at, job.id))
        expected = [replace(job, dispatched_at=self.now) for job in waiting[:limit]]
        assert taken == expected
        self.jobs |= {job.id: job for job in expected}

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Take a job back whose message was lost."""
        job = self.pick(data)
        released = self.world.run(self.world.store.release([(job.id, job.attempt)]))
        if job.status != "queued" or job.dispatched_at is None:
            assert released == []
            return
        after = replace(job, dispatched_at=None)
        if job.cancel_requested_at is not None:
            command = CancelRequested(job.cancel_actor or "", revoked=True)
            after = advance(after, command, self.now, BACKOFF)
        assert released == [after]
        self.moves(after)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), worker=st.sampled_from(["w1", "w2"]))
    def start(self, data: st.DataObject, worker: str) -> None:
        """Let a worker begin a job."""
        job = self.pick(data, "queued", "running")
        self.tell(job, self.said(events.Started, job, job.attempt, worker=worker))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), late=st.booleans())
    def succeed(self, data: st.DataObject, late: bool) -> None:
        """Hand over a result, of the present attempt or of one before it."""
        job = self.pick(data)
        attempt = max(1, job.attempt - late)
        end = self.said(events.Succeeded, job, attempt, output=None, progress={"percent": 100.0})
        self.tell(job, end, {"of": job.id, "attempt": attempt})

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
    def fail(self, data: st.DataObject, kind: str) -> None:
        """Let an attempt fail, or its worker crash."""
        job = self.pick(data, "queued", "running")
        problem = KINDS[kind](kind).to_problem()
        self.tell(job, self.said(events.Failed, job, job.attempt, error=problem))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def notice_the_cancel(self, data: st.DataObject) -> None:
        """Let a worker stop at a checkpoint."""
        job = self.pick(data, "running")
        assume(job.cancel_requested_at is not None)
        problem = errors.Canceled("stopped").to_problem()
        self.tell(job, self.said(events.Canceled, job, job.attempt, error=problem))

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def hear_again(self, data: st.DataObject) -> None:
        """Hear what was heard before: of this attempt, of an old one, of an erased job."""
        self.hear(*data.draw(st.sampled_from(self.told)))

    # --- what time does --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 5.0, 25.0, KEPT]))
    def go_on(self, seconds: float) -> None:
        """Let time go by."""
        self.world.at += seconds

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), beyond=st.sampled_from([-0.1, 0.0, 0.1]))
    def go_to_an_edge(self, data: st.DataObject, beyond: float) -> None:
        """Let time go by up to a moment at which something is due."""
        job = self.pick(data)
        times = (job.available_at, job.queue_deadline_at, job.deadline_at, job.expires_at)
        coming = [at + beyond for at in times if at is not None and at + beyond > self.now]
        assume(coming)
        self.world.at = data.draw(st.sampled_from(coming))

    def overdue(self) -> list[Job]:
        """Return what has waited too long."""
        return [
            job for job in self.jobs.values()
            if job.status == "queued" and (job.queue_deadline_at or 0) < self.now
        ]  # fmt: skip

    def past_deadline(self) -> list[Job]:
        """Return what should have ended."""
        return [
            job for job in self.jobs.values()
            if not job.finished and job.deadline_at is not None and job.deadline_at <= self.now
        ]  # fmt: skip

    @rule()
    def expire(self) -> None:
        """End what has waited too long for its start."""
        for job in self.overdue():
            problem = errors.Expired().to_problem()
            self.tell(job, self.said(events.Failed, job, job.attempt, error=problem))
            assert self.jobs[job.id].reason == "expired"

    @rule()
    def keep_deadlines(self) -> None:
        """End what has not ended at its deadline, wherever it is."""
        for job in self.past_deadline():
            problem = errors.DeadlineExceeded().to_problem()
            self.tell(job, self.said(events.Failed, job, job.attempt, error=problem))
            assert (self.jobs[job.id].status, self.jobs[job.id].reason) == (
                "failed", "deadline_exceeded",
            )  # fmt: skip

    @rule()
    def purge(self) -> None:
        """Erase what is over, and the keys that nobody can mean any more."""
        over = [
            job.id for job in self.jobs.values()
            if job.finished and job.expires_at is not None and job.expires_at <= self.now
        ]  # fmt: skip
        erased = self.world.run(self.world.store.purge(self.now, 1000))
        assert set(over) <= set(erased)
        assert not set(erased) & (self.jobs.keys() - set(over))
        self.forget(over, keys=False)
        for key, (_, ids, made) in list(self.keys.items()):
            if made <= self.now - KEPT and not any(one in self.jobs for one in ids):
                del self.keys[key]

    # --- what must always hold -------------------------------------------------------------------

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        """Every job stands as the fold says, with its output where it succeeded, and no other."""
        if not hasattr(self, "jobs"):
            return
        kept = self.world.run(self.world.store.list(limit=1000, service=self.name))
        assert {job.id: job for job in kept} == self.jobs
        for job in kept:
            assert job.finished == (job.finished_at is not None)
            assert job.attempt <= job.attempts
            assert (job.id in self.outputs) == (job.status == "succeeded")
            if job.attempt > 1 and job.status == "queued" and job.deadline_at is not None:
                assert job.available_at < job.deadline_at

    @invariant()
    def the_clocks_find_what_is_due(self) -> None:
        """Both clocks of the database find what the model finds, and nothing else."""
        if not hasattr(self, "jobs"):
            return
        for look, expected in (
            (self.world.store.overdue, self.overdue()),
            (self.world.store.past_deadline, self.past_deadline()),
        ):
            found = [job.id for job in self.world.run(look(self.now)) if job.service == self.name]
            assert sorted(found) == sorted(job.id for job in expected)

    def teardown(self) -> None:
        """Read every output and history once more."""
        for job_id, job in getattr(self, "jobs", {}).items():
            packed = self.world.run(self.world.store.payload(job_id, "output"))
            assert (unpack(packed) if packed else None) == self.outputs.get(job_id)
            history = self.world.run(self.world.store.transitions(job_id))
            ranks = [(row.attempt, RANK[row.status]) for row in history]
            assert ranks == sorted(ranks)
            assert history[-1].status == job.status


def test_the_store_agrees_with_the_model(database_url: str) -> None:
    """Submits, keys, claims, results, crashes, cancels, clocks and erasures in any order end as the
    model says, and no job ever goes back."""
    world = World(database_url)
    machine = type("Life", (LifeOfAJob,), {"world": world})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=40, stateful_step_count=50, deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
    finally:
        world.close()
