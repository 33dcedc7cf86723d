"""Run a handler in a test, and a manifest's examples, without any server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner import events
from runner.context import Stop
from runner.engine import Engine
from runner.errors import Problem, RunnerError
from runner.manifest import Example, Manifest, load
from runner.schema import pointer
from runner.source import read

TOLERANCE = 1e-3
"""How far, relatively, a number of a result may lie from the one its example states."""


@dataclass(frozen=True, slots=True)
class Run:
    """How one execution ended, and its story.

    `status` is succeeded, failed or canceled; `output` belongs to the first, `error` to the others.
    """

    status: str
    output: Any
    error: RunnerError | None
    events: tuple[events.Event, ...]


def run(
    manifest: str | Path | Manifest,
    input: Any,
    *,
    config: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    stop: Stop | None = None,
    attempt: int = 1,
) -> Run:
    """Set a service's handler up, run it once on the input, and return what happened.

    `timeout` is in seconds and defaults to the manifest's; `stop` lets a test cancel the run.
    Raises `ManifestInvalid`, `HandlerInvalid` or `SettingInvalid`; never what the handler raises.
    """
    engine = Engine(_loaded(manifest), config)
    try:
        return _run(engine, input, timeout=timeout, stop=stop, attempt=attempt)
    finally:
        engine.close()


def check_examples(
    manifest: str | Path | Manifest, config: Mapping[str, Any] | None = None
) -> list[Problem]:
    """Run every example of a manifest and say where a result is not the one it states.

    Numbers may differ by `TOLERANCE`, everything else must be equal. Pointers and lines lead into
    the manifest. Raises `ManifestInvalid`, `HandlerInvalid` or `SettingInvalid`.
    """
    manifest = _loaded(manifest)
    engine = Engine(manifest, config)
    try:
        found = [
            replace(problem, pointer=f"/examples/{index}{problem.pointer}")
            for index, example in enumerate(manifest.examples)
            for problem in _check(engine, example)
        ]
    finally:
        engine.close()
    if not found or manifest.path is None:
        return found
    source = read(manifest.path.read_bytes(), str(manifest.path))
    return [source.locate(problem) for problem in found]


def differences(stated: Any, got: Any, path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Say where a result is not the one stated, each place by its JSON Pointer."""
    if isinstance(stated, dict) and isinstance(got, dict):
        for key in stated.keys() | got.keys():
            if key not in got:
                yield Problem(pointer((*path, key)), "difference", "is missing from the result")
            elif key not in stated:
                yield Problem(pointer((*path, key)), "difference", "is in the result only")
            else:
                yield from differences(stated[key], got[key], (*path, key))
    elif isinstance(stated, list) and isinstance(got, list | tuple) and len(stated) == len(got):
        for index, (one, other) in enumerate(zip(stated, got, strict=True)):
            yield from differences(one, other, (*path, index))
    elif not _same(stated, got):
        yield Problem(pointer(path), "difference", "differs", _short(stated), _short(got))


def _check(engine: Engine, example: Example) -> Iterator[Problem]:
    ran = _run(engine, example.input)
    if ran.error is not None:
        yield Problem("", ran.error.code, f"{ran.status}: {ran.error.detail}")
    elif example.output is not None:
        found = sorted(differences(example.output, ran.output), key=lambda p: p.pointer)
        yield from (replace(problem, pointer=f"/output{problem.pointer}") for problem in found)


def _run(
    engine: Engine,
    input: Any,
    *,
    timeout: float | None = None,
    stop: Stop | None = None,
    attempt: int = 1,
) -> Run:
    heard: list[events.Event] = []
    outcome = engine.run(
        "test", input, emit=heard.append, attempt=attempt, stop=stop, timeout=timeout
    )
    return Run(outcome.status, outcome.output, outcome.error, tuple(heard))


def _loaded(manifest: str | Path | Manifest) -> Manifest:
    return manifest if isinstance(manifest, Manifest) else load(manifest)


def _same(stated: Any, got: Any) -> bool:
    """Compare two values that are not both containers; true is not 1."""
    if isinstance(stated, bool) or isinstance(got, bool):
        return stated is got
    if isinstance(stated, int | float) and isinstance(got, int | float):
        return math.isclose(stated, got, rel_tol=TOLERANCE, abs_tol=1e-9)
    return bool(stated == got)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
