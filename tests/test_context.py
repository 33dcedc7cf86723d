"""What `runner.context` promises to handlers and to those who follow a job."""

import logging
import threading

import pytest

from runner import traceparent
from runner.context import PROGRESS_EVERY, Context, Stop
from runner.errors import Canceled, Interrupted, Stopped
from runner.events import Failed, Log, Progress, Step, Succeeded
from runner.manifest import StepSpec

STEPS = (StepSpec("read", "Read", 1), StepSpec("tag", "Tag", 8), StepSpec("write", "Write", 1))


class Clock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Scene:
    """A context, its clock, its stop, and what was heard of it."""

    def __init__(self, timeout: float | None = None) -> None:
        self.clock, self.stop, self.heard = Clock(), Stop(), []
        self.ctx = Context(
            job_id="j1", service="echo", steps=STEPS, emit=self.heard.append, stop=self.stop,
            timeout=timeout, clock=self.clock, now=self.clock,
        )  # fmt: skip

    def percents(self) -> list[float]:
        """Return every percentage that was told."""
        return [e.progress["percent"] for e in self.heard if isinstance(e, Step | Progress)]


@pytest.fixture
def scene() -> Scene:
    """A scene without a deadline."""
    return Scene()


def test_progress_follows_the_weights(scene):
    """The percentage is the finished share of the whole time that the manifest foresees."""
    with scene.ctx.step("read"):
        pass
    with scene.ctx.step("tag") as step:
        scene.clock.time += 1
        step.progress(1, 4)
    assert scene.percents() == [0.0, 10.0, 10.0, 30.0, 90.0]


def test_the_percentage_never_falls(scene):
    """Whatever a handler reports, in whatever order, a progress bar never goes back."""
    for name in ("write", "tag", "read", "tag"):
        with scene.ctx.step(name) as step:
            for done in (5, 1, 9, 0, 20, -3):
                scene.clock.time += 1
                step.progress(done, 10)
    assert scene.percents() == sorted(scene.percents())


def test_only_success_is_a_hundred_percent(scene):
    """All steps done is 99; the output may still be refused."""
    for name in ("read", "tag", "write"):
        with scene.ctx.step(name):
            pass
    assert scene.percents()[-1] == 99.0
    assert scene.ctx.close("succeeded")["percent"] == 100.0


def test_a_failure_keeps_its_percentage(scene):
    """A failed job shows how far it came: what ran has failed, what never ran was skipped."""
    with scene.ctx.step("read"):
        pass
    picture = scene.ctx.close("failed")
    assert picture["percent"] == 10.0
    assert [s["status"] for s in picture["steps"]] == ["succeeded", "skipped", "skipped"]


def test_progress_is_told_four_times_a_second_at_most(scene):
    """A handler may report every item: listeners hear what a person can see."""
    with scene.ctx.step("tag") as step:
        for done in step.track(range(1000)):
            scene.clock.time += PROGRESS_EVERY / 10 if done else 0
    heard = [event for event in scene.heard if isinstance(event, Progress)]
    assert 90 <= len(heard) <= 100
    assert scene.heard[-1].progress["steps"][1]["done"] == 1000


def test_a_tracked_iterable_is_passed_on_whole(scene):
    """Tracking changes nothing about the items, and counts those that are finished."""
    with scene.ctx.step("tag") as step:
        assert list(step.track(["a", "b"])) == ["a", "b"]
        assert list(step.track(iter("abc"), total=3)) == ["a", "b", "c"]
    [_, tag, _] = scene.ctx.picture()["steps"]
    assert (tag["done"], tag["total"], tag["title"]) == (3, 3, "Tag")


def test_without_a_total_only_the_count_is_known(scene):
    """A generator of unknown length is counted, and moves the percentage when its step ends."""
    with scene.ctx.step("tag") as step:
        assert len(list(step.track(iter("abc")))) == 3
        assert scene.ctx.picture()["percent"] == 0.0
    assert scene.ctx.picture()["percent"] == 80.0


def test_a_picture_is_a_copy(scene):
    """What was told of the progress does not change with it afterwards."""
    with scene.ctx.step("tag"):
        pass
    first, last = scene.heard[0].progress, scene.heard[-1].progress
    assert (first["steps"][1]["status"], last["steps"][1]["status"]) == ("running", "succeeded")


def test_a_step_may_stand_in_another_and_come_again(scene):
    """Leaving an inner step returns to the outer; a second visit begins anew."""
    with scene.ctx.step("tag") as step:
        with scene.ctx.step("read") as inner:
            inner.progress(1, 1)
        assert scene.ctx.picture()["step"] == "tag"
        step.progress(3, 4)
    with scene.ctx.step("read"):
        assert "done" not in scene.ctx.picture()["steps"][0]


def test_an_unknown_step_is_named_with_the_known_ones(scene):
    """A misspelled step is an error that helps."""
    with pytest.raises(LookupError, match=r"`tags` is not a step of echo.*read, tag, write"):
        scene.ctx.step("tags")


def test_numbers_of_other_libraries_become_plain(scene):
    """Whatever counts like a number is told as one that JSON knows."""

    class Scalar(float):
        """As NumPy's."""

    with scene.ctx.step("tag") as step:
        step.progress(Scalar(2), Scalar(4.5))
    tag = scene.heard[-1].progress["steps"][1]
    assert [type(tag["done"]), type(tag["total"])] == [int, float]


