"""What `runner.engine` promises to every door: one outcome, one story, and never an exception."""

import itertools
import logging
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runner.context import Stop
from runner.engine import Engine
from runner.errors import Canceled, HandlerInvalid, Interrupted
from runner.manifest import load
from runner.testing import Run, run

GALLERY = Path(__file__).parent / "gallery"
numbers = itertools.count()


def gallery(stem: str, input: object, **how: object) -> Run:
    """Run one service of the gallery."""
    return run(GALLERY / f"{stem}.yaml", input, **how)


def story(ran: Run) -> list[str]:
    """Return the words of a run's events."""
    return [event.kind for event in ran.events]


def test_a_success_has_an_output_and_a_story():
    """An execution begins with `started`, ends with `succeeded`, and its events are numbered."""
    ran = gallery("counts_steps", {"documents": ["one two", "three"]})
    assert (ran.status, ran.output, ran.error) == ("succeeded", {"words": [2, 1]}, None)
    assert story(ran) == ["started", *["step"] * 6, "succeeded"]
    assert [event.seq for event in ran.events] == list(range(1, 9))
    assert ran.events[-1].output == ran.output


def test_the_story_follows_the_weights_of_the_manifest():
    """Each step tells its beginning and end with the whole picture."""
    ran = gallery("counts_steps", {"documents": ["one"]})
    told = [(e.step, e.status, e.progress["percent"]) for e in ran.events if e.kind == "step"]
    assert told == [
        ("read", "running", 0.0), ("read", "succeeded", 10.0),
        ("count", "running", 10.0), ("count", "succeeded", 90.0),
        ("write", "running", 90.0), ("write", "succeeded", 99.0),
    ]  # fmt: skip
    assert ran.events[-1].progress["percent"] == 100.0


@pytest.mark.parametrize(
    ("stem", "input", "code", "words"),
    [
        ("fails_in_run", {}, "handler_error", "ZeroDivisionError: integer division"),
        ("exits", {}, "handler_error", "SystemExit: 3"),
        ("memory", {}, "out_of_memory", "ran out of memory"),
        ("transient", {}, "transient", "away on attempt 1"),
        ("rejects", {"text": "ab"}, "input_rejected", "not a palindrome"),
        ("unknown_step", {}, "handler_error", "`unknown` is not a step of unknown-step"),
        ("wrong_output", {"kind": "type"}, "output_invalid", "`/text` of the output has the wrong"),
        (
            "wrong_output",
            {"kind": "missing"},
            "output_invalid",
            "`/text` of the output is required",
        ),
        ("wrong_output", {"kind": "unknown"}, "output_invalid", "`/secret` of the output is not a"),
        ("wrong_output", {"kind": "nothing"}, "output_invalid", "expected object"),
        ("wrong_output", {"kind": "set"}, "output_invalid", "not plain JSON"),
        ("wrong_output", {"kind": "number"}, "output_invalid", "not plain JSON"),
        ("wrong_output", {"kind": "surrogate"}, "output_invalid", "not plain JSON"),
    ],
)
def test_a_failure_has_its_one_code(stem, input, code, words):
    """Whatever a handler does wrong is one `failed` with one code, as outcome and as event."""
    ran = gallery(stem, input)
    assert (ran.status, ran.output, ran.error.code) == ("failed", None, code)
    assert words in ran.error.detail
    assert (story(ran)[0], story(ran)[-1]) == ("started", "failed")
    assert ran.events[-1].error["code"] == code


@pytest.mark.parametrize("input", [None, 5, [], {"text": 5}, {"other": "a"}, {"text": {1, 2}}])
def test_a_wrong_input_never_reaches_the_handler(input):
    """An input that breaks the schema fails before anything has started."""
    ran = gallery("echo", input)
    assert ran.error.code == "input_invalid"
    assert ran.error.problems
    assert story(ran) == ["failed"]


def test_an_error_is_located_in_the_authors_file(caplog):
    """The caller learns file and line below the service's folder; the trace stays in the log."""
    ran = gallery("fails_in_run", {})
    assert ran.error.to_problem()["at"] == "gallery/fails_in_run.py:7"
    assert gallery("unknown_step", {}).error.to_problem()["at"] == "gallery/unknown_step.py:6"
    assert "ZeroDivisionError" in caplog.text


