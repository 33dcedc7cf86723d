"""A JSON Schema moved into a larger document, where it means the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.schema import pointer

JSON = dict[str, Any]

NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose members are schemas under names of the author's, not keywords."""

PLAIN_VALUES = ("default", "examples", "example", "const", "enum")
"""Keywords that hold values, in which `$ref` is only a word."""


def embedded(schema: JSON, component: str) -> JSON:
    """Return a schema so that it means the same as the named component of a larger document.

    `#/$defs/x` becomes `#/components/schemas/<component>/$defs/x`; anchors and inner `$id`s, which
    few tools follow, become plain pointers too.
    """
    root = f"#/components/schemas/{component}"
    moved = _move(schema, root, root, dict(_anchors(schema, root, root)))
    assert isinstance(moved, dict)
    return moved


def _move(schema: Any, here: str, base: str, anchors: dict[tuple[str, str], str]) -> Any:
    """Copy the schema that now lies at `here`, in the resource whose root is at `base`."""
    if not isinstance(schema, dict):
        return schema
    base = _base(schema, here, base)
    moved: JSON = {}
    for key, value in schema.items():
        if key in ("$id", "$schema", "$anchor", "$dynamicAnchor"):
            continue
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            fragment = value.removeprefix("#")
            plain = not fragment or fragment.startswith("/")
            moved["$ref"] = base + fragment if plain else anchors.get((base, fragment), value)
        elif key in PLAIN_VALUES:
            moved[key] = value
        elif key in NAMED_SCHEMAS and isinstance(value, dict):
            moved[key] = {
                name: _move(one, here + pointer((key, name)), base, anchors)
                for name, one in value.items()
            }
        elif isinstance(value, list):
            moved[key] = [
                _move(one, here + pointer((key, index)), base, anchors)
                for index, one in enumerate(value)
            ]
        else:
            moved[key] = _move(value, here + pointer((key,)), base, anchors)
    return moved


def _anchors(schema: Any, here: str, base: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Find where each anchor of each resource now lies."""
    if not isinstance(schema, dict):
        return
    base = _base(schema, here, base)
    for key, value in schema.items():
        if key in ("$anchor", "$dynamicAnchor"):
            yield (base, value), here
        elif key in PLAIN_VALUES:
            continue
        elif key in NAMED_SCHEMAS and isinstance(value, dict):
            for name, one in value.items():
                yield from _anchors(one, here + pointer((key, name)), base)
        elif isinstance(value, list):
            for index, one in enumerate(value):
                yield from _anchors(one, here + pointer((key, index)), base)
        else:
            yield from _anchors(value, here + pointer((key,)), base)


def _base(schema: JSON, here: str, base: str) -> str:
    """Return where the references of this schema start: an `$id` begins a resource of its own."""
    return here if isinstance(schema.get("$id"), str) else base
