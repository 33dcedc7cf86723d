"""The calls of LinTO's clients, translated to jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import redis
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from runner import http, payload
from runner.errors import (
    BadRequest,
    InputInvalid,
    JobFinished,
    JobUnknown,
    MalformedJson,
    NotFound,
    Problem,
    summary,
)
from runner.http import json_response
from runner.jsontext import parse_json
from runner.linto_requests import Choice, config_key, read_choice
from runner.manifest import Manifest
from runner.orchestrator import routes
from runner.orchestrator.admission import Asked
from runner.orchestrator.composite import ask
from runner.orchestrator.intake import Taken
from runner.orchestrator.jobs import Job
from runner.orchestrator.life import Orchestrator
from runner.orchestrator.resolution import choose
from runner.orchestrator.terms import terms_of
from runner.stream import event_data, when

WORDS = {"queued": "pending", "running": "started", "succeeded": "done", "failed": "failed",
         "canceled": "failed"}  # fmt: skip
"""What LinTO's clients call a state."""

LOG_WAIT = 0.05
"""Seconds that a job's log waits for one more line."""


async def create_job(it: Orchestrator, request: Request) -> Response:
    """Start the services that `nlpConfig` names on all documents: `POST /nlp`."""
    terms = terms_of(request)
    documents, config = await _read(it, request)
    terms = terms.about("nlp", documents, config)
    if made := await it.dispatcher.admission.replay(terms):
        return _created(request, made, (await _note(it, made.job)).get("warnings", []))
    choices, warnings = _choices(it, config)
    wanted = {kind: choice for kind, choice in choices.items() if choice.enabled}
    if not wanted:
        raise BadRequest("Every service is switched off, so there is nothing to do.")
    parts: dict[str, Asked] = {}
    problems: list[Problem] = []
    for kind, choice in wanted.items():
        entry, told = choose(it.catalog.entries(), kind, choice.service, it.home.policy)
        form = entry.manifest.linto
        if form is None:
            raise BadRequest(f"{entry.manifest.name} takes no documents.")
        inputs, more = form.to_input(documents, choice.parameters, it.home.policy.language)
        warnings += [*choice.warnings, *([told] if told else []), *more]
        try:
            parts[kind] = await asyncio.to_thread(ask, entry.manifest, inputs)
        except InputInvalid as error:
            place = f"/nlpConfig/{config_key(kind)}/methodConfig"
            problems += form.located(error.problems, place)
    if problems:
        raise InputInvalid(summary(problems, "the request"), problems=problems)
    note = {"disabled": sorted(choices.keys() - wanted.keys()), "warnings": warnings}
    taken = await it.dispatcher.admission.submit_parts(parts, {"linto": note}, terms)
    return _created(request, taken, warnings)


def _created(request: Request, taken: Taken, warnings: list[str]) -> Response:
    headers = {"location": f"/job/{taken.job.id}", **routes.replayed(taken)}
    if "text/plain" in request.headers.get("accept", ""):
        return PlainTextResponse(taken.job.id, 201, headers)
    told = {"warnings": warnings} if warnings else {}
    return json_response({"jobid": taken.job.id, **told}, 201, headers)


async def get_job(it: Orchestrator, request: Request) -> Response:
    """Tell where a job stands, with a step for each service: `GET /job/{id}`."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    parts = await _parts(it, job)
    note = await _note(it, job)
    steps = {str(part.part): await _step(it, part) for part in parts}
    steps |= {kind: {"required": False} for kind in note.get("disabled", ())}
    steps["postprocessing"] = {"required": False}
    answer: dict[str, Any] = {"state": WORDS[job.status], "steps": steps}
    if note.get("warnings"):
        answer["warnings"] = note["warnings"]
    if not job.finished:
        return json_response(answer, 202, {"retry-after": "1"})
    done = any(part.status == "succeeded" for part in parts)
    if job.status == "succeeded" or (job.status == "failed" and done):
        failed = {"reason": job.error["detail"]} if job.error else {}
        return json_response({**answer, "state": "done", "result_id": job.id, **failed}, 201)
    answer["reason"] = (job.error or {}).get("detail", job.reason)
    return json_response(answer, 409 if job.status == "canceled" else 500)


def unknown(error: JobUnknown) -> Response:
    """Say that there is no such job, in LinTO's form."""
    return json_response({"state": "failed", "reason": error.detail}, 404)


async def get_results(it: Orchestrator, request: Request) -> Response:
    """Return what each service found, in LinTO's form: `GET /results/{id}`."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    parts = [part for part in await _parts(it, job) if part.status == "succeeded"]
    if not job.finished or not parts:
        raise NotFound(f"The job is {job.status} and has no results.")
    results: dict[str, Any] = {}
    warnings = list((await _note(it, job)).get("warnings", ()))
    for part in parts:
        asked = await it.store.payload(part.id, "input")
        found = await it.store.payload(part.id, "output")
        if found is None:
            continue
        manifest = await it.manifest(part.manifest_digest)
        results[str(part.part)], more = await asyncio.to_thread(_translated, manifest, asked, found)
        warnings += more
    return json_response({**results, **({"warnings": warnings} if warnings else {})})


async def get_log(it: Orchestrator, request: Request) -> Response:
    """Return what a job went through, a line for each event: `GET /job-log/{id}`."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    lines: list[tuple[float, str]] = []
    for part in await _parts(it, job):
        for row in await it.store.transitions(part.id):
            reason = f" ({row.reason})" if row.reason else ""
            lines.append((row.at, f"{part.part}: {row.status}{reason}, attempt {row.attempt}"))
        with contextlib.suppress(redis.RedisError):
            async for entry in it.wire.follow(part.id, "0", block=LOG_WAIT):
                if entry is None:
                    break
                event = entry[1]
                if event["event"] == "log":
                    said = event_data(event)
                    line = f"{part.part}: {said.get('level', 'info')}: {said.get('message', '')}"
                    lines.append((float(event.get("at") or 0), line))
    told = [f"{when(at)} {line}" for at, line in sorted(lines, key=lambda line: line[0])]
    told += [f"warning: {one}" for one in (await _note(it, job)).get("warnings", ())]
    return PlainTextResponse("\n".join([*told, ""]))


