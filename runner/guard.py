"""uvicorn's HTTP/1.1 protocol with bounds on what a client may send, and how slowly."""

from __future__ import annotations

import asyncio
import re
from enum import Enum
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from runner.errors import RunnerError

UPGRADE = re.compile(rb"\r\n[Uu]pgrade:")


class _RequestMalformed(RunnerError):
    code, status, title = "malformed_request", 400, "This is not an HTTP/1.1 request"


class _RequestTimeout(RunnerError):
    code, status, title = "request_timeout", 408, "The request came too slowly"


class _HeadTooLarge(RunnerError):
    code, status, title = "head_too_large", 431, "The request line or the headers are too large"


class Phase(Enum):
    """What a connection is waiting for."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with bounds on what a client may send and how slowly.

    uvicorn itself waits for ever for the rest of a head or a body, and takes heads of any size.
    A request that arrives in one piece costs no timer.

    `head_seconds` is the time for a head, from its first byte or the connection; a body must bring
    `body_rate` bytes a second in every window of `body_window` seconds; the rest of a body that
    was refused is read and dropped for `linger` seconds, so that its client hears the refusal.
    `max_head` is in bytes, request line and headers together.
    """

    head_seconds = 10.0
    max_head = 32 * 1024
    max_headers = 100
    body_window = 10.0
    body_rate = 1000
    linger = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = Phase.HEAD
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._header_count = 0
        self._body_bytes = 0
        self._refusal: RunnerError | None = None

    # --- what arrives ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head soon."""
        super().connection_made(transport)
        self._arm(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrived, then see that the rest will come in bounded time and size."""
        if self._phase is not Phase.BODY and b"pgrade:" in data:
            data = _without_upgrade(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        match self._phase:
            case Phase.HEAD:
                self._head_bytes += len(data)
                if self._head_bytes > self.max_head:
                    self._refuse(self._head_too_large())
                elif self._timer is None:
                    self._arm(self.head_seconds)
            case Phase.BODY:
                if self._timer is None:
                    self._arm(self.body_window)
            case Phase.NOTHING:
                self._disarm()
                self._rest()

    def on_message_begin(self) -> None:
        """Start counting the head of a request."""
        self._phase = Phase.HEAD
        self._head_bytes = self._header_count = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse one header too many by failing in the parser, which ends the connection."""
        self._header_count += 1
        if self._header_count > self.max_headers:
            self._refusal = self._head_too_large()
            raise self._refusal
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Expect a body from now on, at a bearable pace."""
        self._disarm()
        self._phase = Phase.BODY
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect nothing more."""
        self._phase = Phase.NOTHING
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Give a client that was answered before it had sent its body a moment to finish."""
        super().on_response_complete()
        if self._phase is Phase.BODY:
            self._disarm()
            self._timer = self.loop.call_later(self.linger, self._end)

    # --- what does not ---------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self._body_bytes = 0
        self._timer = self.loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.flow.read_paused or (self._phase is Phase.HEAD and answering):
            self._arm(self.body_window)  # it is the client who waits for us
        elif self._phase is Phase.HEAD:
            self._refuse(
                _RequestTimeout(f"The head did not arrive within {self.head_seconds:g} seconds.")
            )
        elif self._body_bytes < self.body_rate * self.body_window:
            self._refuse(
                _RequestTimeout(f"The body came more slowly than {self.body_rate} bytes a second.")
            )
        else:
            self._arm(self.body_window)

    def _rest(self) -> None:
        """Keep an idle connection on uvicorn's timer, which any stray byte has switched off."""
        idle = self.cycle is not None and self.cycle.response_complete
        if idle and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _refuse(self, error: RunnerError) -> None:
        """Answer with a problem, unless an answer is under way, and close the connection."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            body = orjson.dumps(error.to_problem())
            head = (
                b"content-type: application/problem+json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n" % len(body)
            )
            self.transport.write(STATUS_LINE[error.status] + head + body)
        self._end()

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser did not understand."""
        self._refuse(self._refusal or _RequestMalformed())

    def _head_too_large(self) -> RunnerError:
        most = f"{self.max_head:,} bytes and {self.max_headers} headers"
        return _HeadTooLarge(f"The head of a request may have {most}.")


def _without_upgrade(data: bytes) -> bytes:
    """Hide an offer of another protocol, such as the h2c that Java's client makes by default.

    The parser would take what follows the head for that protocol, and drop a body with it.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    return UPGRADE.sub(b"\r\nx-upgrade:", head) + end + body
