"""The fold that moves a job: what each event does, and what no order of events can undo."""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import specimens
from hypothesis import given
from hypothesis import strategies as st
from specimens import NOW

from runner import errors, events
from runner.orchestrator.jobs import (
    RANK,
    CancelRequested,
    Job,
    advance,
    backoff_delay,
    new_id,
    settle,
)

a_job = partial(specimens.a_job, id="job-1", created_at=NOW, queue_deadline_at=NOW + 100)


def said(kind: type[events.Event], attempt: int = 1, at: float = NOW + 5, **fields: Any) -> Any:
    """Return an event of the job's service."""
    return kind(job="job-1", service="ner", attempt=attempt, seq=1, at=at, **fields)


def failed(error: errors.RunnerError, attempt: int = 1) -> events.Failed:
    return said(events.Failed, attempt, error=error.to_problem())


def moved(job: Job, *story: Any, now: float = NOW + 10) -> Job:
    """Return the job after a story, with a backoff of 7 s."""
    for event in story:
        job = advance(job, event, now, lambda attempt: 7.0)
    return job


STARTED = said(events.Started, worker="w1")
SUCCEEDED = said(events.Succeeded, output={"n": 1}, progress={"percent": 100.0})
LOST = failed(errors.WorkerLost("The worker died."))


# --- ids and delays ------------------------------------------------------------------------------


def test_ids_sort_by_time() -> None:
    """An id is a UUID of version 7, and ids sort as they were made, even within a millisecond."""
    made = [new_id(lambda moment=moment: moment) for moment in range(10**18, 10**18 + 10**7, 500)]
    assert made == sorted(made)
    assert {uuid.UUID(one).version for one in made} == {7}
    assert {uuid.UUID(one).variant for one in made} == {uuid.RFC_4122}
    assert len(set(made)) == len(made)


def test_id_begins_with_its_milliseconds() -> None:
    """The first 48 bits of an id are its time, as RFC 9562 says, so that others can read it."""
    one = uuid.UUID(new_id(lambda: 1_700_000_000_123_000_000))
    assert one.int >> 80 == 1_700_000_000_123


@given(attempt=st.integers(1, 10**6), chance=st.floats(0, 1, exclude_max=True))
def test_backoff_stays_below_its_cap(attempt: int, chance: float) -> None:
    """A delay doubles with each attempt, never exceeds a minute, and may be anything below that."""
    delay = backoff_delay(attempt, lambda: chance)
    assert 0 <= delay < 60
    assert delay <= 2.0 ** min(attempt - 1, 30)


# --- what each event does ------------------------------------------------------------------------


def test_started_says_who_and_when() -> None:
    """A job that starts is running, at the worker's time, on that worker."""
    job = moved(a_job(dispatched_at=NOW + 1), STARTED)
    assert (job.status, job.worker, job.started_at) == ("running", "w1", NOW + 5)
    assert (job.updated_at, job.revision, job.dispatched_at) == (NOW + 10, 2, NOW + 1)


def test_second_start_only_names_the_worker() -> None:
    """An attempt that starts once more keeps its first start; the same start twice is nothing."""
    running = moved(a_job(), STARTED)
    assert moved(running, STARTED) is running
    again = moved(running, said(events.Started, at=NOW + 8, worker="w2"))
    assert (again.worker, again.started_at, again.revision) == ("w2", NOW + 5, 3)


def test_what_starts_is_on_the_conveyor() -> None:
    """A job that was taken back and starts all the same counts as dispatched, so none claims it."""
    assert moved(a_job(dispatched_at=None), STARTED).dispatched_at is not None


@pytest.mark.parametrize("story", [[STARTED, SUCCEEDED], [SUCCEEDED], [SUCCEEDED, STARTED]])
def test_result_may_overtake_the_start(story: list[Any]) -> None:
    """A result makes a job succeed whether or not its start was heard before."""
    job = moved(a_job(), *story)
    assert (job.status, job.reason, job.finished_at) == ("succeeded", None, NOW + 5)
    assert job.progress == {"percent": 100.0}


def test_progress_is_no_change() -> None:
    """Steps, progress and logs leave the very same job, so that they cost no write."""
    running = moved(a_job(), STARTED)
    step = said(events.Step, step="tag", status="running", progress={})
    progress = said(events.Progress, step="tag", progress={})
    log = said(events.Log, level="info", message="hello")
    assert moved(running, step, progress, log) is running


