"""What both HTTP servers of the project share: answers, problems, bodies, streams and the front."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import html
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.errors import (
    BadRequest,
    MalformedJson,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RunnerError,
    UnsupportedMediaType,
)

log = logging.getLogger(__name__)

MAX_DEPTH = 64
"""Levels of arrays and objects in a body; deeper ones are built to hurt."""

SLOW = 1.0
"""Seconds after which an answered request is worth a line in the log."""

KEEP_ALIVE = 15.0
"""Seconds between two signs of life on a stream that has nothing to say."""

CLIENT_LEFT = 499
"""The status under which an unanswered request is counted; nobody receives it."""

PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""What an HTML page may load; Swagger UI needs inline styles and `data:` images."""

StreamEvent = tuple[int | str | None, str, Any]
"""What a stream sends: (id or None, event name, a value that becomes JSON)."""


class Events(Protocol):
    """Where a stream's events come from, such as an async generator.

    `aclose` is always called once; of a generator that was never asked, Python runs no `finally`.
    """

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """Return itself."""

    async def __anext__(self) -> StreamEvent:
        """Return the next event, or raise `StopAsyncIteration`."""

    async def aclose(self) -> None:
        """Let go of what the events came from."""


Observe = Callable[[str, str, int, float], None]
"""Hears of every answer: method, route template, status, seconds."""


# --- the life of an application ------------------------------------------------------------------


class Lifetime:
    """What a running application and its server tell each other: time to stop, and why."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.failure: RunnerError | None = None

    def fail(self, error: RunnerError) -> None:
        """Ask the server to stop because this application can never work."""
        self.failure = self.failure or error


def application(
    routes: Sequence[BaseRoute],
    *,
    observe: Observe | None = None,
    lifespan: Callable[[Lifetime], contextlib.AbstractAsyncContextManager[None]] | None = None,
) -> Starlette:
    """Return an ASGI application with the front, the problem documents and the static files.

    Requests find the `Lifetime` as `request.state.lifetime`, and so does the server; it is given
    to `lifespan` too. Routing is linear: put the busiest route first.
    """

    @contextlib.asynccontextmanager
    async def whole(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        lifetime = Lifetime()
        async with lifespan(lifetime) if lifespan else contextlib.nullcontext():
            yield {"lifetime": lifetime}

    app = Starlette(
        routes=[*routes, static()],
        middleware=[Middleware(Front, observe=observe)],
        exception_handlers={RunnerError: _on_runner_error, HTTPException: _on_http_exception},
        lifespan=whole,
    )
    app.router.redirect_slashes = False  # a redirect would repeat the Host header to the client
    return app


# --- answers -------------------------------------------------------------------------------------


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the value as an `application/json` answer.

    Raises `TypeError` for what JSON cannot say, such as integers over 64 bits.
    """
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def document_response(
    request: Request, value: Any, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON document with an ETag, or 304 when the client has this very one."""
    body = orjson.dumps(value)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**(headers or {}), "etag": etag, "cache-control": "no-cache"}
    known = request.headers.get("if-none-match", "")
    if etag in {tag.strip().removeprefix("W/") for tag in known.split(",")} or known == "*":
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def problem_response(
    error: RunnerError, request: Request, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the failure as an RFC 9457 answer, with `Retry-After` where the error has one."""
    document = error.to_problem(request.scope["path"])
    request_id = request.scope.get("state", {}).get("request_id")
    if request_id:
        document["request_id"] = request_id
    headers = dict(headers or {})
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    body = orjson.dumps(document, default=str)
    return Response(body, error.status, headers, media_type="application/problem+json")


async def _on_runner_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RunnerError)
    return problem_response(error, request)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Say what Starlette found wrong in our own words."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.scope["path"]
    found: RunnerError
    match error.status_code:
        case 404:
            found = NotFound(f"There is nothing at {path}.")
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            found = MethodNotAllowed(f"{path} does not answer {method}; it answers {allowed}.")
        case status if 400 <= status < 500:
            found = BadRequest(error.detail)
            found.status = status
        case status:
            found = RunnerError()
            found.status = status
    return problem_response(found, request, error.headers)


# --- bodies --------------------------------------------------------------------------------------


async def read_json(request: Request, max_body: int) -> Any:
    """Return the body as a JSON value; `max_body` is in bytes.

    A body without a content type is read as JSON, and so is one that carries the type `curl -d`
    sends when it is told nothing, as long as it parses.
    Raises `UnsupportedMediaType`, `PayloadTooLarge` (before the body is read, where its length is
    declared) and `MalformedJson` with line and column.
    """
    claimed = request.headers.get("content-type", "")
    kind = claimed.partition(";")[0].strip().lower()
    presumed = kind == "application/x-www-form-urlencoded"
    if kind and not presumed and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(f"The body is {claimed[:100]}; send application/json.")
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise UnsupportedMediaType(f"The body is encoded with {coding[:40]}; send it as it is.")
    body = await _read(request, max_body)
    try:
        return parse_json(body)
    except MalformedJson as error:
        if presumed:
            raise UnsupportedMediaType(
                f"The body is a form, or JSON that cannot be read ({error.detail.rstrip('.')}); "
                "send JSON with `Content-Type: application/json`."
            ) from None
        raise


