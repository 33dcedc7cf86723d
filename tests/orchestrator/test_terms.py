"""What a request says beside its body is read as its caller means it, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from runner.errors import BadRequest
from runner.orchestrator.keys import ANYBODY, SUBMIT, Caller
from runner.orchestrator.terms import LONGEST_KEY, Terms, terms_of


def terms(query: str = "", **headers: str) -> Terms:
    """Return the terms of a request with this query and these headers."""
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "query_string": query.encode(), "headers": raw, "path": "/"}
    return terms_of(Request({**scope, "state": {"caller": ANYBODY}}))


def test_a_request_that_says_nothing() -> None:
    """Without a word, a job is as urgent as any, has no deadline, and any result may answer."""
    assert terms() == Terms(priority=0, deadline=None, key=None, reuse=True, lend=True)


def test_terms_are_those_of_the_caller() -> None:
    """Keys and results are looked up among those of whoever was admitted, and nobody else's."""
    caller = Caller("ada", frozenset({SUBMIT}))
    scope = {"type": "http", "query_string": b"", "headers": [], "path": "/"}
    assert terms_of(Request({**scope, "state": {"caller": caller}})).owner == "ada"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h1m1s", 3661), ("0.5", 0.5)],
)
def test_a_deadline_is_a_time(text: str, seconds: float) -> None:
    """`Cancel-After` is a number of seconds, or numbers with units."""
    assert terms(cancel_after=text).deadline == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "soon", "5m30", "1d", "nan", "1e3", "5 m"])
def test_a_wrong_deadline_is_refused(text: str) -> None:
    """What is no time, or none at all, is refused instead of guessed."""
    with pytest.raises(BadRequest, match="Cancel-After"):
        terms(cancel_after=text)


@pytest.mark.parametrize("text", ["-1", "10", "high", "", "1.5", "９"])
def test_a_wrong_priority_is_refused(text: str) -> None:
    """A priority is a whole number from 0 to 9."""
    assert terms("priority=7").priority == 7
    with pytest.raises(BadRequest, match="priority"):
        terms(f"priority={text}")


@pytest.mark.parametrize("text", ["", '""', "é", "a\tb", "k" * (LONGEST_KEY + 1)])
def test_a_wrong_key_is_refused(text: str) -> None:
    """A key is 1 to 255 printable ASCII characters."""
    with pytest.raises(BadRequest, match="Idempotency-Key"):
        terms(idempotency_key=text)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\')))
def test_a_key_may_be_quoted(key: str) -> None:
    """The quoted string of the standard's draft and the bare word that most send are one key."""
    if key:
        assert terms(idempotency_key=f'"{key}"').key == terms(idempotency_key=key).key == key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no-cache", (False, True, None)),
        ("No-Store", (False, False, None)),
        ("max-age=60", (True, True, 60.0)),
        ("max-age=soon", (True, True, None)),
        ("private, max-age=0, no-cache", (False, True, 0.0)),
        ("only-if-cached", (True, True, None)),
    ],
)
def test_how_fresh_a_result_must_be(text: str, expected: tuple[bool, bool, float | None]) -> None:
    """`Cache-Control` means what RFC 9111 says; what it does not know is ignored."""
    found = terms(cache_control=text)
    assert (found.reuse, found.lend, found.max_age) == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(value=values, other=values)
def test_a_fingerprint_tells_requests_apart(value: Any, other: Any) -> None:
    """Equal requests have one fingerprint, in whatever order their keys come, others another."""
    keyed = Terms(key="k")
    one = keyed.about("job", "ner", {"a": value, "b": 1}).fingerprint
    assert one == keyed.about("job", "ner", {"b": 1, "a": value}).fingerprint
    if repr(other) != repr(value):
        assert one != keyed.about("job", "ner", {"a": other, "b": 1}).fingerprint
    assert one != keyed.about("bulk", "ner", {"a": value, "b": 1}).fingerprint
    assert one != Terms(key="k", priority=1).about("job", "ner", {"a": value, "b": 1}).fingerprint
