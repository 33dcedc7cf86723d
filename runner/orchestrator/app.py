"""The orchestrator's routes, its live OpenAPI document and its life."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runner import http, openapi, wire
from runner.broker import Producer
from runner.errors import (
    BadRequest,
    JobFailed,
    ManifestInvalid,
    ResultGone,
    ResultNotReady,
    StoreUnavailable,
)
from runner.http import Lifetime, document_response, json_response
from runner.manifest import Manifest, from_document
from runner.metrics import Metrics
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.dispatch import Dispatcher
from runner.orchestrator.jobs import OPEN, TERMINAL, Job
from runner.orchestrator.resource import (
    event_data,
    job_resource,
    linto_services,
    service_resource,
)
from runner.orchestrator.store import Store
from runner.registry import Registry

log = logging.getLogger(__name__)

REFRESH = 2.0
"""Seconds between two looks at the registry when it has told of no change."""

STORE_PATIENCE = 30.0
"""Seconds that the database gets to answer when the orchestrator starts."""

MAX_PAGE = 200
LARGE_INPUT = 256 * 1024
"""Bytes above which an input is validated beside the event loop instead of on it."""

EVENT_NAMES = {"started": "start"}
"""Words of the wire whose name differs in the event stream."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where an orchestrator lives: its database, its Redis, its namespace, its patience (s)."""

    database_url: str
    broker_url: str
    namespace: str
    max_wait: float


class Orchestrator:
    """What the routes share; `live` is its life from start to stop."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.metrics = Metrics()
        self.version = metadata.version("nlp-runner")
        self._openapi: tuple[int, dict[str, Any]] = (-1, {})

    @contextlib.asynccontextmanager
    async def live(self, lifetime: Lifetime) -> AsyncIterator[None]:
        """Connect, keep jobs moving, and leave everything in order."""
        home = self.home
        self.lifetime = lifetime
        self.store = Store(home.database_url)
        try:
            await _patiently(self.store.open, STORE_PATIENCE)
        except StoreUnavailable as error:
            lifetime.fail(error)
            yield
            return
        blocking = wire.connect(home.broker_url, "orchestrator-producer", timeout=2)
        self.redis = wire.connect_async(home.broker_url, "orchestrator")
        self.catalog = Catalog(Registry(self.redis, home.namespace))
        self.registry_channel = Registry(self.redis, home.namespace).channel
        producer = Producer(home.broker_url, home.namespace, blocking)
        self.wire = wire.OrchestratorWire(self.redis, home.namespace)
        self.dispatcher = Dispatcher(
            self.store, self.wire, producer, self.catalog, on_finished=self._count
        )
        await self._remember_services()
        self.metrics.collect(self._samples)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self.dispatcher.run()),
                tasks.create_task(self._keep_catalog()),
                tasks.create_task(self._listen()),
                tasks.create_task(self._measure()),
            ]
            yield
            for task in running:
                task.cancel()
        await self.redis.aclose()
        await asyncio.to_thread(producer.close)
        blocking.close()
        await self.store.close()

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of what is alive; composed anew when that changes."""
        if self._openapi[0] != self.catalog.version:
            services = [(entry.manifest, entry.available) for entry in self.catalog.entries()]
            self._openapi = (self.catalog.version, openapi.of_platform(services, self.version))
        return self._openapi[1]

    def _count(self, job: Job) -> None:
        self.metrics.finished(
            service=job.service,
            version=job.service_version,
            outcome=job.status,
            reason=job.reason or "",
            queue_seconds=(job.started_at or job.finished_at or job.created_at) - job.created_at,
            run_seconds=(
                job.finished_at - job.started_at if job.started_at and job.finished_at else None
            ),
        )

    async def _remember_services(self) -> None:
        """Take in the manifests of earlier days, so that a service that is down is not unknown."""
        for _, document, seen_at in await self.store.manifests():
            with contextlib.suppress(ManifestInvalid):
                self.catalog.remember(from_document(document), seen_at)

    async def _keep_catalog(self) -> None:
        self._changed = asyncio.Event()
        told = True
        while True:
            try:
                fresh = await self.catalog.refresh(time.time())
                self.dispatcher.poke()
                for manifest in fresh:
                    await self._save(manifest)
                told = False
            except (redis.RedisError, OSError) as error:
                if not told:
                    log.warning("the registry does not answer: %s", error)
                told = True
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), REFRESH)

    async def _save(self, manifest: Manifest) -> None:
        try:
            await self.store.save_manifest(
                manifest.digest, manifest.name, manifest.document, time.time()
            )
        except StoreUnavailable as error:
            log.warning("the manifest of %s could not be kept: %s", manifest.name, error)

    async def _listen(self) -> None:
        """Hear of workers that come and go, and of jobs that other orchestrators saw finish."""
        while True:
            try:
                async with self.redis.pubsub() as channel:
                    await channel.subscribe(self.registry_channel, self.wire.keys.done)
                    while True:
                        message = await channel.get_message(
                            ignore_subscribe_messages=True, timeout=5.0
                        )
                        if message is None:
                            continue
                        if message["channel"].decode() == self.registry_channel:
                            self._changed.set()
                        else:
                            self.dispatcher.wake(message["data"].decode())
            except (redis.RedisError, OSError):
                await asyncio.sleep(1.0)

    async def _measure(self) -> None:
        """Keep the queue's figures for the next scrape, so that a scrape never waits."""
        self._backlog: dict[str, tuple[int, float]] = {}
        while True:
            with contextlib.suppress(StoreUnavailable):
                self._backlog = await self.store.queue_ages(time.time())
            await asyncio.sleep(5.0)

    def _samples(self) -> list[tuple[str, str, dict[str, str], float]]:
        """Say what is alive now: (metric, help, labels, value)."""
        samples = []
        for entry in self.catalog.entries():
            manifest = entry.manifest
            service = {"service": manifest.name}
            depth, age = self._backlog.get(manifest.name, (0, 0.0))
            samples += [
                ("nlp_queue_depth", "Jobs that wait to start.", service, float(depth)),
                ("nlp_queue_oldest_age_seconds", "Age of the oldest of them.", service, age),
                (
                    "nlp_service_info",
                    "Services that are known.",
                    {**service, "version": manifest.version, "digest": manifest.digest[:12]},
                    1.0,
                ),
            ]
            states: dict[str, int] = {}
            for member in entry.members:
                state = "quarantined" if member.quarantined else member.instance.state
                states[state] = states.get(state, 0) + 1
            samples += [
                ("nlp_workers", "Living workers.", {**service, "state": state}, float(count))
                for state, count in states.items()
            ]
        conflicts = float(self.catalog.conflicts)
        samples.append(("nlp_registry_conflicts", "Workers in quarantine.", {}, conflicts))
        return samples