def parse_json(body: bytes | bytearray) -> Any:
    """Return the value of a JSON text in UTF-8, of at most 64 levels; raises `MalformedJson`."""
    if not body:
        raise MalformedJson("The body is empty; send a JSON object.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        line, column = error.lineno, error.colno
        raise MalformedJson(
            f"Line {line}, column {column}: {error.msg}.", line=line, column=column
        ) from None
    # Counting brackets is a hundred times cheaper than walking, and most bodies have few.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise MalformedJson(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return value


async def _read(request: Request, max_body: int) -> bytes | bytearray:
    """Return the whole body, and never hold more than `max_body` bytes and one chunk of it."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_body:
        raise _too_large(f"has {int(declared):,} bytes", max_body)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_body:
            raise _too_large("does not end there", max_body)
    return body


def _too_large(what: str, max_body: int) -> PayloadTooLarge:
    sentence = f"This service takes at most {max_body:,} bytes, and the body {what}."
    return PayloadTooLarge(sentence, max_body=max_body)


def _deeper_than(value: Any, levels: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


# --- streams -------------------------------------------------------------------------------------


class EventStream(Response):
    """An answer that goes on as long as its events do, its client stays and `until` is not set."""

    def __init__(
        self,
        events: Events,
        *,
        write: Callable[[int | str | None, str, Any], bytes],
        media_type: str,
        opening: bytes = b"",
        idle: bytes = b"",
        keep_alive: float = KEEP_ALIVE,
        until: asyncio.Event | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code, self.media_type, self.background = 200, media_type, None
        # A proxy that collects the answer would turn live progress into one late block.
        quiet = {"cache-control": "no-store", "x-accel-buffering": "no"}
        self.init_headers({**quiet, **(headers or {})})
        self._events, self._write, self._until = events, write, until
        self._opening, self._idle, self._keep_alive = opening, idle, keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until one of the three ends comes."""
        gone = asyncio.ensure_future(disconnected(receive))
        ends: list[asyncio.Future[Any]] = [gone]
        if self._until is not None:
            ends.append(asyncio.ensure_future(self._until.wait()))
        relay = asyncio.ensure_future(self._relay(send))
        try:
            await asyncio.wait([relay, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (relay, *ends):
                if not task.done():
                    task.cancel()
            await asyncio.gather(relay, *ends, return_exceptions=True)
            await self._events.aclose()
        if not relay.cancelled():
            relay.result()  # its failure is ours
        if gone.cancelled():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> StreamEvent | None:
        try:
            return await self._events.__anext__()
        except StopAsyncIteration:
            return None

    async def _relay(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send(_part(self._opening))
        upcoming: asyncio.Future[Any] | None = None
        try:
            while True:
                upcoming = upcoming or asyncio.ensure_future(self._next())
                await asyncio.wait([upcoming], timeout=self._keep_alive)
                if not upcoming.done():
                    await send(_part(self._idle))
                    continue
                event, upcoming = upcoming.result(), None
                if event is None:
                    return
                await send(_part(self._write(*event)))
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)


def sse(
    events: Events,
    *,
    keep_alive: float = KEEP_ALIVE,
    until: asyncio.Event | None = None,
    headers: Mapping[str, str] | None = None,
) -> EventStream:
    """Return the events as Server-Sent Events.

    Clients that lose the line come back after 2 s. Pass `until=lifetime.stopping` for a stream
    that a client can take up elsewhere, so that it does not hold up the end of the process.
    """
    return EventStream(
        events, write=_sse_event, media_type="text/event-stream", opening=b"retry: 2000\n\n",
        idle=b": still here\n\n", keep_alive=keep_alive, until=until, headers=headers,
    )  # fmt: skip


def ndjson(
    events: Events,
    *,
    keep_alive: float = KEEP_ALIVE,
    until: asyncio.Event | None = None,
    headers: Mapping[str, str] | None = None,
) -> EventStream:
    """Return the events as one JSON object a line, each with its name as `event`."""
    return EventStream(
        events, write=_json_line, media_type="application/x-ndjson", idle=b"\n",
        keep_alive=keep_alive, until=until, headers=headers,
    )  # fmt: skip


def _sse_event(number: int | str | None, name: str, value: Any) -> bytes:
    """Write one event; JSON in one line needs one `data:` field."""
    id_field = b"" if number is None else b"id: %s\n" % str(number).encode()
    return b"%sevent: %s\ndata: %s\n\n" % (id_field, name.encode(), orjson.dumps(value))


def _json_line(number: int | str | None, name: str, value: Any) -> bytes:
    return orjson.dumps({"event": name, **value}, option=orjson.OPT_APPEND_NEWLINE)


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


STREAM_NAMES = {"started": "start", "succeeded": "completed", "failed": "completed",
                "canceled": "completed"}  # fmt: skip
"""The names under which an execution's events are streamed, where they differ."""


def event_data(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an execution's event as those see it who follow it: with times as people write them.

    Its own name is left out; it is the name of the stream's event.
    """
    data = {key: value for key, value in event.items() if key != "event"}
    data["at"] = when(event.get("at"))
    if data.get("progress"):
        data["progress"] = progress_data(data["progress"])
    return data


def progress_data(picture: Mapping[str, Any]) -> dict[str, Any]:
    """Return the picture of `runner.context` with times as people write them."""
    times = ("started_at", "finished_at")
    steps = [
        {**step, **{key: when(step.get(key)) for key in times}} for step in picture.get("steps", ())
    ]
    return {**picture, "steps": steps}


def when(seconds: float | None) -> str | None:
    """Return seconds since the epoch as RFC 3339 in UTC with milliseconds and a Z."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def disconnected(receive: Receive) -> None:
    """Return when the client has left; for requests whose body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


# --- pages ---------------------------------------------------------------------------------------


def docs_page(title: str, openapi_url: str) -> Response:
    """Return the interactive documentation of an OpenAPI document; needs the `static` files.

    Addresses are relative, so that the page works behind a path prefix too.
    """
    return HTMLResponse(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="icon" href="static/favicon-32x32.png">
<link rel="stylesheet" href="static/swagger-ui.css">
</head>
<body>
<div id="docs" data-openapi="{html.escape(openapi_url)}"></div>
<script src="static/swagger-ui-bundle.js"></script>
<script src="static/docs.js"></script>
</body>
</html>
"""
    )


def static() -> Mount:
    """Return the route of the files that ship with the package."""
    folder = Path(__file__).parent / "static"
    return Mount("/static", StaticFiles(directory=folder), name="static")


# --- the front -----------------------------------------------------------------------------------


class Front:
    """The outermost layer: names every request, guards every answer, counts and logs both.

    It logs what failed (5xx) or was slow. A route that waits on purpose, such as a long poll, says
    how long: `request.state.waited = seconds`. A stream counts until it begins, not until it ends.
    An exception nobody expected becomes a problem `internal`; its trace stays in the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        observe: Observe | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app, self._observe, self._clock = app, observe, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = self._clock()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        status = 0
        seconds: float | None = None

        async def guarded_send(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                if _guard(message, request_id):
                    seconds = self._clock() - began
            await send(message)

        try:
            await self.app(scope, receive, guarded_send)
        except ClientDisconnect:
            pass
        except Exception:
            log.exception("%s failed (request %s)", _name(scope), request_id)
            if status:
                raise
            await problem_response(RunnerError(), Request(scope))(scope, receive, guarded_send)
        finally:
            if seconds is None:
                seconds = self._clock() - began
            self._tell(scope, status or CLIENT_LEFT, seconds)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        if self._observe is not None:
            self._observe(scope["method"], _route(scope), status, seconds)
        state = scope["state"]
        slow = seconds - state.get("waited", 0.0) > SLOW
        if status >= 500 or slow:
            level = logging.WARNING if status >= 500 else logging.INFO
            log.log(
                level, "%s answered %d in %.3f s (request %s)",
                _name(scope), status, seconds, state["request_id"],
            )  # fmt: skip


def _guard(message: Message, request_id: str) -> bool:
    """Add our headers to the start of an answer; tell whether it starts a stream."""
    headers = message["headers"] = [
        *message.get("headers", ()),
        (b"x-request-id", request_id.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    if kind.startswith(b"text/html"):
        page = MutableHeaders(raw=headers)
        page.setdefault("content-security-policy", PAGE_POLICY)
        page.setdefault("referrer-policy", "no-referrer")
    return kind.startswith((b"text/event-stream", b"application/x-ndjson"))


def _request_id(scope: Scope) -> str:
    """Return the id a client gave, if it cannot forge a log line, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and re.fullmatch(rb"[A-Za-z0-9_-]{1,64}", value):
            return str(value, "ascii")
    # Not a secret, and a system call here would hand the interpreter to the compute thread.
    return f"{random.getrandbits(64):016x}"


def _route(scope: Scope) -> str:
    """Return the template of the route, never the path itself: paths have no end."""
    route = scope.get("route")
    return getattr(route, "path", "") or "unknown"


def _name(scope: Scope) -> str:
    return f"{scope['method']} {_route(scope)}"
