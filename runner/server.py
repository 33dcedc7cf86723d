"""Listens on a port and serves an application from one process or several."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from runner.crew import Crew
from runner.errors import RunnerError, Unavailable
from runner.guard import GuardedHttp
from runner.http import Lifetime

log = logging.getLogger(__name__)

IMPATIENT = 1.0
"""Seconds after which a second signal means "now": a terminal and a process manager both pass on
one Ctrl-C, and that is still one."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Make = Callable[[], ASGIApp]


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
        log.info("listening on %s", place_of(listener))
        if workers > 1:
            arguments = (make, listener, grace, drain, (signal.SIGTERM,))
            patience = grace + drain + 5.0
            Crew(_work, arguments, size=workers, patience=patience, reaped=reaped or _ignore).run()
        else:
            _work(make, listener, grace, drain, SIGNALS)


def _work(
    make: Make,
    listener: socket.socket,
    grace: float,
    drain: float,
    signals: tuple[signal.Signals, ...],
) -> None:
    """Serve from this process; raises the `RunnerError` of an application that cannot work."""
    server = Server(make(), grace=grace, drain=drain, signals=signals)
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


def place_of(listener: socket.socket) -> str:
    """Say who reaches the listener: what a person of this machine opens is not the whole of it."""
    host, port = listener.getsockname()[:2]
    url = address_of(listener)
    return f"port {port} of every interface ({url} here)" if host in ("0.0.0.0", "::") else url


@contextlib.contextmanager
def background(app: ASGIApp, protocol: type[GuardedHttp] = GuardedHttp) -> Iterator[str]:
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


class Server(uvicorn.Server):
    """uvicorn's server, which tells the application when to stop and hears when it must."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace: float = 30.0,
        drain: float = 0.0,
        signals: tuple[signal.Signals, ...] = SIGNALS,
        protocol: type[GuardedHttp] = GuardedHttp,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=protocol,
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


def _ignore(pid: int) -> None:
    return None
