"""A service's manifest: YAML in, a frozen, validated and digested `Manifest` out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from runner import language, linto
from runner.errors import InputInvalid, ManifestInvalid, Problem, summary
from runner.schema import Schema, closed, pointer, schema_problems
from runner.source import SourceInvalid, beyond_bounds, read

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One declared step: its name in code, its title for people, its share of the time."""

    name: str
    title: str
    weight: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a service: times in seconds, sizes in bytes."""

    timeout: float = 600.0
    startup: float = 300.0
    queue_timeout: float = 86400.0
    deadline: float | None = None
    concurrency: int = 1
    attempts: int = 3
    max_body: int = 10 * 10**6
    max_queued: int = 10_000


@dataclass(frozen=True, slots=True)
class Example:
    """One request with, where it is stated, its result."""

    title: str
    input: dict[str, Any]
    output: dict[str, Any] | None


@dataclass(frozen=True)
class Manifest:
    """What a service is. Two manifests with one `digest` are the same service."""

    name: str
    type: str
    version: str
    summary: str
    description: str
    languages: tuple[str, ...]
    handler: str
    requires: tuple[str, ...]
    packages: tuple[str, ...]
    config: dict[str, dict[str, Any]]
    input: dict[str, Any]
    output: dict[str, Any]
    steps: tuple[StepSpec, ...]
    limits: Limits
    reuse: bool
    examples: tuple[Example, ...]
    document: dict[str, Any] = field(repr=False)
    digest: str = ""
    path: Path | None = None

    @property
    def major(self) -> int:
        """The first number of the version: the promise to callers that may not be broken."""
        return int(self.version.partition(".")[0])

    @cached_property
    def input_schema(self) -> Schema:
        """The compiled schema of the request, closed at the top level."""
        return Schema(closed(self.input))

    @cached_property
    def output_schema(self) -> Schema:
        """The compiled schema of the result, closed at the top level."""
        return Schema(closed(self.output))

    @cached_property
    def linto(self) -> linto.Linto | None:
        """How callers of LinTO's services reach this one, if they can."""
        return linto.of(self.document, self.languages)

    def accept(self, value: Any) -> dict[str, Any]:
        """Return the input with defaults filled in and its language resolved.

        Raises `InputInvalid` with every problem.
        """
        problems = self.input_schema.problems(value)
        if problems:
            raise InputInvalid(summary(problems, "the input"), problems=problems)
        accepted: dict[str, Any] = self.input_schema.with_defaults(value)
        asked = accepted.get("language")
        if isinstance(asked, str) and self.languages and "language" in self.input["properties"]:
            found = language.lookup(asked, self.languages)
            if found is None:
                problem = Problem(
                    "/language",
                    "language_unsupported",
                    "is not a language of this service",
                    expected=list(self.languages),
                    got=asked[:60],
                )
                raise InputInvalid(summary([problem], "the input"), problems=[problem])
            return {**accepted, "language": found}
        return accepted