def create(home: Home) -> Starlette:
    """Return the orchestrator as an ASGI application."""
    it = Orchestrator(home)

    def on(method: str, path: str, endpoint: Callable[..., Any]) -> Route:
        async def answer(request: Request) -> Response:
            response: Response = await endpoint(it, request)
            return response

        return Route(path, answer, methods=[method], name=endpoint.__name__)

    routes = [
        on("POST", "/v1/services/{name}/jobs", submit_job),
        on("GET", "/v1/jobs/{id}", get_job),
        on("GET", "/v1/jobs/{id}/result", get_result),
        on("GET", "/v1/jobs/{id}/events", get_events),
        on("POST", "/v1/jobs/{id}/cancel", cancel_job),
        on("DELETE", "/v1/jobs/{id}", delete_job),
        on("GET", "/v1/jobs", list_jobs),
        on("GET", "/v1/services", list_services),
        on("GET", "/v1/services/{name}", get_service),
        on("GET", "/status/{id}", get_job),
        on("GET", "/list-services", list_linto_services),
        on("GET", "/livez", livez),
        on("GET", "/readyz", readyz),
        on("GET", "/healthz", readyz),
        on("GET", "/metrics", get_metrics),
        on("GET", "/openapi.json", get_openapi),
        on("GET", "/docs", get_docs),
        on("GET", "/", discover),
    ]
    return http.application(routes, observe=it.metrics.http, lifespan=it.live)


# --- jobs ----------------------------------------------------------------------------------------


