"""The outermost layer of an HTTP server: names, guards, counts and logs every request."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner import logs, traceparent

log = logging.getLogger(__name__)

SLOW = 1.0
"""Seconds after which an answered request is worth a line in the log."""

CLIENT_LEFT = 499
"""The status under which an unanswered request is counted; nobody receives it."""

PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""What an HTML page may load; Swagger UI needs inline styles and `data:` images."""

DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"
"""The same of every other answer, should a browser ever take one for a page."""

EVERYWHERE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""What every answer says to browsers. There is no CORS: pages of other sites read nothing."""

Observe = Callable[[str, str, int, float], None]
"""Hears of every answer: method, route template, status, seconds."""


class Front:
    """The outermost layer: names every request, guards every answer, counts and logs both.

    It logs what failed (5xx) or was slow. A route that waits on purpose, such as a long poll, says
    how long: `request.state.waited = seconds`. A stream counts until it begins, not until it ends.
    Where an exception comes that nobody expected, it answers what `apology` makes of the scope; the
    trace stays in the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        apology: Callable[[Scope], ASGIApp],
        observe: Observe | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app, self._apology = app, apology
        self._observe, self._clock = observe, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = self._clock()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        about = logs.ABOUT.set({"request_id": request_id})
        caller = traceparent.CALLER.set(traceparent.of_headers(scope["headers"]))
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
            await self._apology(scope)(scope, receive, guarded_send)
        finally:
            if seconds is None:
                seconds = self._clock() - began
            self._tell(scope, status or CLIENT_LEFT, seconds)
            traceparent.CALLER.reset(caller)
            logs.ABOUT.reset(about)

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
        *EVERYWHERE,
    ]
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    if kind.startswith(b"text/html"):
        page = MutableHeaders(raw=headers)
        page.setdefault("content-security-policy", PAGE_POLICY)
        page.setdefault("cross-origin-opener-policy", "same-origin")
    else:
        headers.append((b"content-security-policy", DATA_POLICY))
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


def methods_at(request: Request) -> str:
    """Name every method that an address answers, whichever of its routes does; files are read."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [r.methods or set() for r in routes if r.matches(request.scope)[0] != Match.NONE]
    return ", ".join(sorted(set[str]().union(*found) or {"GET", "HEAD"}))
