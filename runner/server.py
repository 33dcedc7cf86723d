"""Listens on a port and serves an application from one process or several; alone knows uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from types import FrameType
from typing import Any

import orjson
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from runner.errors import RunnerError, Unavailable
from runner.http import Lifetime

log = logging.getLogger(__name__)

IMPATIENT = 1.0
"""Seconds after which a second signal means "now": a terminal and a process manager both pass on
one Ctrl-C, and that is still one."""

FAILED = 3
"""Exit status of a worker process whose application can never work."""

LONGEST_PAUSE = 30.0
"""Seconds between two starts of a worker process that keeps dying."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

UPGRADE = re.compile(rb"\r\n[Uu]pgrade:")

Make = Callable[[], ASGIApp]


class _RequestMalformed(RunnerError):
    code, status, title = "malformed_request", 400, "This is not an HTTP/1.1 request"


class _RequestTimeout(RunnerError):
    code, status, title = "request_timeout", 408, "The request came too slowly"


class _HeadTooLarge(RunnerError):
    code, status, title = "head_too_large", 431, "The request line or the headers are too large"


def serve(
    make: Make,
    *,
    host: str = "0.0.0.0",
    port: int = 8000,
    workers: int = 1,
    grace: float = 30.0,
    drain: float = 0.0,
    reaped: Callable[[int], None] | None = None,
) -> None:
    """Serve the application that `make` returns until SIGINT or SIGTERM, then return.

    On the signal the application learns it (`Lifetime.stopping`), the port stays open for `drain`
    seconds more, then running requests have `grace` seconds to finish; a second signal ends it.
    With several `workers`, `make` is called in each process and must be picklable: a module's
    function, or a `functools.partial` of one. `reaped` hears the pid of each process that ended.
    Raises `Unavailable` when the port cannot be had, and the application's own `RunnerError` when
    it said that it can never work (`Lifetime.fail`).
    """
    with contextlib.closing(listen(host, port)) as listener:
        log.info("listening on %s", address_of(listener))
        if workers > 1:
            Crew(make, listener, workers, grace, drain, reaped or _ignore).run()
        else:
            server = Server(make(), grace=grace, drain=drain)
            server.run(sockets=[listener])
            if server.failure is not None:
                raise server.failure


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 takes any free one.

    Raises `Unavailable` with what stands in the way and what to change.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM,
                                   flags=socket.AI_PASSIVE)  # fmt: skip
        family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise Unavailable(_obstacle(host, port, error)) from None


def address_of(listener: socket.socket) -> str:
    """Return the URL under which a person of this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


@contextlib.contextmanager
def background(app: ASGIApp, protocol: type[GuardedHttp] | None = None) -> Iterator[str]:
    """Serve the application from a thread of this process; yields its URL on a free port.

    For tests and benchmarks: a thread hears no signals.
    """
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        server = Server(app, grace=1.0, protocol=protocol)
        thread = threading.Thread(target=server.run, args=([listener],), name="server")
        thread.start()
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            thread.join()


def _obstacle(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} is taken, perhaps by another nlp-runner (`ss -ltnp` tells): stop that "
            "one, or choose another port with --port or PORT."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} is reserved for root: choose one above 1023 with --port or PORT."
    return (
        f"Cannot listen on {host}:{port} ({error.strerror}): choose an address of this machine "
        "with --host or HOST."
    )


# --- one process ---------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """uvicorn's server, which tells the application when to stop and hears when it must."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace: float = 30.0,
        drain: float = 0.0,
        signals: tuple[signal.Signals, ...] = SIGNALS,
        protocol: type[GuardedHttp] | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=protocol or GuardedHttp,
                ws="none",
                lifespan="on",
                interface="asgi3",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(grace)),
            )
        )
        self._drain, self._signals = drain, signals
        self._signaled: float | None = None

    @property
    def lifetime(self) -> Lifetime | None:
        """The application's lifetime, once it has started."""
        found = self.lifespan.state.get("lifetime") if self.started else None
        return found if isinstance(found, Lifetime) else None

    @property
    def failure(self) -> RunnerError | None:
        """Why the application can never work, if it said so."""
        return self.lifetime.failure if self.lifetime else None

    async def on_tick(self, counter: int) -> bool:
        """Tell the main loop whether to end."""
        return await super().on_tick(counter) or self.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the application know first, and load balancers too, while the port is still open."""
        if self.lifetime is not None:
            self.lifetime.stopping.set()
        if self._drain and self.failure is None:
            await asyncio.sleep(self._drain)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop with grace at the first signal, and at once at one that comes later."""
        now = time.monotonic()
        if self._signaled is None:
            self._signaled = now
        elif now - self._signaled > IMPATIENT:
            self.force_exit = True
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals without raising them again: who called `serve` has things to close."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in self._signals}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


