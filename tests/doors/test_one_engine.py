"""There is one engine: through every door a service ends the same way and tells the same story."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from stage import Stage, gallery, read_sse

from runner import events, server, testing, web
from runner.context import Stop
from runner.engine import Engine
from runner.errors import Canceled
from runner.stream import STREAM_NAMES


@dataclass(frozen=True, slots=True)
class Played:
    """How one execution ended, and its story: events and steps, without times and figures."""

    status: str
    code: str | None
    output: Any
    error: dict[str, Any] = field(default_factory=dict)
    story: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One service of the gallery, an input, and how it must end."""

    stem: str
    input: dict[str, Any]
    status: str = "succeeded"
    code: str | None = None
    output: Any = None

    @property
    def service(self) -> str:
        """The name under which it is called."""
        return self.stem.replace("_", "-")


def fails(stem: str, code: str, **inputs: Any) -> Case:
    return Case(stem, inputs, "failed", code)


CASES = [
    Case("echo", {"text": "abc", "reverse": True}, output={"text": "cba"}),
    Case("echo", {"text": "\U0001f600 é \x00"}, output={"text": "\U0001f600 é \x00"}),
    Case("function_form", {}, output={"text": "HELLO"}),
    Case("async_form", {"text": "later"}, output={"text": "later"}),
    Case("counts_steps", {"documents": ["a b", "", "c"]}, output={"words": [2, 0, 1]}),
    Case("slow", {"seconds": 0.1}, output={"done": 6}),
    Case("languages", {"language": "fr-CA"}, output={"language": "fr"}),
    Case("logs", {"lines": 3}, output={"done": 3}),
    Case("rejects", {"text": "level"}, output={"text": "level"}),
    Case("transient", {"succeed_on": 1}, output={"done": 1}),
    Case("huge_output", {"bytes": 3_000_000}, output={"text": "x" * 3_000_000}),
    Case("ignores_cancel", {"seconds": 0}, output={"done": 0}),
    Case("swallows", {"seconds": 0}, output={"done": 0}),
    fails("rejects", "input_rejected", text="abc"),
    fails("transient", "transient", succeed_on=9),
    fails("fails_in_run", "handler_error"),
    fails("unknown_step", "handler_error"),
    fails("exits", "handler_error"),
    fails("memory", "out_of_memory"),
    fails("overruns", "timed_out"),
    *(
        fails("wrong_output", "output_invalid", kind=kind)
        for kind in ("type", "missing", "unknown", "set", "number", "surrogate", "nothing")
    ),
]
CANCELED = [Case(stem, {"seconds": 30}, "canceled", Canceled.code) for stem in ("slow", "swallows")]
REFUSED = [
    Case("echo", {}),
    Case("echo", {"text": 1, "reverse": "no", "colour": "red"}),
    Case("languages", {"language": "de"}),
    Case("counts_steps", {"documents": []}),
]
STEMS = sorted({case.stem for case in CASES + CANCELED} | {"dies"})


def named(case: Case) -> str:
    """Return a short name for the test report."""
    told = ",".join(f"{key}={str(value)[:12]}" for key, value in case.input.items())
    return f"{case.stem}({told})"


# --- the three doors -----------------------------------------------------------------------------


def through_the_engine(case: Case, attempt: int = 1, stop: Stop | None = None) -> Played:
    """Run a case in this process."""
    ran = testing.run(gallery(case.stem), case.input, attempt=attempt, stop=stop)
    told = [(event.kind, event.to_json()) for event in ran.events]
    error = ran.error.to_problem() if ran.error else {}
    return played(ran.status, ran.output, error, told)