def load(path: str | Path) -> Manifest:
    """Read a manifest from a file; raises `ManifestInvalid` with every problem, file and line."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = Problem("", "file", f"cannot be read: {error.strerror}", file=str(path))
        raise ManifestInvalid(problems=[problem]) from None
    try:
        source = read(data, str(path))
    except SourceInvalid as error:
        raise ManifestInvalid(problems=[error.problem]) from None
    problems = list(_problems_of(source.value))
    if problems:
        raise ManifestInvalid(problems=[source.locate(problem) for problem in problems])
    return _build(source.value, path.resolve())


def from_document(document: Any) -> Manifest:
    """Make a manifest from a parsed document, such as one announced by a worker.

    Raises `ManifestInvalid` with every problem. Nothing named in it is imported or fetched, and
    what is larger than a file may be is refused.
    """
    beyond = beyond_bounds(document)
    problems = [beyond] if beyond else list(_problems_of(document))
    if problems:
        raise ManifestInvalid(problems=problems)
    return _build(document, None)


def digest_of(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the document as canonical JSON: sorted keys, no spaces."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@lru_cache(maxsize=1)
def manifest_schema() -> Schema:
    """Return the compiled JSON Schema of manifests, the only place where keys are described."""
    text = resources.files("runner").joinpath("manifest.schema.json").read_text("utf-8")
    return Schema(json.loads(text))


def _problems_of(document: Any) -> Iterator[Problem]:
    """Find everything wrong with a manifest: first its shape, then what it says."""
    shape = manifest_schema().problems(document)
    yield from shape
    if not isinstance(document, dict):
        return
    told = {problem.pointer for problem in shape}
    deeper = [*_schema_problems(document), *_duplicate_steps(document.get("steps"))]
    yield from (problem for problem in deeper if problem.pointer not in told)
    if not shape and not deeper:
        manifest = _build(document, None)
        yield from _empty_limits(manifest)
        yield from _default_problems(manifest)
        yield from _example_problems(manifest)
        yield from linto.block_problems(document)


def _schema_problems(document: dict[str, Any]) -> Iterator[Problem]:
    for key in ("input", "output"):
        if isinstance(document.get(key), dict):
            yield from _under(f"/{key}", schema_problems(document[key]))
    config = document.get("config")
    for name, schema in config.items() if isinstance(config, dict) else ():
        found = schema_problems(schema)
        yield from _under(pointer(["config", name]), found)
        if not found and isinstance(schema, dict) and "default" in schema:
            wrong = Schema(schema).problems(schema["default"])
            yield from _under(pointer(["config", name, "default"]), wrong)


def _duplicate_steps(steps: Any) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        name = step.get("name") if isinstance(step, dict) else None
        if isinstance(name, str):
            if name in seen:
                yield Problem(f"/steps/{index}/name", "duplicate", f"`{name}` is declared twice")
            seen.add(name)


def _empty_limits(manifest: Manifest) -> Iterator[Problem]:
    for key in manifest.document.get("limits", {}):
        if not getattr(manifest.limits, key) > 0:
            yield Problem(f"/limits/{key}", "limit", "is nothing", "more than 0")


def _default_problems(manifest: Manifest) -> Iterator[Problem]:
    """Validate the defaults of the input: nobody else does, and a handler relies on them."""
    defaults = manifest.input_schema.with_defaults({})
    for problem in Schema({**manifest.input, "required": []}).problems(defaults):
        name, _, rest = problem.pointer[1:].partition("/")
        if name in defaults:
            place = f"/input/properties/{name}/default" + (f"/{rest}" if rest else "")
            yield replace(problem, pointer=place)
    asked = defaults.get("language")
    offered = manifest.languages
    if isinstance(asked, str) and offered and language.lookup(asked, offered) is None:
        place = "/input/properties/language/default"
        message = "is not one of `languages`"
        yield Problem(place, "language_unsupported", message, list(offered), asked)


def _example_problems(manifest: Manifest) -> Iterator[Problem]:
    """Validate each example as a request and a result of this very manifest."""
    for index, example in enumerate(manifest.examples):
        try:
            manifest.accept(example.input)
        except InputInvalid as error:
            yield from _under(f"/examples/{index}/input", error.problems)
        if example.output is not None:
            found = manifest.output_schema.problems(example.output)
            yield from _under(f"/examples/{index}/output", found)


def _under(prefix: str, problems: Iterable[Problem]) -> Iterator[Problem]:
    for problem in problems:
        yield replace(problem, pointer=prefix + problem.pointer)


def _build(document: dict[str, Any], path: Path | None) -> Manifest:
    name = document["name"]
    return Manifest(
        name=name,
        type=document.get("type", name.replace("-", "_")),
        version=document["version"],
        summary=document["summary"],
        description=document.get("description", ""),
        languages=tuple(document.get("languages", ())),
        handler=document["handler"],
        requires=tuple(document.get("requires", ())),
        packages=tuple(document.get("packages", ())),
        config=document.get("config", {}),
        input=document["input"],
        output=document["output"],
        steps=tuple(_step(step) for step in document.get("steps", [{"name": "run"}])),
        limits=_limits(document.get("limits", {})),
        reuse=document.get("reuse", True),
        examples=tuple(_example(e, i) for i, e in enumerate(document.get("examples", []), 1)),
        document=document,
        digest=digest_of(document),
        path=path,
    )


def _step(step: dict[str, Any]) -> StepSpec:
    title = step.get("title", step["name"].replace("_", " ").replace("-", " ").capitalize())
    return StepSpec(step["name"], title, float(step.get("weight", 1)))


def _example(example: dict[str, Any], number: int) -> Example:
    return Example(
        example.get("title", f"Example {number}"), example["input"], example.get("output")
    )


def _limits(limits: dict[str, Any]) -> Limits:
    values = dict(limits)
    for key in ("timeout", "startup", "queue_timeout", "deadline"):
        if key in values:
            values[key] = _quantity(values[key], SECONDS)
    if "max_body" in values:
        values["max_body"] = int(_quantity(values["max_body"], BYTES))
    return Limits(**values)


def _quantity(text: str, units: Mapping[str, float]) -> float:
    """Return the number of base units that a text such as `10m` or `10MB` says."""
    unit = next(unit for unit in units if text.endswith(unit))
    return float(text.removesuffix(unit)) * units[unit]
