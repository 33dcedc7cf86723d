"""What `runner.errors` promises to clients and to people."""

import pickle
import re

import pytest

from runner import errors
from runner.errors import (
    BadRequest,
    InputInvalid,
    ManifestInvalid,
    Problem,
    RunnerError,
    Stopped,
    TimedOut,
    summary,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RunnerError)
]


def test_every_failure_has_its_own_stable_word():
    """No two failures share a code, and a code is a word that clients can compare."""
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes) > 30
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_is_a_whole_problem_document(kind):
    """A failure without further words is still a complete RFC 9457 document."""
    document = kind().to_problem("/jobs/1")
    assert {"type", "title", "status", "detail", "code", "instance"} == document.keys()
    assert document["type"].endswith(kind.code)
    assert 400 <= document["status"] < 600
    assert document["detail"] == kind.title


def test_problems_and_extensions_travel_with_a_failure():
    """A problem document lists every problem without empty fields, and the extensions."""
    error = InputInvalid("No.", problems=[Problem("/a", "type", "is wrong", got=0)], at="x:1")
    document = error.to_problem()
    assert document["errors"] == [
        {"pointer": "/a", "code": "type", "message": "is wrong", "got": 0}
    ]
    assert document["at"] == "x:1"
    assert "instance" not in document


def test_a_problem_reads_as_a_sentence():
    """A problem says file, line, place, what is wrong, what was expected and what was found."""
    problem = Problem("/limits", "type", "has the wrong type", ["object"], "string", "a.yaml", 7)
    told = "a.yaml, line 7: `/limits` has the wrong type; expected object, found string"
    assert str(problem) == told
    assert problem.sentence == "`/limits` has the wrong type; expected object"


def test_a_problem_of_the_whole_needs_no_place():
    """A problem without a pointer speaks about the file or the value itself."""
    assert str(Problem("", "yaml", "is too large", file="a.yaml")) == "a.yaml: is too large"
    assert summary([Problem("", "type", "is wrong")], "the input") == "The input is wrong."


def test_a_summary_tells_the_first_problem_and_counts_the_others():
    """One sentence stands for many problems."""
    problems = [Problem("/a", "x", "is wrong", 1), Problem("/b", "x", "is wrong")]
    assert summary(problems, "the input") == "`/a` of the input is wrong; expected 1 (and 1 more)."


def test_a_sentence_stays_a_line():
    """However many alternatives there are, a sentence lists no more than a line of them."""
    assert len(Problem("/a", "enum", "is wrong", list(range(10_000))).sentence) < 400


def test_an_invalid_manifest_prints_all_its_problems():
    """Printing the error of a manifest prints one line for each problem."""
    error = ManifestInvalid(problems=[Problem("/a", "x", "is wrong"), Problem("/b", "x", "is bad")])
    assert str(error).splitlines() == ["`/a` is wrong", "`/b` is bad"]


def test_failures_survive_a_journey_between_processes():
    """A pickled failure comes back with everything it said."""
    error = pickle.loads(pickle.dumps(BadRequest("No.", retry_after=3, at="x:1")))
    assert error.to_problem() == BadRequest("No.", at="x:1").to_problem()
    assert error.retry_after == 3


def test_a_stop_passes_through_except_exception():
    """A handler that catches every Exception does not catch the request to stop."""
    assert not issubclass(Stopped, Exception)
    assert Stopped(TimedOut("Too long.")).error.code == "timed_out"


def test_what_may_pass_is_retried_and_what_will_not_is_not():
    """Exactly the failures of circumstances are retried, never those of the input."""
    assert {"transient", "interrupted", "worker_lost"} == errors.RETRYABLE