# --- several processes ---------------------------------------------------------------------------


class Crew:
    """Worker processes that accept from one listener; those that die are started again."""

    def __init__(
        self,
        make: Make,
        listener: socket.socket,
        workers: int,
        grace: float,
        drain: float,
        reaped: Callable[[int], None],
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._failures: SimpleQueue[RunnerError] = self._context.SimpleQueue()
        self._arguments = (make, listener, grace, drain, self._failures)
        self._patience = grace + drain + 5.0
        self._reaped = reaped
        self._workers = workers
        self._crew: list[SpawnProcess] = []
        self._started = float("-inf")
        self._deaths = 0
        self._stop = False

    def run(self) -> None:
        """Keep the crew complete until a signal; raises the error of one that can never work."""
        before = {sig: signal.signal(sig, self._on_signal) for sig in SIGNALS}
        try:
            while not self._stop:
                self._fill()
                connection.wait([one.sentinel for one in self._crew], timeout=0.25)
                self._bury()
        finally:
            self._dismiss()
            for sig, handler in before.items():
                signal.signal(sig, handler)
        if not self._failures.empty():
            raise self._failures.get()

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        self._stop = True

    def _fill(self) -> None:
        """Start who is missing; after a death, not before a pause that grows with the deaths."""
        now = time.monotonic()
        age = now - self._started
        if age > 2 * LONGEST_PAUSE:
            self._deaths = 0
        if age < min(LONGEST_PAUSE, 2.0**self._deaths - 1):
            return
        while len(self._crew) < self._workers:
            process = self._context.Process(target=_work, args=self._arguments)
            process.start()
            self._crew.append(process)
            self._started = now

    def _bury(self) -> None:
        for process in [one for one in self._crew if not one.is_alive()]:
            self._crew.remove(process)
            self._reaped(process.pid or 0)
            if process.exitcode == FAILED:
                self._stop = True
            elif not self._stop:
                self._deaths += 1
                log.error("worker process %s died (%s)", process.pid, _cause(process.exitcode))

    def _dismiss(self) -> None:
        for process in self._crew:
            process.terminate()
        deadline = time.monotonic() + self._patience
        for process in self._crew:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            self._reaped(process.pid or 0)


def _work(
    make: Make,
    listener: socket.socket,
    grace: float,
    drain: float,
    failures: SimpleQueue[RunnerError],
) -> None:
    """Serve in a worker process; exits with `FAILED` when the application can never work."""
    # Ctrl-C reaches the whole terminal; the parent turns it into one SIGTERM for each of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    failure: RunnerError | None
    try:
        server = Server(make(), grace=grace, drain=drain, signals=(signal.SIGTERM,))
        server.run(sockets=[listener])
        failure = server.failure
    except RunnerError as error:
        failure = error
    if failure is not None:
        failures.put(failure)
        raise SystemExit(FAILED)


def _follow_parent() -> None:
    """End with the parent, even one that was killed: an orphan would keep the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _cause(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return "SIGKILL: out of memory, perhaps"
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit status {exitcode}"


def _ignore(pid: int) -> None:
    return None


# --- one connection ------------------------------------------------------------------------------


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