class HttpDoors:
    """The HTTP doors of services, each on a port of its own and opened when first used."""

    def __init__(self, stack: contextlib.ExitStack, until: Callable[..., Any]) -> None:
        self._stack, self._until = stack, until
        self._open: dict[str, httpx.Client] = {}
        self.heard: dict[str, list[events.Event]] = {}

    def open(self, case: Case) -> httpx.Client:
        """Return a client of the service's door."""
        if case.stem not in self._open:
            heard = self.heard.setdefault(case.stem, [])
            app = web.create(gallery(case.stem), listeners=[heard.append])
            url = self._stack.enter_context(server.background(app))
            client = self._stack.enter_context(httpx.Client(base_url=url, timeout=30))
            self._until(lambda: client.get("/readyz").status_code == 200)
            self._open[case.stem] = client
        return self._open[case.stem]

    def play(self, case: Case) -> Played:
        """Run a case and follow it."""
        client = self.open(case)
        with client.stream(
            "POST", "/run", json=case.input, headers={"accept": "text/event-stream"}
        ) as answer:
            assert answer.status_code == 200, answer.read()
            *told, (_, name, end) = read_sse(answer.iter_lines())
        assert name == "completed"
        return played(end["status"], end.get("output"), end.get("error") or {},
                      [(name, data) for _, name, data in told] + [(name, end)])  # fmt: skip


def through_the_queue(stage: Stage, case: Case) -> Played:
    """Submit a case, follow it to its end, and fetch its result."""
    job = stage.submit(case.service, case.input)
    told = [(name, data) for _, name, data in stage.follow(job["id"]) if name != "status"]
    return ended(stage, told)


def of_events(heard: list[events.Event]) -> Played:
    """Return what an execution's own events say of it."""
    told = [(event.kind, event.to_json()) for event in heard]
    return played(heard[-1].kind, None, told[-1][1].get("error") or {}, told)


def ended(stage: Stage, told: list[tuple[str, Any]]) -> Played:
    """Return how a job of which all this was told has ended."""
    name, end = told[-1]
    assert name == "completed"
    result = stage.http.get(end["links"]["result"])
    assert (result.status_code == 200) == (end["status"] == "succeeded")
    output = result.json() if result.status_code == 200 else None
    last = [(name, data) for name, data in told if data.get("attempt") == end["attempt"]]
    assert end["reason"] == (end["error"] or {}).get("code")
    return played(end["status"], output, end["error"] or {}, last)


def played(status: str, output: Any, error: dict[str, Any], told: list[tuple[str, Any]]) -> Played:
    """Make the three doors' words comparable: no times, no figures that depend on them."""
    said = {
        "detail": re.sub(r"\d+(\.\d+)? s\b", "N s", error.get("detail", "")),
        "at": error.get("at"),
        "errors": error.get("errors"),
        "title": error.get("title"),
        "clock": error.get("clock"),
    }
    return Played(status, error.get("code"), output, said, tuple(story(told)))