def checkpoints(ctx: Context) -> list:
    """Return everything that a handler may do which is a checkpoint."""
    outside = [ctx.check, lambda: ctx.step("read").__enter__()]
    step = ctx.step("tag").__enter__()
    return [*outside, lambda: step.progress(1), lambda: next(step.track([1]))]


@pytest.mark.parametrize("which", range(4))
def test_every_checkpoint_notices_a_cancel(scene, which):
    """Wherever a handler looks up, it learns that it should stop, and why."""
    checkpoint = checkpoints(scene.ctx)[which]
    scene.stop.request(Canceled("Ada asked for it."))
    with pytest.raises(Stopped) as caught:
        checkpoint()
    assert caught.value.error.detail == "Ada asked for it."


@pytest.mark.parametrize("which", range(4))
def test_every_checkpoint_notices_the_deadline(which):
    """Wherever a handler looks up after its time, it learns which clock ran out."""
    scene = Scene(timeout=5)
    checkpoint = checkpoints(scene.ctx)[which]
    scene.clock.time += 5.1
    with pytest.raises(Stopped, match=r"5\.1 s in step `tag`.*allows 5 s") as caught:
        checkpoint()
    assert caught.value.error.code == "timed_out"


def test_before_the_deadline_nothing_happens():
    """A handler in time runs on, and can ask how long it still has."""
    scene = Scene(timeout=5)
    scene.clock.time += 2
    scene.ctx.check()
    assert scene.ctx.remaining == 3.0
    scene.clock.time += 10
    assert scene.ctx.remaining == 0.0
    assert Scene().ctx.remaining is None


def test_the_first_reason_to_stop_stays():
    """A cancel during a shutdown does not change what the job is told."""
    stop = Stop()
    stop.request(Interrupted("The worker stops."))
    stop.request()
    assert stop.error.code == "interrupted"


@pytest.mark.parametrize(
    ("error", "status"),
    [(Canceled("no"), "canceled"), (Interrupted("no"), "failed"), (None, "failed")],
)
def test_a_step_ends_as_it_was_ended(scene, error, status):
    """The step that was running shows whether it was canceled or failed."""
    with pytest.raises((Stopped, ZeroDivisionError)), scene.ctx.step("tag"):
        raise Stopped(error) if error else ZeroDivisionError
    assert scene.heard[-1].status == status


def test_log_lines_reach_the_follower_and_the_process(scene, caplog):
    """What a handler logs is told to whoever follows the job, and stands in the log."""
    caplog.set_level(logging.INFO)
    scene.ctx.log.warning("only %d left", 3)
    scene.ctx.log.debug("not for followers")
    assert [(e.level, e.message) for e in scene.heard] == [("warning", "only 3 left")]
    assert [r.getMessage() for r in caplog.records] == ["only 3 left"]


def test_log_lines_say_what_they_are_about_from_any_thread(scene, caplog):
    """A line of a handler's own thread names job, service, attempt and trace like any other."""
    caplog.set_level("INFO")
    thread = threading.Thread(target=scene.ctx.log.info, args=("deep",))
    thread.start()
    thread.join()
    [record] = caplog.records
    assert record.about == {
        "job": "j1", "service": "echo", "attempt": 1, "trace_id": scene.ctx.traceparent[3:35],
    }  # fmt: skip


def test_the_trace_can_be_passed_on(scene):
    """A handler finds the header for what it calls: the one given, or one of the job's own."""
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ctx = Context(job_id="j1", service="echo", steps=STEPS, emit=print, traceparent=given)
    assert ctx.traceparent == given
    assert ctx.about["trace_id"] == given[3:35]
    assert traceparent.read(scene.ctx.traceparent) == scene.ctx.traceparent


def test_a_wrong_log_line_does_not_fail_the_job(scene, capsys):
    """A format that does not fit its arguments is a remark on standard error, no more."""
    scene.ctx.log.info("%d left", "three")
    assert scene.heard == []
    assert "Logging error" in capsys.readouterr().err


def test_a_very_long_log_line_is_cut(scene):
    """A handler that logs a document does not fill the stream with it."""
    scene.ctx.log.info("x" * 100_000)
    [event] = scene.heard
    assert isinstance(event, Log)
    assert len(event.message) == 2000


def test_events_are_numbered_without_gaps(scene):
    """Lines and progress from many threads are numbered once each, in the order they are told."""
    threads = [
        threading.Thread(target=lambda: [scene.ctx.log.info("x") for _ in range(200)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.seq for event in scene.heard] == list(range(1, 1601))


def test_nothing_follows_the_end(scene):
    """A thread that a handler left behind cannot speak after the final event."""
    scene.ctx.emit(Succeeded, output={}, progress=scene.ctx.close("succeeded"))
    scene.ctx.log.info("still here")
    scene.ctx.emit(Failed, error={})
    assert [event.kind for event in scene.heard] == ["succeeded"]


def test_a_deaf_listener_does_not_disturb_the_work(caplog):
    """A listener that raises is a line in the log; the handler works on."""

    def deaf(event):
        raise ConnectionError("gone")

    ctx = Context(job_id="j1", service="echo", steps=STEPS, emit=deaf)
    with ctx.step("tag") as step:
        assert list(step.track([1, 2])) == [1, 2]
    assert "could not be told" in caplog.text
