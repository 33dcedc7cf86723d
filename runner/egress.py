"""POST to a URL that a stranger named: connect only to the addresses that were checked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore

from runner import targets
from runner.targets import Allowed, Target

DEADLINE = 15.0
"""Seconds for the whole exchange: name, connection, request, answer."""

MOST = 64 * 1024
"""Bytes read of an answer; what it says is of no interest, only that it ends politely."""

POLITENESS = 2.0
"""Seconds for which an answer is read after its status is known."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a host, or raises `OSError`."""


class Undeliverable(Exception):
    """No answer came; says why, in words for whoever named the URL."""


@dataclass(frozen=True, slots=True)
class Reply:
    """How the other side answered; `retry_after` is that header as it came."""

    status: int
    retry_after: str | None = None


class Egress:
    """Calls strangers' URLs. No redirect is followed, no proxy of the environment is used."""

    def __init__(
        self, allowed: Allowed, *, resolve: Resolve | None = None, deadline: float = DEADLINE
    ) -> None:
        self._allowed, self._resolve, self._deadline = allowed, resolve or look_up, deadline
        self.tls = httpcore.default_ssl_context()

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send the body and return the answer; raises `Undeliverable`."""
        reply: Reply | None = None
        sent = [(b"Host", target.authority.encode())]
        sent += [(name.encode(), value.encode()) for name, value in headers.items()]
        url = httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        )
        # A connection of its own for each request: nothing is kept that was checked long ago.
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self.tls, network_backend=_Guard(target, self._allowed, self._resolve)
        )
        try:
            async with (
                asyncio.timeout(self._deadline),
                pool,
                pool.stream("POST", url, headers=sent, content=body) as answer,
            ):
                told = _header(answer, b"retry-after")
                reply = Reply(answer.status, told.decode("latin-1")[:100] if told else None)
                with contextlib.suppress(TimeoutError, httpcore.ProtocolError):
                    async with asyncio.timeout(POLITENESS):
                        await _drain(answer)
        except TimeoutError:
            if reply is None:
                raise Undeliverable(f"there was no answer within {self._deadline:g} s") from None
        except (httpcore.NetworkError, httpcore.TimeoutException, OSError) as error:
            if reply is None:
                raise Undeliverable(_broken(error)) from None
        except httpcore.ProtocolError:
            if reply is None:
                raise Undeliverable("the answer is not HTTP") from None
        assert reply is not None
        return reply


class _Guard(httpcore.AsyncNetworkBackend):
    """Looks a name up once, checks all its addresses, and connects to one of those."""

    def __init__(self, target: Target, allowed: Allowed, resolve: Resolve) -> None:
        self._target, self._allowed, self._resolve = target, allowed, resolve
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
            targets.check(self._target, self._allowed, addresses)
        except OSError:
            addresses = []
        except ValueError as error:
            raise Undeliverable(str(error)) from None
        failure: Exception = Undeliverable("the host's name cannot be resolved")
        for address in addresses[:4]:
            try:
                return await self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise Undeliverable("sockets of this machine are not called")

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host.

    A thread of its own does it, so that a name server that does not answer holds up nothing else,
    neither work in asyncio's threads nor a stop.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str] | None) -> None:
        if not found.done():
            if addresses is None:
                found.set_exception(OSError("the name cannot be resolved"))
            else:
                found.set_result(addresses)

    def ask() -> None:
        addresses: list[str] | None = None
        # UnicodeError: a label that is empty or too long.
        with contextlib.suppress(OSError, UnicodeError):
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(info[4][0]) for info in infos]
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, addresses)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return await found


def _broken(error: BaseException) -> str:
    """Say why there is no connection, as far as its other end should be told."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the host's certificate is not valid for it"
        cause = cause.__cause__ or cause.__context__
    return "the connection was refused or broken"


async def _drain(answer: httpcore.Response) -> None:
    size = 0
    async for chunk in answer.aiter_stream():
        size += len(chunk)
        if size >= MOST:
            return


def _header(answer: httpcore.Response, name: bytes) -> bytes | None:
    return next((value for key, value in answer.headers if key.lower() == name), None)
