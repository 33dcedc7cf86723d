"""A request to several services at once: its shape, and what each service says of its part."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from runner.errors import InputInvalid, PayloadTooLarge, Problem, ServiceUnknown, summary
from runner.manifest import Manifest
from runner.orchestrator.admission import Asked
from runner.orchestrator.catalog import Catalog
from runner.paths import PARTS
from runner.schema import Schema, pointer


@lru_cache(maxsize=1)
def shape() -> Schema:
    """Return the compiled schema of the request."""
    return Schema(PARTS)


def accept_parts(catalog: Catalog, value: Any) -> dict[str, Asked]:
    """Return what is asked of each service, its defaults filled in.

    Raises `InputInvalid` with the problems of all parts, `PayloadTooLarge`, and `NoWorker` when
    nobody could run one of them.
    """
    problems = shape().problems(value)
    if problems:
        raise InputInvalid(summary(problems, "the request"), problems=problems)
    asked: dict[str, Asked] = {}
    for name, part in value["parts"].items():
        where = pointer(["parts", name])
        try:
            manifest = catalog.serving(part.get("service", name))
        except ServiceUnknown as error:
            problems.append(Problem(where, error.code, error.detail))
            continue
        try:
            asked[name] = ask(manifest, part["input"])
        except InputInvalid as error:
            problems += [
                replace(one, pointer=f"{where}/input{one.pointer}") for one in error.problems
            ]
    if problems:
        raise InputInvalid(summary(problems, "the request"), problems=problems)
    return asked


def ask(manifest: Manifest, inputs: Any) -> Asked:
    """Return the accepted input of one part; raises `InputInvalid` and `PayloadTooLarge`."""
    size, most = len(orjson.dumps(inputs)), manifest.limits.max_body
    if size > most:
        raise PayloadTooLarge(
            f"{manifest.name} takes at most {most:,} bytes, and its part has {size:,}.",
            max_body=most,
        )
    return Asked(manifest, manifest.accept(inputs), size)
