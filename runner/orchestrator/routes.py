"""What the orchestrator answers: one function for each route, and what requests may say."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import redis
from starlette.requests import Request
from starlette.responses import Response

from runner import connection, http, logs, payload
from runner.errors import BadRequest, JobFailed, ResultGone, ResultNotReady, StoreUnavailable
from runner.http import document_response, json_response
from runner.orchestrator import callback
from runner.orchestrator.admission import Asked
from runner.orchestrator.composite import accept_parts
from runner.orchestrator.following import told
from runner.orchestrator.gate import caller_of
from runner.orchestrator.intake import Taken
from runner.orchestrator.jobs import OPEN, TERMINAL, Job
from runner.orchestrator.life import Orchestrator
from runner.orchestrator.parameters import (
    cursor_after,
    cursor_of,
    page_size,
    preferred_wait,
    seconds_of,
)
from runner.orchestrator.resource import (
    job_resource,
    linto_services,
    service_resource,
    worker_resource,
)
from runner.orchestrator.terms import terms_of
from runner.stream import STREAM_NAMES

log = logging.getLogger(__name__)

SMALL_OUTPUT = 4096
"""Packed bytes up to which an output at hand is unpacked on the event loop."""

LARGE_INPUT = 256 * 1024
"""Bytes above which an input is validated beside the event loop instead of on it."""


# --- jobs ----------------------------------------------------------------------------------------


async def submit_job(it: Orchestrator, request: Request) -> Response:
    """Validate, commit, answer: 202 at once, or the finished job if the caller prefers to wait."""
    terms, name = terms_of(request), request.path_params["name"]
    # What was done under a key is told also while nobody serves it.
    manifest = it.catalog.serving(name) if terms.key is None else it.catalog.entry(name).manifest
    preferred = preferred_wait(request, it.home.max_wait)
    terms = replace(terms, webhook=callback.asked(request, it.home.outgoing))
    value = await http.read_json(request, manifest.limits.max_body)
    terms = terms.about("job", name, value)
    taken = await it.dispatcher.admission.replay(terms)
    if taken is None:
        manifest = it.catalog.serving(name)
        declared = request.headers.get("content-length")
        size = int(declared or 0)
        if declared is None or size > LARGE_INPUT:
            inputs = await asyncio.to_thread(manifest.accept, value)
        else:
            inputs = manifest.accept(value)
        taken = await it.dispatcher.admission.submit(Asked(manifest, inputs, size), terms)
    return await accepted(it, request, taken, preferred)


async def submit_parts(it: Orchestrator, request: Request) -> Response:
    """Validate all parts, commit them as one job, answer as for a single one."""
    terms = terms_of(request)
    preferred = preferred_wait(request, it.home.max_wait)
    terms = replace(terms, webhook=callback.asked(request, it.home.outgoing))
    value = await http.read_json(request, it.catalog.largest_body())
    terms = terms.about("parts", value)
    taken = await it.dispatcher.admission.replay(terms)
    if taken is None:
        parts = await asyncio.to_thread(accept_parts, it.catalog, value)
        taken = await it.dispatcher.admission.submit_parts(parts, {}, terms)
    return await accepted(it, request, taken, preferred)


async def accepted(
    it: Orchestrator, request: Request, taken: Taken, preferred: float | None
) -> Response:
    """Answer for a job that has been committed, after the wait that its caller prefers.

    One that an earlier result has answered is told at once with its output.
    """
    job = taken.job
    about = {**logs.ABOUT.get(), **job.about}
    log.debug("job %s was accepted", job.id, extra={"about": about})
    headers = {"location": f"/v1/jobs/{job.id}", **replayed(taken)}
    ended = job.finished and (not taken.replayed or job.reused_from is not None)
    if ended and any(one.reused_from for one in taken.jobs):
        headers["cache-status"] = "nlp-runner; hit"
    if preferred is None and not ended:
        resource = await it.dispatcher.following.resource(job)
        return json_response(resource, 202, {**headers, "retry-after": "1"})
    packed = None
    if preferred is not None:
        request.state.waited = preferred
        job, packed = await it.dispatcher.following.wait(job, preferred)
        headers["preference-applied"] = f"wait={preferred:g}"
    if not job.finished:
        resource = await it.dispatcher.following.resource(job)
        return json_response(resource, 202, {**headers, "retry-after": "1"})
    return json_response(await _with_output(it, job, packed), 200, headers)


def replayed(taken: Taken) -> dict[str, str]:
    """Return the header that says that this was asked for, under its key, before."""
    return {"idempotent-replayed": "true"} if taken.replayed else {}


async def get_job(it: Orchestrator, request: Request) -> Response:
    """Tell where a job stands; `?wait=N` answers when it has finished, or after N seconds."""
    wait = seconds_of(request.query_params.get("wait", "0"), it.home.max_wait)
    job = await it.dispatcher.following.job(request.path_params["id"])
    if wait:
        request.state.waited = wait
        job, _ = await it.dispatcher.following.wait(job, wait)
    resource = await it.dispatcher.following.resource(job)
    return document_response(request, resource, {} if job.finished else {"retry-after": "1"})


async def get_result(it: Orchestrator, request: Request) -> Response:
    """Return the output of a job that succeeded, or of the parts that did."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    if not job.finished:
        raise ResultNotReady(f"The job is {job.status}.", retry_after=1, job_status=job.status)
    output = await _output(it, job)
    if output is None and job.status == "succeeded":
        raise ResultGone("The result has been erased.")
    if output is None:
        raise JobFailed(
            f"The job {job.status}: {(job.error or {}).get('detail', job.reason)}",
            job_status=job.status, reason=job.reason, job_error=job.error,
        )  # fmt: skip
    return json_response(output)


