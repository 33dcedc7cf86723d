"""Compile a JSON Schema safely, and say every problem at once as JSON Pointers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema_rs

from runner.errors import Problem

MAX_PROBLEMS = 100
"""How many problems one answer lists; more would not be read."""

MAX_SURVEYED = 10_000
"""Values in a document whose every problem is told: a problem costs 25 microseconds to find."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Schema:
    """A compiled JSON Schema (draft 2020-12) that never fetches, reads files or backtracks.

    `$ref` may only point inside the schema; `pattern` is matched by a linear-time engine, so
    look-around and back-references are refused when the schema is compiled.
    Raises `ValueError` with a sentence for a schema that cannot be compiled.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        try:
            self._validator = _compile(document)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(str(error).splitlines()[0]) from None
        self._fill = _filler(document)

    def problems(self, value: Any) -> list[Problem]:
        """Return what is wrong with the value, sorted by place; empty when it is right.

        A value of more than `MAX_SURVEYED` values gets its first problem only. Messages never
        repeat what the value says, and `got` repeats short texts and numbers only.
        """
        try:
            if self._validator.is_valid(value):
                return []
            told = [problem for error in self._errors(value) for problem in _told(error)]
        except ValueError as error:
            return [Problem("", "not_json", f"is not plain JSON: {error}")]
        # Schemas that refer to themselves, such as the schema of schemas, say one thing many times.
        once = {(problem.pointer, problem.message): problem for problem in told}
        return sorted(once.values(), key=_place)[:MAX_PROBLEMS]

    def with_defaults(self, value: Any) -> Any:
        """Return the value with the defaults of absent object properties filled in.

        JSON Schema calls `default` an annotation; callers expect it to hold, so we make it hold
        along `properties` and `items`. The value given is not changed.
        """
        return self._fill(value) if self._fill else value

    def _errors(self, value: Any) -> list[jsonschema_rs.ValidationError]:
        if _holds_at_most(value, MAX_SURVEYED):
            return list(self._validator.iter_errors(value))
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [error]
        return []


def pointer(path: list[str | int] | tuple[str | int, ...]) -> str:
    """Return the JSON Pointer (RFC 6901) of a path of keys and indices."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """Return an object schema that refuses unknown properties unless its author said otherwise.

    One that lists no `properties` stays as it is: it describes them elsewhere, or any.
    """
    said = {"additionalProperties", "unevaluatedProperties", "patternProperties"}
    if "properties" not in document or said & document.keys():
        return document
    return {**document, "additionalProperties": False}


def schema_problems(document: Any) -> list[Problem]:
    """Say what is wrong with a JSON Schema itself, including what we refuse for safety."""
    found = _dialect().problems(document) or list(_unsafe(document, ()))
    if not found:
        try:
            _compile(document)
        except jsonschema_rs.ValidationError as error:
            found = list(_told(error))
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            sentence = f"cannot be compiled: {_short(str(error).splitlines()[0])}"
            found = [Problem("", "schema", sentence)]
    return found


@lru_cache(maxsize=1)
def _dialect() -> Schema:
    """Return the schema of schemas, which ships with the validator."""
    return Schema({"$ref": DIALECT})


def _compile(document: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        document,
        retriever=_never_fetch,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20),
        validate_formats=True,
        mask="the value",
    )


def _unsafe(document: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """Find references that leave the schema, dialects we do not speak, and slow patterns."""
    if isinstance(document, list):
        for index, value in enumerate(document):
            yield from _unsafe(value, (*path, index))
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        place = pointer((*path, key))
        match key, value:
            case "$ref" | "$dynamicRef", str() if not value.startswith("#"):
                message = "must point inside this schema: nothing is fetched"
                yield Problem(
                    place, "schema", message, "a reference that starts with #", _got(value)
                )
            case "$schema", str() if value.rstrip("#") != DIALECT:
                message = "names a dialect that is not spoken here"
                yield Problem(place, "schema", message, DIALECT, _got(value))
            case "pattern", str() if not _linear(value):
                message = "is not a regular expression we match: no look-around, no back-references"
                yield Problem(place, "schema", message, got=_got(value))
            case "default" | "examples" | "const" | "enum", _:
                # Data, not schemas. A property of that name is skipped too; compiling refuses
                # what it may hide.
                pass
            case _:
                yield from _unsafe(value, (*path, key))


def _linear(pattern: str) -> bool:
    try:
        _compile({"pattern": pattern})
    except ValueError:
        return False
    return True


def _never_fetch(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside the schema, and nothing is fetched")


def _holds_at_most(value: Any, bound: int) -> bool:
    """Tell whether a value holds no more values than that, without looking at the rest."""
    waiting, seen = [value], 1
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list | tuple):
            seen += len(item)
            if seen > bound:
                return False
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return True


# --- problems in our own words: the validator's repeat the value, which may be a document ---------

SENTENCES = {
    "const": "is not the one value allowed",
    "contains": "holds no item, or too many, of a kind it must hold",
    "falseSchema": "holds what is not allowed here",
    "format": "does not have the format",
    "multipleOf": "is not a multiple",
    "not": "has a form that is not allowed",
    "pattern": "does not match the pattern",
    "anyOf": "fits none of the forms allowed",
    "oneOf": "does not fit exactly one of the forms allowed",
    "propertyNames": "has a name that is not allowed",
    "unevaluatedItems": "has more items than it may",
    "additionalItems": "has more items than it may",
    "uniqueItems": "holds the same item twice",
}
EXPECTED = {"const": "expected_value", "multipleOf": "multiple_of"}
BOUNDS = {
    "minLength": ("is too short", "at least", " characters"),
    "maxLength": ("is too long", "at most", " characters"),
    "minItems": ("has too few items", "at least", ""),
    "maxItems": ("has too many items", "at most", ""),
    "minProperties": ("has too few properties", "at least", ""),
    "maxProperties": ("has too many properties", "at most", ""),
    "minimum": ("is too small", "at least", ""),
    "maximum": ("is too large", "at most", ""),
    "exclusiveMinimum": ("is too small", "more than", ""),
    "exclusiveMaximum": ("is too large", "less than", ""),
}


def _told(error: jsonschema_rs.ValidationError) -> Iterator[Problem]:
    """Turn one validator error into problems: one for each property that is missing or unknown."""
    path, kind = list(error.instance_path), error.kind.name
    details = error.kind.as_dict()
    match kind:
        case "required":
            yield Problem(pointer([*path, details["property"]]), kind, "is required but absent")
        case "additionalProperties" | "unevaluatedProperties":
            for name in details["unexpected"][:MAX_PROBLEMS]:
                place = pointer([*path, _short(name)])
                yield Problem(place, "unknown_property", "is not a property known here")
        case "propertyNames":
            for inner in _told(details["error"]):
                place = pointer([*path, _short(details["error"].instance)])
                yield Problem(place, kind, SENTENCES[kind], inner.expected)
        case "type":
            got = _type(error.instance)
            yield Problem(pointer(path), kind, "has the wrong type", details["types"], got)
        case "enum":
            message = "is not one of the values allowed"
            yield Problem(pointer(path), kind, message, details["options"], _got(error.instance))
        case "anyOf" | "oneOf" if branch := _meant(details["context"], path):
            for one in branch:
                yield from _told(one)
        case _ if kind in BOUNDS:
            message, words, unit = BOUNDS[kind]
            value = error.instance
            size = len(value) if isinstance(value, str | list | dict) else value
            yield Problem(pointer(path), kind, message, f"{words} {details['limit']}{unit}", size)
        case _:
            message = SENTENCES.get(kind, f"breaks `{kind}` of the schema")
            wanted = details.get(EXPECTED.get(kind, kind))
            yield Problem(pointer(path), kind, message, wanted, _got(error.instance))


def _meant(
    branches: list[list[jsonschema_rs.ValidationError]], path: list[str | int]
) -> list[jsonschema_rs.ValidationError]:
    """Return the errors of the one form that the value was meant to have: its type fits there."""
    fitting = [
        branch
        for branch in branches
        if branch
        and not any(e.kind.name == "type" and list(e.instance_path) == path for e in branch)
    ]
    return fitting[0] if len(fitting) == 1 else []


def _type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value)) or ("integer" if isinstance(value, int) else "number")


def _got(value: Any) -> Any:
    """Say what a value is, or how large: answers and logs must not repeat documents."""
    if isinstance(value, str) and len(value) > 60:
        return f"{len(value)} characters"
    return _type(value) if isinstance(value, dict | list) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _place(problem: Problem) -> list[tuple[int, int, str]]:
    """Sort pointers as a reader counts: the second item before the tenth."""
    parts = problem.pointer.split("/")
    return [(0, int(p), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in parts]


# --- defaults -----------------------------------------------------------------------------------

Filler = Callable[[Any], Any]


def _filler(document: Any) -> Filler | None:
    """Build the function that fills in defaults, or None where the schema has none to fill."""
    if not isinstance(document, dict):
        return None
    properties = document.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    defaults = {
        name: sub["default"]
        for name, sub in properties.items()
        if isinstance(sub, dict) and "default" in sub
    }
    inner = {name: fill for name, sub in properties.items() if (fill := _filler(sub))}
    each = _filler(document.get("items"))
    first = len(document.get("prefixItems", ()))
    if not (defaults or inner or each):
        return None
    own = [name for name, value in defaults.items() if isinstance(value, dict | list)]

    def filled(value: Any) -> Any:
        if isinstance(value, list) and each:
            return [*value[:first], *map(each, value[first:])]
        if not isinstance(value, dict):
            return value
        full = {**defaults, **value}
        for name in own:  # can be changed, and a handler must not change the next request's
            if name not in value:
                full[name] = deepcopy(defaults[name])
        for name, fill in inner.items():
            if name in full:
                full[name] = fill(full[name])
        return full

    return filled
