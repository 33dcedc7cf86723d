"""The JSON text of a stranger: its value, or where it is wrong."""

from __future__ import annotations

from typing import Any

import orjson

from runner.errors import MalformedJson

MAX_DEPTH = 64
"""Levels of arrays and objects in a body; deeper ones are built to hurt."""


def parse_json(body: bytes | bytearray) -> Any:
    """Return the value of a JSON text in UTF-8, of at most 64 levels; raises `MalformedJson`."""
    if not body:
        raise MalformedJson("The body is empty; send a JSON object.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        line, column = error.lineno, error.colno
        raise MalformedJson(
            f"Line {line}, column {column}: {error.msg}.", line=line, column=column
        ) from None
    # Counting brackets is a hundred times cheaper than walking, and most bodies have few.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise MalformedJson(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return value


def _deeper_than(value: Any, levels: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