def test_a_failed_step_is_seen_as_failed():
    """The last picture shows in which step it went wrong."""
    final = gallery("fails_in_run", {}).events[-1]
    assert [(s["name"], s["status"]) for s in final.progress["steps"]] == [("think", "failed")]


@pytest.mark.parametrize("stem", ["slow", "swallows"])
@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (Canceled("Ada asked."), "canceled", "canceled_by_user"),
        (Interrupted("The worker stops."), "failed", "interrupted"),
    ],
)
def test_a_stop_is_noticed_while_the_handler_works(stem, reason, status, code):
    """A request from another thread ends the work at a checkpoint, though all is caught there."""
    engine, stop, heard = Engine(load(GALLERY / f"{stem}.yaml")), Stop(), []

    def listen(event):
        heard.append(event)
        if event.kind == "step":
            threading.Thread(target=stop.request, args=[reason]).start()

    outcome = engine.run("j1", {"seconds": 60}, emit=listen, stop=stop)
    assert (outcome.status, outcome.error.code) == (status, code)
    assert heard[-1].kind == status
    assert heard[-1].error["detail"] == reason.detail


def test_a_stop_before_the_start_keeps_the_handler_still():
    """A job that was canceled while it waited never reaches its handler."""
    stop = Stop()
    stop.request()
    ran = gallery("fails_in_run", {}, stop=stop)
    assert (ran.status, story(ran)) == ("canceled", ["started", "canceled"])


def test_the_deadline_ends_the_work():
    """An attempt that takes too long fails with the clock that ran out."""
    ran = gallery("slow", {"seconds": 60}, timeout=0.1)
    assert (ran.status, ran.error.code) == ("failed", "timed_out")
    assert "in step `wait`" in ran.error.detail
    assert "allows 0.1 s" in ran.error.detail


def test_deaf_work_is_not_thrown_away():
    """A handler without checkpoints that finishes after a cancel has succeeded all the same."""
    stop = Stop()
    threading.Timer(0.05, stop.request).start()
    assert gallery("ignores_cancel", {"seconds": 0.2}, stop=stop).status == "succeeded"


def test_the_attempt_is_known_to_the_handler():
    """A failure that passes does pass on a later attempt, which every event names."""
    ran = gallery("transient", {"succeed_on": 3}, attempt=3)
    assert ran.output == {"done": 3}
    assert {event.attempt for event in ran.events} == {3}


def test_what_a_handler_logs_is_part_of_the_story():
    """Log lines are told between the start and the end, in their order."""
    ran = gallery("logs", {"lines": 2})
    assert story(ran) == ["started", "log", "log", "log", "succeeded"]
    assert [(e.level, e.message) for e in ran.events[2:4]] == [
        ("info", "line 2 of 2"),
        ("warning", "that was all"),
    ]


def test_a_large_output_is_returned_whole():
    """The engine itself has no limit of size."""
    assert len(gallery("huge_output", {"bytes": 5_000_000}).output["text"]) == 5_000_000


def test_many_requests_share_one_handler():
    """The handler is set up once; each request has its own story."""
    engine = Engine(load(GALLERY / "echo.yaml"))
    stories = [[] for _ in range(3)]
    for number, heard in enumerate(stories):
        engine.run(f"j{number}", {"text": "a"}, emit=heard.append, worker="w")
    assert [[e.job for e in heard] for heard in stories] == [["j0"] * 2, ["j1"] * 2, ["j2"] * 2]
    assert stories[0][0].worker == "w"


