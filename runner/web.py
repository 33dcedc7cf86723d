"""The HTTP door of one service: requests in, one execution each, answers or live events out."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive

from runner import http, openapi
from runner.context import Emit
from runner.desk import LATE, Answer, Desk, Ticket
from runner.engine import Engine
from runner.errors import InputInvalid, Interrupted, summary
from runner.events import Event
from runner.http import document_response, json_response, problem_response
from runner.manifest import Manifest
from runner.metrics import Metrics
from runner.stream import STREAM_NAMES, StreamEvent, disconnected, event_data

log = logging.getLogger(__name__)

LINE = 16
"""Requests that may wait for the slot of one process, unless the caller of `create` says else."""

WATCH_AFTER = 0.1
"""Seconds after which somebody looks whether the client is still there; most answers come first."""

LARGE = 256 * 1024
"""Bytes above which a body is validated beside the event loop instead of on it."""

BACKLOG = 1000
"""Events a stream's client may be behind; then progress and log lines are left out."""

LONGEST_HEADER = 4000
"""Characters of the warnings beside an answer that is a list; proxies drop long headers."""

Make = Callable[[Manifest, Mapping[str, Any] | None], Engine]


def create(
    manifest: Manifest,
    *,
    config: Mapping[str, Any] | None = None,
    line: int = LINE,
    metrics: Metrics | None = None,
    listeners: Sequence[Emit] = (),
    late: float = LATE,
    make: Make = Engine,
) -> Starlette:
    """Return the door of one service as an ASGI application.

    `line` is the number of requests that may wait beside the one that runs; `listeners` hear every
    event, in the compute thread; `late` is in seconds. A handler that cannot be used fails the
    application's `Lifetime` with its `HandlerInvalid`.
    """
    metrics = metrics or Metrics()
    count = functools.partial(metrics.observe, version=manifest.version)
    desk = Desk(manifest, functools.partial(make, manifest, config), line, late,
                (count, *listeners), metrics)  # fmt: skip
    door = Door(manifest, desk, metrics)
    form = manifest.linto
    routes = [
        Route("/run", door.run, methods=["POST"]),
        *([Route(form.route, door.linto, methods=["POST"])] if form else []),
        Route("/healthcheck", door.healthcheck),
        Route("/livez", door.livez),
        Route("/readyz", door.readyz),
        Route("/metrics", door.measurements),
        Route("/manifest", door.manifest_document),
        Route("/openapi.json", door.openapi_document),
        Route("/docs", door.docs),
        Route("/", door.index),
    ]
    return http.application(routes, observe=metrics.http, lifespan=desk.open)


