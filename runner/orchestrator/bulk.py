"""Many inputs for one service in one request: all become jobs, or none does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import lru_cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from runner import http
from runner.errors import InputInvalid, Problem, summary
from runner.http import json_response
from runner.manifest import Manifest
from runner.orchestrator import callback
from runner.orchestrator.admission import Asked
from runner.orchestrator.composite import ask
from runner.orchestrator.life import Orchestrator
from runner.orchestrator.routes import replayed
from runner.orchestrator.terms import terms_of
from runner.schema import Schema
from runner.submit_paths import BULK

MOST_TOLD = 1000
"""Problems of one request that are told; more would not be read."""


async def submit_bulk(it: Orchestrator, request: Request) -> Response:
    """Validate every input, commit a job for each in one transaction, answer with all of them."""
    terms, name = terms_of(request), request.path_params["name"]
    manifest = it.catalog.serving(name) if terms.key is None else it.catalog.entry(name).manifest
    terms = replace(terms, webhook=callback.asked(request, it.home.outgoing))
    value = await http.read_json(request, manifest.limits.max_body)
    terms = terms.about("bulk", name, value)
    taken = await it.dispatcher.admission.replay(terms)
    if taken is None:
        several = await asyncio.to_thread(accept_all, it.catalog.serving(name), value)
        taken = await it.dispatcher.admission.submit_many(several, terms)
    jobs = await it.dispatcher.following.resources(taken.jobs)
    return json_response({"jobs": jobs}, 202, {"retry-after": "1", **replayed(taken)})


def accept_all(manifest: Manifest, value: Any) -> list[Asked]:
    """Return every accepted input; raises `InputInvalid` with the problems of all of them."""
    problems = shape().problems(value)
    if problems:
        raise InputInvalid(summary(problems, "the request"), problems=problems)
    asked: list[Asked] = []
    wrong: list[Problem] = []
    for place, inputs in enumerate(value["inputs"]):
        try:
            asked.append(ask(manifest, inputs))
        except InputInvalid as error:
            wrong += [
                replace(one, pointer=f"/inputs/{place}{one.pointer}") for one in error.problems
            ]
    if wrong:
        raise InputInvalid(summary(wrong, "the request"), problems=wrong[:MOST_TOLD])
    return asked


@lru_cache(maxsize=1)
def shape() -> Schema:
    """Return the compiled schema of the request."""
    return Schema(BULK)