@pytest.mark.parametrize("code", sorted(errors.RETRYABLE))
def test_passing_failure_is_tried_again(code: str) -> None:
    """A failure that may pass queues the next attempt after the backoff, and keeps its error."""
    problem = {"code": code, "detail": "gone"}
    job = moved(a_job(dispatched_at=NOW), STARTED, said(events.Failed, error=problem))
    assert (job.status, job.attempt, job.reason, job.error) == ("queued", 2, None, problem)
    assert (job.available_at, job.finished_at) == (NOW + 17, None)
    assert (job.dispatched_at, job.started_at, job.worker, job.progress) == (None,) * 4


def test_next_attempt_may_wait_as_long() -> None:
    """An attempt that follows gets the waiting time of the first, instead of what is left of it."""
    job = moved(a_job(), STARTED, LOST, now=NOW + 500)
    assert job.queue_deadline_at == job.available_at + 100
    assert moved(a_job(queue_deadline_at=None), LOST).queue_deadline_at is None


def test_last_attempt_fails() -> None:
    """A job whose attempts are used up fails with the code of its last one."""
    job = moved(a_job(attempts=2), LOST, failed(errors.WorkerLost("Again."), attempt=2))
    assert (job.status, job.reason, job.attempt) == ("failed", "worker_lost", 2)
    assert job.error is not None
    assert job.error["detail"] == "Again."


@pytest.mark.parametrize(
    "error", [errors.HandlerFailed(), errors.TimedOut(), errors.InputRejected(), errors.Poisoned()]
)
def test_lasting_failure_is_final(error: errors.RunnerError) -> None:
    """A failure that would come again ends the job at its first attempt."""
    job = moved(a_job(), STARTED, failed(error))
    assert (job.status, job.reason, job.attempt) == ("failed", error.code, 1)


def test_success_forgets_earlier_errors() -> None:
    """A job that succeeded at last shows no error."""
    job = moved(a_job(), LOST, replace(SUCCEEDED, attempt=2))
    assert (job.status, job.error) == ("succeeded", None)


def test_expiry_ends_only_what_waits() -> None:
    """A job that started just before it was found overdue goes on."""
    expired = failed(errors.Expired())
    assert moved(a_job(), expired).reason == "expired"
    running = moved(a_job(), STARTED)
    assert moved(running, expired) is running


def test_stopped_by_its_worker() -> None:
    """A worker that noticed the cancellation ends the job as canceled."""
    job = moved(a_job(), STARTED, said(events.Canceled, error=errors.Canceled().to_problem()))
    assert (job.status, job.reason) == ("canceled", "canceled_by_user")


@pytest.mark.parametrize("error", [None, "boom", {}, {"code": 7}, {"code": ""}])
def test_strange_error_is_internal(error: Any) -> None:
    """An error that is no problem document still ends the job, with the reason `internal`."""
    job = moved(a_job(), said(events.Failed, error=error))
    assert (job.status, job.reason) == ("failed", "internal")
    assert isinstance(job.error, dict)


@pytest.mark.parametrize("at", [NOW - 3600, NOW + 3600, float("nan"), "now", None])
def test_wrong_clock_is_not_believed(at: Any) -> None:
    """A time before the job's beginning or in the future is replaced by our own."""
    assert moved(a_job(), said(events.Started, at=at)).started_at == NOW + 10


# --- cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "revoked"), [(None, False), (NOW, True), (None, True)])
def test_cancel_ends_what_no_worker_holds(sent: float | None, revoked: bool) -> None:
    """A queued job ends at once if it was not sent, or if its message was taken back."""
    job = moved(a_job(dispatched_at=sent), CancelRequested("ada", revoked))
    assert (job.status, job.reason, job.cancel_actor) == ("canceled", "canceled_by_user", "ada")
    assert (job.finished_at, job.cancel_requested_at) == (NOW + 10, NOW + 10)


def test_cancel_only_asks_what_may_run() -> None:
    """A job that a worker may hold is marked; the first to ask stays the one who asked."""
    job = moved(a_job(dispatched_at=NOW), CancelRequested("ada"))
    assert (job.status, job.cancel_requested_at, job.cancel_actor) == ("queued", NOW + 10, "ada")
    assert moved(job, CancelRequested("bob"), now=NOW + 20) is job
    ended = moved(job, CancelRequested("bob", revoked=True), now=NOW + 20)
    assert (ended.status, ended.cancel_requested_at, ended.cancel_actor) == (
        "canceled", NOW + 10, "ada",
    )  # fmt: skip


