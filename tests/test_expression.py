"""What `runner.expression` promises: JMESPath, and no harm whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.expression import Expression

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("[0]", [1, 2], 1),
        ("keywords[].[text, score]", {"keywords": [{"text": "a", "score": 1}]}, [["a", 1]]),
        ("{ents: entities}", {"entities": []}, {"ents": []}),
        ("join(' ', sentences[].text)", {"sentences": [{"text": "A."}, {"text": "B."}]}, "A. B."),
        ("sort_by(w, &score)[-1].text", {"w": [{"score": 2, "text": "b"}, {"score": 1}]}, "b"),
        ("nothing", {}, None),
        ("length(@)", 5, None),
    ],
)
def test_an_expression_finds_what_it_says(text: str, value: Any, found: Any) -> None:
    """It is JMESPath; where there is nothing, or nothing that fits, the answer is None."""
    assert Expression(text)(value) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[bad", "is not JMESPath"),
        ("", "is not JMESPath"),
        ("`[1", "is not JMESPath"),
        ("(" * 400, "is not JMESPath"),
        ("!" * 100 + "x", "nested deeper than 40"),
        ("[" * 70 + "@" + "]" * 70, "more than 60 brackets"),
        ("[@,@]|" * 20 + "@", "may repeat its input"),
        ("[@,@][]|" * 20 + "@", "may repeat its input"),
        ("join('',[@,@])|" * 20 + "@", "may repeat its input"),
        ("map(&[@,@,@,@,@,@], [@,@,@,@,@,@])", "may repeat its input 36 times; at most 32"),
        ("join(@[0], @)", "joins with something else"),
        ("to_string(@)", "calls `to_string`"),
        ("to_number('nan')", "calls `to_number`"),
        ("&a", "has a `&`"),
        ("type(&a)", "has a `&`"),
        ("{a: &b}", "has a `&`"),
    ],
)  # fmt: skip
def test_a_harmful_or_broken_expression_is_refused(text: str, words: str) -> None:
    """What could blow up memory, or is no expression at all, is told in a sentence."""
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        Expression(text)


@settings(max_examples=300, deadline=None)
@given(st.text("[]{}()@&|.*?:,`'\"\\ab01-!<=> ", max_size=40) | st.text(max_size=40), JSON)
def test_any_text_is_an_expression_or_a_sentence(text: str, value: Any) -> None:
    """No text makes it raise anything but `ValueError`, and no value makes it raise at all."""
    try:
        expression = Expression(text)
    except ValueError:
        return
    expression(value)
