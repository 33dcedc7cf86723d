"""The outermost layer of an HTTP server: names, guards, counts and logs every request."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner import logs, traceparent

log = logging.getLogger(__name__)

SLOW = 1.0
"""Seconds after which an answered request is worth a line in the log."""

QUIET = 30.0
"""Seconds for which failures of one kind share a line in the log."""

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

    It logs what failed (5xx; `Complaints` bounds the pace) or was slow. A problem document leaves
    its code in `request.state.code`. A route that waits on purpose, such as a long poll, says
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
        self._complaints = Complaints()

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
            log.exception("%s failed (request %s)", _told(scope), request_id)
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
        code = state.get("code", "")
        what = f"{status} {code}" if status >= 500 and code else str(status)
        line = f"{_told(scope)} answered {what} in {seconds:.3f} s (request {state['request_id']})"
        if status >= 500:
            self._complaints.hear((f"{scope['method']} {_route(scope)}", what), line)
        elif seconds - state.get("waited", 0.0) > SLOW:
            log.info("%s", line)


class Complaints:
    """Says in the log which requests failed: for each kind one line in `quiet` seconds.

    The first is told at once; the last of those that follow stands for them all, with their number.
    Kinds must have an end: a route and a code, never a path.
    """

    def __init__(self, quiet: float = QUIET) -> None:
        self._quiet = quiet
        self._more: dict[tuple[str, str], tuple[int, str, Mapping[str, Any]]] = {}

    def hear(self, kind: tuple[str, str], line: str) -> None:
        """Take in one failure."""
        about = logs.ABOUT.get()
        if kind in self._more:
            self._more[kind] = self._more[kind][0] + 1, line, about
        else:
            self._say(kind, line, about)

    def _say(self, kind: tuple[str, str], line: str, about: Mapping[str, Any]) -> None:
        log.warning("%s", line, extra={"about": about})
        self._more[kind] = 0, "", {}
        asyncio.get_running_loop().call_later(self._quiet, self._sum_up, kind)

    def _sum_up(self, kind: tuple[str, str]) -> None:
        count, line, about = self._more.pop(kind)
        if count:
            more = f", and {count - 1} more like it" if count > 1 else ""
            self._say(kind, line + more, about)


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


def _told(scope: Scope) -> str:
    """Return what was asked for, as the log says it: quoted, so that no path forges a line."""
    return f"{scope['method']} {quote(scope['path'], safe='/:@')[:200]}"


def methods_at(request: Request) -> str:
    """Name every method that an address answers, whichever of its routes does; files are read."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [r.methods or set() for r in routes if r.matches(request.scope)[0] != Match.NONE]
    return ", ".join(sorted(set[str]().union(*found) or {"GET", "HEAD"}))