def test_canceled_job_is_not_tried_again() -> None:
    """A job that somebody wants to end is not retried when its worker dies: it is canceled."""
    job = moved(a_job(), STARTED, CancelRequested("ada"), LOST)
    assert (job.status, job.reason, job.attempt) == ("canceled", "canceled_by_user", 1)


def test_result_beats_a_late_cancel() -> None:
    """A job that finishes before its worker notices the request has succeeded."""
    job = moved(a_job(), STARTED, CancelRequested("ada"), SUCCEEDED)
    assert job.status == "succeeded"


# --- what no order of events can undo ------------------------------------------------------------

attempts = st.integers(1, 4)
problems = st.sampled_from(
    [errors.WorkerLost, errors.TransientFailure, errors.HandlerFailed, errors.Expired]
).map(lambda kind: kind().to_problem())
stories = st.lists(
    st.one_of(
        st.builds(CancelRequested, st.sampled_from(["ada", "bob"]), st.booleans()),
        st.builds(said, st.just(events.Started), attempts, worker=st.sampled_from(["w1", "w2"])),
        st.builds(said, st.just(events.Failed), attempts, error=problems),
        st.builds(said, st.just(events.Canceled), attempts, error=problems),
        st.builds(
            said, st.just(events.Progress), attempts, step=st.just("s"), progress=st.just({})
        ),
        st.builds(
            lambda attempt: said(
                events.Succeeded, attempt, output=None, progress={"attempt": attempt}
            ),
            attempts,
        ),
    ),
    max_size=30,
)


@given(story=stories, most=st.integers(1, 4), sent=st.none() | st.just(NOW))
def test_job_only_moves_forward(story: list[Any], most: int, sent: float | None) -> None:
    """Whatever happens in whatever order, a job never goes back, and what it ended with stays."""
    job = a_job(attempts=most, dispatched_at=sent)
    for second, event in enumerate(story):
        after = advance(job, event, NOW + second, lambda attempt: 1.0)
        assert (after.attempt, RANK[after.status]) >= (job.attempt, RANK[job.status])
        assert after.attempt <= most
        if job.finished or (isinstance(event, events.Event) and event.attempt != job.attempt):
            assert after is job
        if after is not job:
            assert after.revision == job.revision + 1
            assert after.updated_at == NOW + second
        if after.status == "succeeded" and not job.finished:
            assert after.progress == {"attempt": job.attempt}
        assert after.finished == (after.finished_at is not None)
        assert (after.status == "running") == (after.started_at is not None and not after.finished)
        job = after


# --- composite jobs ------------------------------------------------------------------------------


def a_part(status: str) -> Job:
    """Return a part as it stands in this state."""
    ended = NOW + 3 if status in ("succeeded", "failed", "canceled") else None
    began = NOW + 1 if status != "queued" else None
    return a_job(
        part=status, parent_id="whole", status=status, started_at=began, finished_at=ended,
        reason="handler_error" if status == "failed" else None,
    )  # fmt: skip


@given(st.lists(st.sampled_from(sorted(RANK)), min_size=1, max_size=6))
def test_a_composite_job_is_what_its_parts_are(statuses: list[str]) -> None:
    """It ends with its last part and by its worst one, and never begins before its first."""
    whole = a_job(id="whole", service="", manifest_digest="")
    after = settle(whole, [a_part(status) for status in statuses], NOW + 5)
    if {"queued", "running"} & set(statuses):
        assert not after.finished
        assert (after.status == "queued") == (set(statuses) == {"queued"})
    else:
        worst = [word for word in ("failed", "canceled", "succeeded") if word in statuses]
        assert after.status == worst[0]
        assert (after.error is None) == (after.status == "succeeded")
        assert (after.started_at, after.finished_at) == (NOW + 1, NOW + 3)
    assert settle(after, [a_part("failed")], NOW + 9) is after or not after.finished


def test_a_composite_job_that_waits_is_only_marked_by_a_cancel() -> None:
    """It has no end of its own: its parts are canceled, and it ends with them."""
    whole = moved(a_job(service=""), CancelRequested("ada", revoked=True))
    assert (whole.status, whole.cancel_actor) == ("queued", "ada")