async def submit_job(it: Orchestrator, request: Request) -> Response:
    """Validate, commit, answer: 202 at once, or the finished job if the caller prefers to wait."""
    manifest = it.catalog.serving(request.path_params["name"])
    preferred = _preferred_wait(request, it.home.max_wait)
    value = await http.read_json(request, manifest.limits.max_body)
    size = int(request.headers.get("content-length", 0))
    if size > LARGE_INPUT:
        inputs = await asyncio.to_thread(manifest.accept, value)
    else:
        inputs = manifest.accept(value)
    job = await it.dispatcher.submit(manifest, inputs, size=size)
    headers = {"location": f"/v1/jobs/{job.id}"}
    if preferred is None:
        resource = await it.dispatcher.resource(job)
        return json_response(resource, 202, {**headers, "retry-after": "1"})
    request.state.waited = preferred
    job = await it.dispatcher.wait(job.id, preferred)
    headers["preference-applied"] = f"wait={preferred:g}"
    if not job.finished:
        resource = await it.dispatcher.resource(job)
        return json_response(resource, 202, {**headers, "retry-after": "1"})
    return json_response(await _with_output(it, job), 200, headers)


async def get_job(it: Orchestrator, request: Request) -> Response:
    """Tell where a job stands; `?wait=N` answers when it has finished, or after N seconds."""
    wait = _seconds(request.query_params.get("wait", "0"), it.home.max_wait)
    job_id = request.path_params["id"]
    if wait:
        request.state.waited = wait
        job = await it.dispatcher.wait(job_id, wait)
    else:
        job = await it.dispatcher.job(job_id)
    resource = await it.dispatcher.resource(job)
    return document_response(request, resource, {} if job.finished else {"retry-after": "1"})


async def get_result(it: Orchestrator, request: Request) -> Response:
    """Return the output of a job that succeeded."""
    job = await it.dispatcher.job(request.path_params["id"])
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
    return json_response(await asyncio.to_thread(wire.unpack, packed))


async def get_events(it: Orchestrator, request: Request) -> Response:
    """Tell a job's story as it happens, and what was missed since `Last-Event-ID`."""
    job = await it.dispatcher.job(request.path_params["id"])
    after = request.headers.get("last-event-id", "0")
    if not all(part.isdecimal() for part in after.split("-", 1)):
        raise BadRequest("Last-Event-ID is not an id that this stream gave out.")

    async def story() -> AsyncGenerator[tuple[str | None, str, Any]]:
        async for number, name, event in it.dispatcher.follow(job, after):
            data = event if number is None and name == "status" else _told(event)
            yield number, EVENT_NAMES.get(name, name), data

    if "application/x-ndjson" in request.headers.get("accept", ""):
        return http.ndjson(story(), until=it.lifetime.stopping)
    return http.sse(story(), until=it.lifetime.stopping)


async def cancel_job(it: Orchestrator, request: Request) -> Response:
    """Ask for a job to end: 200 if it has, 202 if its worker has been told."""
    job = await it.dispatcher.cancel(request.path_params["id"], "the caller")
    resource = await it.dispatcher.resource(job)
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
    """List every known service and who serves it."""
    return json_response({"services": [service_resource(e) for e in it.catalog.entries()]})


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
        resource["output"] = await asyncio.to_thread(wire.unpack, packed)
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
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PAGE:
        raise BadRequest(f"limit must be a whole number from 1 to {MAX_PAGE}.")
    return int(text)


def _cursor(text: str | None) -> tuple[float, str] | None:
    """Read a cursor that an earlier page gave."""
    if not text:
        return None
    try:
        created, _, job_id = base64.urlsafe_b64decode(text.encode()).decode().partition(" ")
        return float(created), job_id
    except (ValueError, binascii.Error):
        raise BadRequest("cursor is not one that a page of this list gave.") from None


async def _patiently(open_: Callable[[], Any], patience: float) -> None:
    """Open the store, and wait for a database that is still starting."""
    deadline = time.monotonic() + patience
    while True:
        try:
            await open_()
            return
        except StoreUnavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("%s Trying again.", error.detail)
            await asyncio.sleep(1.0)