async def get_events(it: Orchestrator, request: Request) -> Response:
    """Tell a job's story as it happens, and what was missed since `Last-Event-ID`."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    after = request.headers.get("last-event-id", "0")
    if not re.fullmatch(r"[0-9]{1,18}(-[0-9]{1,18})?", after):
        raise BadRequest("Last-Event-ID is not an id that this stream gave out.")

    async def story() -> AsyncGenerator[tuple[str | None, str, Any]]:
        async for number, name, event in it.dispatcher.following.follow(job, after):
            yield number, STREAM_NAMES.get(name, name), told(event)

    if "application/x-ndjson" in request.headers.get("accept", ""):
        return http.ndjson(story(), until=it.lifetime.stopping)
    return http.sse(story(), until=it.lifetime.stopping)


async def cancel_job(it: Orchestrator, request: Request) -> Response:
    """Ask for a job to end: 200 if it has, 202 if its worker has been told."""
    actor = caller_of(request).owner or "the caller"
    job = await it.dispatcher.cancel(request.path_params["id"], actor)
    resource = await it.dispatcher.following.resource(job)
    return json_response(resource, 200 if job.finished else 202)


async def delete_job(it: Orchestrator, request: Request) -> Response:
    """Erase a job with its input and result; one that still runs is canceled."""
    await it.dispatcher.erase(request.path_params["id"])
    return Response(status_code=204)


async def list_jobs(it: Orchestrator, request: Request) -> Response:
    """List jobs, the newest first, in pages that stay right while jobs come and go."""
    query = request.query_params
    status = query.get("status", "").replace("cancelled", "canceled") or None
    if status is not None and status not in (*OPEN, *TERMINAL):
        raise BadRequest(f"status must be one of {', '.join((*OPEN, *TERMINAL))}.")
    reason = query.get("reason") or None
    if reason is not None and not re.fullmatch("[a-z_]{1,64}", reason):
        raise BadRequest("reason must be the code of an end, such as worker_lost.")
    limit = page_size(query.get("limit", "50"))
    jobs = await it.store.list(
        limit=limit + 1,
        before=cursor_of(query.get("cursor")),
        status=status,
        service=query.get("service") or None,
        owner=caller_of(request).listing(query.get("owner")),
        reason=reason,
    )
    page = jobs[:limit]
    cursor = cursor_after(page[-1]) if len(jobs) > limit else None
    return json_response({"jobs": [job_resource(job) for job in page], "next_cursor": cursor})


# --- services ------------------------------------------------------------------------------------


async def list_services(it: Orchestrator, request: Request) -> Response:
    """List every known service and who serves it, and the workers that nobody can use."""
    services = [service_resource(entry) for entry in it.catalog.entries()]
    strangers = [worker_resource(member) for member in it.catalog.strangers]
    return json_response({"services": services, "quarantined": strangers})


async def get_service(it: Orchestrator, request: Request) -> Response:
    """Return one service with its whole manifest."""
    entry = it.catalog.entry(request.path_params["name"])
    return json_response(service_resource(entry, whole=True))


async def list_linto_services(it: Orchestrator, request: Request) -> Response:
    """List the living services as LinTO's clients know them."""
    return json_response(linto_services(it.catalog.entries()))


