"""A JMESPath expression that a stranger wrote, compiled and evaluated without harm.

JMESPath as it is can double its input with a few characters, again and again; what is compiled here
repeats its input a bounded number of times and calls only functions whose result stays small.
"""

from __future__ import annotations

import math
from typing import Any

import jmespath

MAX_GROWTH, MAX_DEPTH, MAX_BRACKETS = 32, 40, 60
"""What an expression may do: repeat its input, nest, and open lists and objects."""

FUNCTIONS = {
    "abs", "ceil", "contains", "ends_with", "floor", "join", "keys", "length", "map", "max",
    "max_by", "merge", "min", "min_by", "not_null", "reverse", "sort", "sort_by", "starts_with",
    "type", "values",
}  # fmt: skip
"""What may be called: not `to_string` (it escapes, which doubles) or `to_number` (it reads NaN)."""

TAKE_EXPRESSIONS = {"map", "max_by", "min_by", "sort_by"}

MULTIPLY = {"pipe", "subexpression", "index_expression", "projection", "value_projection",
            "filter_projection"}  # fmt: skip


class Expression:
    """A compiled expression; raises `ValueError` with what is wrong with it."""

    def __init__(self, text: str) -> None:
        self.text = text
        if text.count("[") + text.count("{") > MAX_BRACKETS:
            raise ValueError(f"has more than {MAX_BRACKETS} brackets and braces")
        try:
            self._compiled = jmespath.compile(text)
            growth = _growth(self._compiled.parsed, 0)
        except _Refused:
            raise
        except Exception as error:  # its parser meets some nonsense with errors of other kinds
            words = "nested too deep" if isinstance(error, RecursionError) else str(error)
            reason = (words.splitlines() or [""])[0].rstrip(":")
            raise ValueError(f"is not JMESPath: {reason[:200]}") from None
        if growth > MAX_GROWTH:
            raise ValueError(f"may repeat its input {growth} times; at most {MAX_GROWTH}")

    def __call__(self, value: Any) -> Any:
        """Return what the expression finds in a JSON value; None where it cannot be evaluated."""
        try:
            return self._compiled.search(value)
        except Exception:  # a function that was given what it does not take, or worse
            return None


class _Refused(ValueError):
    pass


def _growth(node: dict[str, Any], depth: int) -> int:
    """Return how often the result may repeat the input; raises for what is not allowed at all."""
    kind, name = node["type"], node.get("value")
    if depth > MAX_DEPTH:
        raise _Refused(f"is nested deeper than {MAX_DEPTH} levels")
    children = [child for child in node["children"] if isinstance(child, dict)]
    within = [child["children"][0] if child["type"] == "expref" else child for child in children]
    calls = kind == "function_expression"
    if calls and name not in FUNCTIONS:
        raise _Refused(f"calls `{name}`; it may call {', '.join(sorted(FUNCTIONS))}")
    if calls and name == "join" and children and children[0]["type"] != "literal":
        raise _Refused("joins with something else than a literal text")
    if kind == "expref" or (within != children and not (calls and name in TAKE_EXPRESSIONS)):
        raise _Refused("has a `&` where none may stand")
    grown = [_growth(child, depth + 1) for child in within]
    multiplies = kind in MULTIPLY or within != children
    return max(1, math.prod(grown) if multiplies else sum(grown))