def story(told: list[tuple[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the events in their order; how often progress is told depends on the time it takes."""
    for name, data in told:
        match STREAM_NAMES.get(name, name):
            case "step":
                yield "step", data["step"], data["status"]
            case "log":
                yield "log", data["level"], data["message"]
            case "progress":
                pass
            case other:
                yield (other,)


@pytest.fixture(scope="module")
def http_doors(until: Callable[..., Any]) -> Iterator[HttpDoors]:
    """Give the HTTP doors of the gallery."""
    path = list(sys.path)
    with contextlib.ExitStack() as stack:
        yield HttpDoors(stack, until)
    sys.path[:] = path


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give an orchestrator and a worker for each service of the gallery that is played here."""
    with Stage(redis_url, tmp_path_factory.mktemp("doors"), until) as stage:
        stage.orchestrator()
        for stem in STEMS:
            stage.worker(stem)
        stage.ready(*STEMS)
        yield stage
        stage.check()
        stage.sound()


# --- the promise ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_door_plays_the_same(case: Case, http_doors: HttpDoors, stage: Stage) -> None:
    """Status, code, words, output and story are the same in process, over HTTP and by queue."""
    expected = through_the_engine(case)
    assert (expected.status, expected.code) == (case.status, case.code)
    assert expected.output == case.output or case.status != "succeeded"
    assert (expected.story[0], expected.story[-1]) == (("start",), ("completed",))
    assert http_doors.play(case) == expected
    by_queue = through_the_queue(stage, case)
    if case.code == "transient":  # only here it is tried again
        expected = through_the_engine(case, attempt=3)
    assert by_queue == expected


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_plain_request_is_answered_alike(case: Case, http_doors: HttpDoors) -> None:
    """Without a stream the HTTP door answers with the very output, or the error as a problem."""
    expected = through_the_engine(case)
    answer = http_doors.open(case).post("/run", json=case.input)
    if case.status == "succeeded":
        assert (answer.status_code, answer.json()) == (200, expected.output)
    else:
        problem = answer.json()
        assert problem["code"] == expected.code
        assert problem["title"] == expected.error["title"]
        assert problem["status"] == answer.status_code


@pytest.mark.parametrize("case", CANCELED, ids=named)
def test_every_door_cancels_the_same(case: Case, http_doors: HttpDoors, stage: Stage) -> None:
    """A stop in process, a client who leaves and a canceled job end a handler the same way."""
    stop = Stop()
    heard: list[events.Event] = []

    def hear(event: events.Event) -> None:
        heard.append(event)
        if isinstance(event, events.Step):
            stop.request()

    outcome = Engine(gallery(case.stem)).run("here", case.input, emit=hear, stop=stop)
    expected = of_events(heard)
    assert (outcome.status, expected.status, expected.code) == ("canceled", "canceled", case.code)

    client = http_doors.open(case)
    told = http_doors.heard[case.stem]
    told.clear()
    with client.stream(
        "POST", "/run", json=case.input, headers={"accept": "text/event-stream"}
    ) as answer:
        names = (name for _, name, _ in read_sse(answer.iter_lines()))
        assert "step" in names
    stage.until(lambda: told[-1].final, 10, "the end of what nobody waits for")

    job = stage.submit(case.service, case.input)
    story = []
    for _, name, data in stage.follow(job["id"]):
        if name == "step" and data["seq"] == 2:
            assert stage.http.post(job["links"]["cancel"]).status_code == 202
        if name != "status":
            story.append((name, data))
    for other in (of_events(told), ended(stage, story)):
        assert (other.status, other.code) == (expected.status, expected.code)
        assert other.error["title"] == expected.error["title"]
        # How often a handler gets around is chance; how its story begins and ends is not.
        assert other.story[:2] == expected.story[:2]
        assert other.story[-1:] == expected.story[-1:]
        if case.stem == "slow":
            assert other.story == expected.story


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_every_door_refuses_the_same(case: Case, http_doors: HttpDoors, stage: Stage) -> None:
    """A wrong input is refused before anything runs, with the same problems at the same places."""
    ran = testing.run(gallery(case.stem), case.input)
    assert [event.kind for event in ran.events] == ["failed"]
    assert ran.error is not None
    expected = ran.error.to_problem()
    assert expected["errors"]
    client = http_doors.open(case)
    answers = [
        client.post("/run", json=case.input),
        client.post("/run", json=case.input, headers={"accept": "text/event-stream"}),
        stage.http.post(f"/v1/services/{case.service}/jobs", json=case.input),
    ]
    for answer in answers:
        assert answer.status_code == expected["status"] == 422
        problem = answer.json()
        for key in ("code", "title", "detail", "errors"):
            assert problem[key] == expected[key]


def test_a_death_is_survived_by_the_queue_alone(stage: Stage) -> None:
    """A handler that takes its process down is started again, and the job says how often."""
    case = Case("dies", {"attempts": 1}, output={"done": 2})
    again = through_the_queue(stage, case)
    assert (again.status, again.output) == ("succeeded", case.output)
    assert again.story == (("start",), ("completed",))
