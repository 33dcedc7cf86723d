"""YAML: read a file into plain values with the line of each, and write values for people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from runner.errors import Problem
from runner.schema import pointer

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_NODES = 10_000

INT = re.compile(r"[-+]?[0-9]{1,18}")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""Characters that PostgreSQL or UTF-8 cannot carry."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A value read from a file, and the line of each place in it by JSON Pointer."""

    file: str
    value: Any
    lines: dict[str, int]

    def locate(self, problem: Problem) -> Problem:
        """Return the problem with the file and the line nearest to its pointer."""
        place = problem.pointer
        while place and place not in self.lines:
            place = place.rpartition("/")[0]
        return replace(problem, file=self.file, line=self.lines.get(place, 1))


class SourceInvalid(ValueError):
    """A file that is not YAML we read; `problem` says where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read(data: bytes, file: str) -> Source:
    """Read one YAML document with YAML 1.2 scalars: `no` is a string, and so is a date.

    Refused, with a line: anchors, aliases and merge keys (bombs), duplicate keys, tags, several
    documents, more than `MAX_BYTES`, `MAX_DEPTH` or `MAX_NODES`. Raises `SourceInvalid`.
    """
    if len(data) > MAX_BYTES:
        raise SourceInvalid(Problem("", "yaml", f"is larger than {MAX_BYTES} bytes", file=file))
    reader = _Reader(data)
    try:
        return Source(file, reader.read(), reader.lines)
    except _Refused as error:
        line, message = error.line, str(error)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # A reader error, such as a control character, has a position instead of a mark.
        line = mark.line + 1 if mark else data[: getattr(error, "position", 0)].count(b"\n") + 1
        message = f"is not YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
    raise SourceInvalid(Problem("", "yaml", message, file=file, line=line))


def beyond_bounds(value: Any) -> Problem | None:
    """Say which bound of `read` is broken by a value that did not come from a file, or None."""
    waiting: list[tuple[Path, Any]] = [((), value)]
    nodes = 1
    while waiting:
        path, item = waiting.pop()
        children = _children(item)
        nodes += len(children)
        if len(path) > MAX_DEPTH:
            return Problem("", "bounds", f"is nested deeper than {MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            return Problem("", "bounds", f"has more than {MAX_NODES} values")
        texts = [text for text in (item, *path[-1:]) if isinstance(text, str)]
        if any(map(UNSTORABLE.search, texts)):
            return Problem("", "bounds", "has a character that cannot be stored")
        waiting.extend(((*path, key), child) for key, child in children)
    return None


def _children(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


class _Refused(Exception):
    """Valid YAML that is not read here."""

    def __init__(self, message: str, event: yaml.Event) -> None:
        super().__init__(message)
        self.line = _line(event)


class _Reader:
    """Turns the events of one YAML file into a value, and stops at the first it does not read."""

    def __init__(self, data: bytes) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is twenty times faster
        self._events: Iterator[yaml.Event] = yaml.parse(data, Loader=loader)
        self._nodes = 0
        self.lines: dict[str, int] = {}

    def read(self) -> Any:
        """Return the value of the one document; None when there is none."""
        value, documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused("has a second document; one file holds one", event)
                value = self._value(next(self._events), ())
        return value

    def _value(self, event: yaml.Event, path: Path) -> Any:
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("has an anchor or alias, which are not read; write the value out", event)
        if tag := getattr(event, "tag", None):
            raise _Refused(f"has the tag {tag}; tags are not read", event)
        if len(path) > MAX_DEPTH:
            raise _Refused(f"is nested deeper than {MAX_DEPTH} levels", event)
        if self._nodes > MAX_NODES:
            raise _Refused(f"has more than {MAX_NODES} values", event)
        self.lines.setdefault(pointer(path), _line(event))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        assert isinstance(event, yaml.ScalarEvent)
        return _scalar(event)

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        value: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if isinstance(event, yaml.CollectionStartEvent):
                raise _Refused("has a key that is not a plain word", event)
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<":
                raise _Refused("has a merge key, which is not read; write the keys out", event)
            self._value(event, path)  # a key is refused for the same reasons as a value
            assert isinstance(event, yaml.ScalarEvent)
            if event.value in value:
                raise _Refused(f"has the key `{event.value}` a second time", event)
            place = (*path, event.value)
            self.lines[pointer(place)] = _line(event)
            value[event.value] = self._value(next(self._events), place)
        return value


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _scalar(event: yaml.ScalarEvent) -> Any:
    """Resolve a plain scalar by the YAML 1.2 core schema; quoted ones stay strings."""
    text: str = event.value
    if UNSTORABLE.search(text):
        raise _Refused("has a character that cannot be stored", event)
    if event.style:
        return text
    match text:
        case "" | "~" | "null" | "Null" | "NULL":
            return None
        case "true" | "True" | "TRUE":
            return True
        case "false" | "False" | "FALSE":
            return False
    if INT.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def show(value: Any) -> str:
    """Return a JSON value as YAML for a person, each innermost list or object in one line."""
    text: str = yaml.safe_dump(
        value, allow_unicode=True, sort_keys=False, width=10_000, default_flow_style=None
    )
    return text.rstrip()


def write(documents: Iterable[Any]) -> str:
    """Return values as YAML, each a document of its own; keys keep their order."""
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=100)