async def revoke(it: Orchestrator, request: Request) -> Response:
    """Cancel a job, as LinTO's clients ask for it: `GET /revoke/{id}`."""
    job_id = request.path_params["id"]
    with contextlib.suppress(JobFinished):
        await it.dispatcher.cancel(job_id, "the caller")
    successor = f'</v1/jobs/{job_id}/cancel>; rel="successor-version"'
    return PlainTextResponse("done", headers={"link": successor})


async def healthcheck(it: Orchestrator, request: Request) -> Response:
    """Answer 1 while requests can be served: `GET /healthcheck`."""
    ready = await routes.readyz(it, request)
    return json_response(1) if ready.status_code == 200 else ready


# --- what a request says -------------------------------------------------------------------------


async def _read(it: Orchestrator, request: Request) -> tuple[list[str], dict[str, Any]]:
    """Return the documents and `nlpConfig` of a JSON body or of a form that holds both as JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    most = it.catalog.largest_body()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        form = await http.read_form(request, most)
        body: Any = {name: _json(name, text) for name, text in form.items()}
    else:
        body = await http.read_json(request, most)
    if not isinstance(body, dict):
        raise BadRequest("The body must be an object with `documents` and `nlpConfig`.")
    documents, config = body.get("documents"), body.get("nlpConfig")
    if not isinstance(documents, list) or not all(isinstance(one, str) for one in documents):
        raise BadRequest("`documents` must be a list of strings.")
    if config is not None and not isinstance(config, dict):
        raise BadRequest("`nlpConfig` must be an object.")
    return documents, config or {}


def _json(name: str, text: str) -> Any:
    try:
        return parse_json(text.encode())
    except MalformedJson as error:
        raise BadRequest(f"The form's field `{name[:60]}` must be JSON: {error.detail}") from None


def _choices(it: Orchestrator, config: Mapping[str, Any]) -> tuple[dict[str, Choice], list[str]]:
    """Return what is wanted of each type of service, and a sentence for each key that is unknown.

    Where no type is named, those run whose manifest says so.
    """
    entries = it.catalog.entries()
    forms = {form.type: form for entry in entries if (form := entry.manifest.linto)}
    kinds = {config_key(kind): kind for kind in forms}
    warnings = [
        f"`{key[:60]}` of nlpConfig was ignored; known are: {', '.join(kinds) or 'none'}."
        for key in config
        if key not in kinds
    ]
    named: dict[str, Any] = {kinds[key]: value for key, value in config.items() if key in kinds}
    if not named:
        named = {kind: None for kind, form in forms.items() if form.default}
    if not named:
        raise BadRequest(f"nlpConfig names no service; known are: {', '.join(kinds) or 'none'}.")
    return {kind: read_choice(kind, value) for kind, value in named.items()}, warnings


# --- what became of it ---------------------------------------------------------------------------


async def _parts(it: Orchestrator, job: Job) -> list[Job]:
    """Return the parts of a job; one that was asked for alone is its own only part."""
    if job.composite:
        return await it.store.parts(job.id)
    manifest = await it.manifest(job.manifest_digest)
    return [replace(job, part=manifest.type if manifest else job.service)]


async def _step(it: Orchestrator, part: Job) -> dict[str, Any]:
    progress = 1.0 if part.status == "succeeded" else 0.0
    if part.status == "running":
        picture = (await it.dispatcher.following.resource(part))["progress"] or {}
        progress = round(float(picture.get("percent", 0.0)) / 100, 4)
    step = {"required": True, "status": WORDS[part.status], "progress": progress}
    failed = {"reason": part.error["detail"]} if part.finished and part.error else {}
    return {**step, "service_name": part.service, **failed}


async def _note(it: Orchestrator, job: Job) -> dict[str, Any]:
    """Return what `POST /nlp` wrote down about a job: what was switched off, and warnings."""
    packed = await it.store.payload(job.id, "input") if job.composite else None
    note = payload.unpack(packed).get("linto") if packed else None
    return note if isinstance(note, dict) else {}


def _translated(
    manifest: Manifest | None, asked: bytes | None, found: bytes
) -> tuple[list[Any], list[str]]:
    """Return the results of one part in LinTO's form, and what their reader should know."""
    output = payload.unpack(found)
    inputs = payload.unpack(asked) if asked else {}
    form = manifest.linto if manifest else None
    if form is None:
        return [output], []
    return form.to_results(inputs.get("documents", ()), output)