def written(folder: Path, code: str) -> Engine:
    """Return the engine of a function that is written here."""
    name = f"engine_{next(numbers)}"
    (folder / f"{name}.py").write_text(code, "utf-8")
    manifest = (GALLERY / "function_form.yaml").read_text().replace("gallery.function_form", name)
    (folder / "test.yaml").write_text(manifest, "utf-8")
    return Engine(load(folder / "test.yaml"))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("class E(Exception):\n    def __str__(self): raise ValueError\n"
         "def run(ctx, text): raise E", "handler_error"),
        ("def run(ctx, text): return run(ctx, text)", "handler_error"),
        ("def run(ctx, text): raise KeyboardInterrupt", "canceled_by_user"),
        ("def run(ctx, text): raise GeneratorExit", "handler_error"),
        ("def run(ctx, text): yield text", "output_invalid"),
        ("async def run(ctx, text): raise SystemExit(1)", "handler_error"),
        ("import asyncio\nasync def run(ctx, text):\n"
         "    async with asyncio.TaskGroup() as g: g.create_task(asyncio.sleep(text))",
         "handler_error"),
        ("import asyncio\nfrom runner.errors import Stopped, TimedOut\n"
         "async def f(): raise Stopped(TimedOut('t'))\nasync def run(ctx, text):\n"
         "    async with asyncio.TaskGroup() as g: g.create_task(f())", "timed_out"),
    ],
    ids=["wordless", "endless", "keyboard", "generator-exit", "generator", "exit", "group", "stop"],
)  # fmt: skip
def test_nothing_a_handler_raises_leaves_the_engine(tmp_path, code, error):
    """Even what no handler should raise becomes an outcome, and the next request is served."""
    engine = written(tmp_path, code)
    for _ in range(2):
        assert engine.run("j", {"text": "a"}, emit=lambda event: None).error.code == error


def test_a_listener_that_fails_does_not_fail_the_work(caplog):
    """A door that cannot tell an event still gets the outcome."""
    caplog.set_level(logging.CRITICAL, "runner.context")

    def deaf(event):
        raise ConnectionError("gone")

    engine = Engine(load(GALLERY / "echo.yaml"))
    assert engine.run("j", {"text": "a"}, emit=deaf).output == {"text": "a"}


def test_a_handler_that_cannot_be_used_is_told_before_any_request():
    """An engine does not exist without a working handler."""
    for stem in ("fails_on_import", "fails_in_setup"):
        with pytest.raises(HandlerInvalid, match=f"gallery.{stem}"):
            Engine(load(GALLERY / f"{stem}.yaml"))


def test_the_smoke_test_runs_the_first_example(tmp_path):
    """A worker finds out before its first job that its handler does not work."""
    Engine(load(GALLERY / "echo.yaml")).smoke()
    Engine(load(GALLERY / "fails_in_run.yaml")).smoke()  # it has no example
    with pytest.raises(HandlerInvalid, match="the example `Example 1` of function-form failed: ha"):
        written(tmp_path, "def run(ctx, text): return {'text': 1 // 0}").smoke()


def test_closing_never_raises(tmp_path, caplog):
    """A handler that fails to close is a line in the log."""
    code = (
        "class run:\n    def __init__(self, config): ...\n    def __call__(self, ctx, text): ...\n"
    )
    written(tmp_path, code + "    def close(self): raise OSError('stuck')\n").close()
    assert "stuck" in caplog.text


def in_a_process(code: str, megabytes: int | None = None) -> int:
    """Run code in a process of its own, perhaps with little memory, and return its exit status."""

    def limit():
        if megabytes:
            resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20,) * 2)

    return subprocess.run(
        [sys.executable, "-c", f"from runner.testing import run\n{code}"],
        cwd=GALLERY, env={**os.environ, "MALLOC_ARENA_MAX": "1"}, preexec_fn=limit, check=False,
    ).returncode  # fmt: skip


def test_real_exhaustion_of_memory_is_survived():
    """Where memory is limited, taking too much fails the job and not the process."""
    code = (
        "for megabytes, status in ((3000, 'failed'), (5, 'succeeded')):\n"
        "    ran = run('memory.yaml', {'megabytes': megabytes})\n"
        "    assert ran.status == status, ran\n"
        "    assert status == 'succeeded' or ran.error.code == 'out_of_memory', ran\n"
    )
    assert in_a_process(code, megabytes=1000) == 0


def test_only_a_hard_death_cannot_be_told():
    """The one end the engine cannot tell is that of its own process: others must notice."""
    assert in_a_process("run('dies.yaml', {})") == 7
    assert in_a_process("assert run('dies.yaml', {'attempts': 1}, attempt=2).output") == 0