# --- about itself --------------------------------------------------------------------------------


async def livez(it: Orchestrator, request: Request) -> Response:
    """Say that the process is alive."""
    return json_response({"status": "alive"})


async def readyz(it: Orchestrator, request: Request) -> Response:
    """Say whether requests can be served, with a line for each thing that is needed."""
    checks = {"database": "ok", "broker": "ok"}
    try:
        await it.store.ping()
    except StoreUnavailable as error:
        checks["database"] = error.detail
    try:
        await asyncio.wait_for(it.redis.ping(), 2)
    except (redis.RedisError, OSError, TimeoutError) as error:
        checks["broker"] = connection.trouble(it.redis, error)
    available = sum(entry.available for entry in it.catalog.entries())
    ready = checks["database"] == "ok" and not it.lifetime.stopping.is_set()
    document = {
        "status": "ready" if ready else "not ready",
        "checks": checks,
        "services": available,
        "warnings": [] if available else ["no service has a living worker"],
    }
    return json_response(document, 200 if ready else 503, {} if ready else {"retry-after": "5"})


async def get_metrics(it: Orchestrator, request: Request) -> Response:
    """Return the figures for Prometheus."""
    body, kind = it.metrics.render()
    return Response(body, media_type=kind)


async def get_openapi(it: Orchestrator, request: Request) -> Response:
    """Return the OpenAPI document of the services that are known now."""
    return document_response(request, it.openapi())


async def get_docs(it: Orchestrator, request: Request) -> Response:
    """Show the OpenAPI document as a page to try things on."""
    return http.docs_page("nlp-runner", "openapi.json")


async def discover(it: Orchestrator, request: Request) -> Response:
    """Say what this is and where to go on."""
    links = {name: f"/{name}" for name in ("docs", "openapi.json", "livez", "readyz", "metrics")}
    document = {
        "name": "nlp-runner orchestrator",
        "version": it.version,
        "links": {**links, "services": "/v1/services", "jobs": "/v1/jobs"},
    }
    return json_response(document, headers={"link": '</openapi.json>; rel="service-desc"'})


async def _with_output(it: Orchestrator, job: Job, packed: bytes | None) -> dict[str, Any]:
    """Return a finished job, with its output where it has one; `packed` if it is at hand."""
    resource = await it.dispatcher.following.resource(job)
    small = packed is not None and len(packed) <= SMALL_OUTPUT
    output = payload.unpack(packed) if packed and small else await _output(it, job)
    return resource if output is None else {**resource, "output": output}


async def _output(it: Orchestrator, job: Job) -> Any:
    """Return the output of a finished job, or None where it has none.

    That of a composite job holds what became of each part, and there is one if any succeeded.
    """
    if job.composite:
        parts = await it.store.parts(job.id)
        if not any(part.status == "succeeded" for part in parts):
            return None
        return {
            "parts": {
                part.part: {
                    "service": part.service,
                    "status": part.status,
                    "output": await _output(it, part),
                    "error": part.error,
                }
                for part in parts
            }
        }
    return await it.store.output(job.id) if job.status == "succeeded" else None
