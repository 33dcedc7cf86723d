"""What the orchestrator answers: one function for each route, and what requests may say."""

from __future__ import annotations

import asyncio
import base64
import math
import re
from collections.abc import AsyncGenerator
from typing import Any

import redis
from starlette.requests import Request
from starlette.responses import Response

from runner import http, payload
from runner.errors import BadRequest, JobFailed, ResultGone, ResultNotReady, StoreUnavailable
from runner.http import document_response, json_response
from runner.orchestrator.jobs import OPEN, TERMINAL, Job
from runner.orchestrator.life import Orchestrator
from runner.orchestrator.resource import (
    job_resource,
    linto_services,
    service_resource,
    worker_resource,
)
from runner.stream import STREAM_NAMES, event_data

MAX_PAGE = 200
LARGE_INPUT = 256 * 1024
"""Bytes above which an input is validated beside the event loop instead of on it."""


# --- jobs ----------------------------------------------------------------------------------------


async def submit_job(it: Orchestrator, request: Request) -> Response:
    """Validate, commit, answer: 202 at once, or the finished job if the caller prefers to wait."""
    manifest = it.catalog.serving(request.path_params["name"])
    preferred = _preferred_wait(request, it.home.max_wait)
    value = await http.read_json(request, manifest.limits.max_body)
    declared = request.headers.get("content-length")
    size = int(declared or 0)
    if declared is None or size > LARGE_INPUT:
        inputs = await asyncio.to_thread(manifest.accept, value)
    else:
        inputs = manifest.accept(value)
    job = await it.dispatcher.submit(manifest, inputs, size=size)
    headers = {"location": f"/v1/jobs/{job.id}"}
    if preferred is None:
        resource = await it.dispatcher.following.resource(job)
        return json_response(resource, 202, {**headers, "retry-after": "1"})
    request.state.waited = preferred
    job = await it.dispatcher.following.wait(job.id, preferred)
    headers["preference-applied"] = f"wait={preferred:g}"
    if not job.finished:
        resource = await it.dispatcher.following.resource(job)
        return json_response(resource, 202, {**headers, "retry-after": "1"})
    return json_response(await _with_output(it, job), 200, headers)


async def get_job(it: Orchestrator, request: Request) -> Response:
    """Tell where a job stands; `?wait=N` answers when it has finished, or after N seconds."""
    wait = _seconds(request.query_params.get("wait", "0"), it.home.max_wait)
    job_id = request.path_params["id"]
    if wait:
        request.state.waited = wait
        job = await it.dispatcher.following.wait(job_id, wait)
    else:
        job = await it.dispatcher.following.job(job_id)
    resource = await it.dispatcher.following.resource(job)
    return document_response(request, resource, {} if job.finished else {"retry-after": "1"})


async def get_result(it: Orchestrator, request: Request) -> Response:
    """Return the output of a job that succeeded."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    if not job.finished:
        raise ResultNotReady(f"The job is {job.status}.", retry_after=1, job_status=job.status)
    if job.status != "succeeded":
        raise JobFailed(
            f"The job {job.status}: {(job.error or {}).get('detail', job.reason)}",
            job_status=job.status, reason=job.reason, job_error=job.error,
        )  # fmt: skip
    packed = await it.store.payload(job.id, "output")
    if packed is None:
        raise ResultGone("The result has been erased.")
    return json_response(await asyncio.to_thread(payload.unpack, packed))


async def get_events(it: Orchestrator, request: Request) -> Response:
    """Tell a job's story as it happens, and what was missed since `Last-Event-ID`."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    after = request.headers.get("last-event-id", "0")
    if not re.fullmatch(r"[0-9]{1,18}(-[0-9]{1,18})?", after):
        raise BadRequest("Last-Event-ID is not an id that this stream gave out.")

    async def story() -> AsyncGenerator[tuple[str | None, str, Any]]:
        async for number, name, event in it.dispatcher.following.follow(job, after):
            data = event if number is None and name == "status" else _told(event)
            yield number, STREAM_NAMES.get(name, name), data

    if "application/x-ndjson" in request.headers.get("accept", ""):
        return http.ndjson(story(), until=it.lifetime.stopping)
    return http.sse(story(), until=it.lifetime.stopping)


async def cancel_job(it: Orchestrator, request: Request) -> Response:
    """Ask for a job to end: 200 if it has, 202 if its worker has been told."""
    job = await it.dispatcher.cancel(request.path_params["id"], "the caller")
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
    limit = _whole(query.get("limit", "50"))
    jobs = await it.store.list(
        limit=limit + 1,
        before=_cursor(query.get("cursor")),
        status=status,
        service=query.get("service") or None,
    )
    page = jobs[:limit]
    cursor = None
    if len(jobs) > limit:
        last = page[-1]
        cursor = base64.urlsafe_b64encode(f"{last.created_at!r} {last.id}".encode()).decode()
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
        checks["broker"] = f"Redis does not answer: {type(error).__name__}"
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


# --- what requests say ---------------------------------------------------------------------------


async def _with_output(it: Orchestrator, job: Job) -> dict[str, Any]:
    """Return a finished job, with its output where it has one."""
    resource = job_resource(job)
    packed = await it.store.payload(job.id, "output") if job.status == "succeeded" else None
    if packed is not None:
        resource["output"] = await asyncio.to_thread(payload.unpack, packed)
    return resource


def _told(event: Any) -> Any:
    """Return what followers see: our own stories carry their data, workers' events are it."""
    return event["data"] if "data" in event else event_data(event)


def _preferred_wait(request: Request, most: float) -> float | None:
    """Read `Prefer: wait=N` (RFC 7240); None when the caller does not want to wait."""
    for preference in request.headers.get("prefer", "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.strip().lower() == "wait":
            return _seconds(value.strip().strip('"'), most)
    return None


def _seconds(text: str, most: float) -> float:
    """Read a number of seconds; more than `most` is cut to it."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadRequest(f"wait must be a number of seconds; at most {most:g} are waited.")
    return min(seconds, most)


def _whole(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_PAGE:
        raise BadRequest(f"limit must be a whole number from 1 to {MAX_PAGE}.")
    return int(text)


def _cursor(text: str | None) -> tuple[float, str] | None:
    """Read a cursor that an earlier page gave."""
    if not text:
        return None
    try:
        created, _, job_id = base64.urlsafe_b64decode(text.encode()).decode().partition(" ")
        at = float(created)
    except ValueError:
        at = math.nan
    if not math.isfinite(at):
        raise BadRequest("cursor is not one that a page of this list gave.")
    return at, job_id