class Door:
    """The routes of one service."""

    def __init__(self, manifest: Manifest, desk: Desk, metrics: Metrics) -> None:
        self._manifest, self._desk, self._metrics = manifest, desk, metrics
        self._openapi = openapi.of_service(manifest, metadata.version("nlp-runner"))

    async def run(self, request: Request) -> Response:
        """Execute one request, and answer with its output or with its events."""
        self._desk.check()
        inputs = await http.read_json(request, self._manifest.limits.max_body)
        ticket = _ticket(inputs)
        accept = request.headers.get("accept", "")
        stream = next((stream for kind, stream in STREAMS if kind in accept), None)
        # Whoever must wait, or wants a stream, hears of an invalid input first. Others do not pay
        # for the second look: the engine takes the first one at once.
        if stream is not None or self._desk.busy:
            await self._validate(request, ticket)
        headers = {"x-job-id": ticket.job_id}
        if stream is not None:
            following = Following(self._desk, ticket)
            self._desk.submit(ticket)
            return stream(following, headers=headers)
        self._desk.submit(ticket)
        found = await self._wait(ticket, request.receive)
        if found.outcome.error is not None:
            return problem_response(found.outcome.error, request, headers)
        return Response(found.body, headers=headers, media_type="application/json")

    async def linto(self, request: Request) -> Response:
        """Execute a request in LinTO's words, and answer in them; otherwise it is as `run`."""
        self._desk.check()
        form = self._manifest.linto
        assert form is not None
        asked = form.read(await http.read_json(request, self._manifest.limits.max_body))
        inputs, warnings = form.to_input(
            asked.documents, asked.parameters, request.path_params.get("lang")
        )
        warnings = [*asked.warnings, *warnings]
        results: list[Any] = []
        headers: dict[str, str] = {}
        if asked.documents:
            ticket = _ticket(inputs)
            headers["x-job-id"] = ticket.job_id
            try:
                await self._validate(request, ticket)
            except InputInvalid as error:
                problems = form.located(error.problems)
                raise InputInvalid(summary(problems, "the request"), problems=problems) from None
            self._desk.submit(ticket)
            found = await self._wait(ticket, request.receive)
            if found.outcome.error is not None:
                return problem_response(found.outcome.error, request, headers)
            results, more = await asyncio.to_thread(
                lambda: form.to_results(asked.documents, orjson.loads(found.body))
            )
            warnings += more
        if form.form == "articles":
            told = {"warnings": warnings} if warnings else {}
            return json_response({form.name: results, **told}, headers=headers)
        if warnings:  # a list has no place for them
            headers["x-warnings"] = _header(warnings)
        return json_response(results, headers=headers)

    async def _validate(self, request: Request, ticket: Ticket) -> None:
        declared = request.headers.get("content-length", "")
        try:
            if declared.isdecimal() and int(declared) <= LARGE:
                self._manifest.accept(ticket.inputs)
            else:
                await asyncio.to_thread(self._manifest.accept, ticket.inputs)
        except InputInvalid as error:
            self._desk.refuse(ticket, error)
            raise

    async def _wait(self, ticket: Ticket, receive: Receive) -> Answer:
        """Wait for the answer as long as the client does."""
        loop = asyncio.get_running_loop()
        watches: list[asyncio.Task[None]] = []
        timer = loop.call_later(
            WATCH_AFTER, lambda: watches.append(loop.create_task(self._watch(ticket, receive)))
        )
        try:
            return await ticket.answer
        except asyncio.CancelledError:
            if watches and watches[0].done():
                raise ClientDisconnect from None
            raise Interrupted("The server stopped before the end.", retry_after=5) from None
        finally:
            timer.cancel()
            for watch in watches:
                watch.cancel()
            self._desk.leave(ticket)

    async def _watch(self, ticket: Ticket, receive: Receive) -> None:
        await disconnected(receive)
        self._desk.leave(ticket)

    async def livez(self, request: Request) -> Response:
        """Say that the process is alive."""
        return json_response({"status": "alive"})

    async def healthcheck(self, request: Request) -> Response:
        """Say in LinTO's words whether a request would be taken now."""
        if self._desk.state == "ready":
            return json_response({"healthcheck": "OK"})
        return json_response({"healthcheck": self._desk.state}, 503, {"retry-after": "2"})

    async def readyz(self, request: Request) -> Response:
        """Say whether a request would be taken now."""
        state = self._desk.state
        document: dict[str, Any] = {"status": state, "service": self._manifest.name}
        if self._desk.warnings:
            document["warnings"] = self._desk.warnings
        if state == "ready":
            return json_response(document)
        return json_response(document, 503, {"retry-after": "2"})

    async def measurements(self, request: Request) -> Response:
        """Return the measurements for Prometheus."""
        body, kind = self._metrics.render()
        return Response(body, media_type=kind)

    async def manifest_document(self, request: Request) -> Response:
        """Return the manifest and its digest."""
        document = {"digest": self._manifest.digest, "manifest": self._manifest.document}
        return document_response(request, document)

    async def openapi_document(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return document_response(request, self._openapi)

    async def docs(self, request: Request) -> Response:
        """Show the OpenAPI document as a page to try things on."""
        return http.docs_page(self._manifest.name, "openapi.json")

    async def index(self, request: Request) -> Response:
        """Say what this is and where to go on."""
        manifest = self._manifest
        pages = ("run", "manifest", "docs", "openapi.json", "livez", "readyz", "metrics")
        document = {
            "name": manifest.name,
            "type": manifest.type,
            "version": manifest.version,
            "summary": manifest.summary,
            "links": {page: f"/{page}" for page in pages},
        }
        return json_response(document, headers={"link": '</openapi.json>; rel="service-desc"'})


def _header(warnings: list[str]) -> str:
    """Return as many of the warnings as a header holds, as a JSON list in ASCII."""
    kept = list(warnings)
    while len(text := json.dumps(kept)) > LONGEST_HEADER:
        kept.pop()
    return text


def _ticket(inputs: Any) -> Ticket:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return Ticket(f"{random.getrandbits(128):032x}", inputs, answer)


STREAMS = (("text/event-stream", http.sse), ("application/x-ndjson", http.ndjson))


class Following:
    """The events of one execution on their way to a client, up to its end.

    A client that reads too slowly misses progress and log lines, never the end.
    """

    def __init__(self, desk: Desk, ticket: Ticket) -> None:
        self._desk, self._ticket = desk, ticket
        self._seq = 0
        self._done = False
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        ticket.tell = self._take
        ticket.answer.add_done_callback(lambda _: self._events.put_nowait(None))

    def _take(self, event: Event) -> None:
        if not event.final and self._events.qsize() < BACKLOG:
            self._events.put_nowait(event)

    def __aiter__(self) -> Following:
        return self

    async def __anext__(self) -> StreamEvent:
        """Return the next event; the last is `completed`."""
        if self._done:
            raise StopAsyncIteration
        event = await self._events.get()
        if event is None:
            self._done = True
            return self._seq + 1, "completed", self._end()
        self._seq = event.seq
        name = STREAM_NAMES.get(event.kind, event.kind)
        return event.seq, name, event_data(event.to_json())

    async def aclose(self) -> None:
        """Stop the execution, if it still runs: nobody listens."""
        self._desk.leave(self._ticket)

    def _end(self) -> dict[str, Any]:
        """Say how it ended, and with what."""
        answer = self._ticket.answer.result()
        data: dict[str, Any] = {"job": self._ticket.job_id, "status": answer.outcome.status}
        if answer.outcome.error is not None:
            return {**data, "error": answer.outcome.error.to_problem()}
        return {**data, "output": orjson.Fragment(answer.body)}
