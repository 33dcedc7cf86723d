"""What both HTTP servers of the project share: the application, its answers, and bodies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import html
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from runner.errors import (
    BadRequest,
    MalformedJson,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RunnerError,
    UnsupportedMediaType,
)
from runner.front import Front, Observe, methods_at
from runner.jsontext import parse_json
from runner.stream import KEEP_ALIVE, Events, EventStream, json_line, sse_event

MAX_FIELDS = 100
"""Fields and files of a form."""

RETRY_AFTER = 5
"""Seconds after which to come back, where an error of ours does not know better."""

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
        middleware=[Middleware(Front, apology=_apology, observe=observe)],
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
    """Return the failure as an RFC 9457 answer; a 503 always says when to come back."""
    document = error.to_problem(request.scope["path"])
    state = request.scope.get("state", {})
    state["code"] = error.code
    if request_id := state.get("request_id"):
        document["request_id"] = request_id
    headers = {"cache-control": "no-store", **(headers or {})}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after is not None or error.status == 503:
        headers["retry-after"] = str(error.retry_after or RETRY_AFTER)
    body = orjson.dumps(document, default=str)
    return Response(body, error.status, headers, media_type="application/problem+json")


def _apology(scope: Scope) -> Response:
    """Say that something went wrong, and nothing of what it was."""
    return problem_response(RunnerError(), Request(scope))


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
            error.headers = {"Allow": (allowed := methods_at(request))}
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
    _refuse_encoded(request)
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


async def read_form(request: Request, max_body: int) -> dict[str, str]:
    """Return the fields of a form, multipart or urlencoded; files are taken as texts in UTF-8.

    `max_body` is in bytes. Raises `UnsupportedMediaType`, `PayloadTooLarge`, and `BadRequest` for a
    form that cannot be read, has too many fields, or has a field twice or not in UTF-8.
    """
    claimed = request.headers.get("content-type", "")
    kind = claimed.partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        what = f"is {claimed[:100]}" if claimed else "has no type"
        raise UnsupportedMediaType(f"The body {what}; send a form (multipart/form-data).")
    _refuse_encoded(request)
    body = bytes(await _read(request, max_body))

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    headers, bound = request.headers, {"max_fields": MAX_FIELDS, "max_part_size": max_body}
    parser = (
        MultiPartParser(headers, whole(), max_files=MAX_FIELDS, **bound)
        if kind == "multipart/form-data"
        else FormParser(headers, whole(), **bound)
    )
    fields: dict[str, str] = {}
    try:
        for name, value in (await parser.parse()).multi_items():
            if name in fields:
                raise BadRequest(f"The form has the field `{name[:60]}` twice.")
            fields[name] = value if isinstance(value, str) else (await value.read()).decode()
    except UnicodeDecodeError:
        raise BadRequest("A file of the form is not a text in UTF-8.") from None
    except (MultiPartException, ValueError) as error:
        reason = getattr(error, "message", str(error))
        raise BadRequest(f"The form cannot be read: {reason.rstrip('.')}.") from None
    return fields


def _refuse_encoded(request: Request) -> None:
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise UnsupportedMediaType(f"The body is encoded with {coding[:40]}; send it as it is.")


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


# --- streams -------------------------------------------------------------------------------------


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
        events, write=sse_event, media_type="text/event-stream", opening=b"retry: 2000\n\n",
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
        events, write=json_line, media_type="application/x-ndjson", idle=b"\n",
        keep_alive=keep_alive, until=until, headers=headers,
    )  # fmt: skip


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
