"""A keep-alive HTTP client on raw sockets: each connection repeats one request without a pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools
import uvloop

from bench.load import Load

PATIENCE = 30.0
"""Seconds that the last answers may take after the time is up."""


@dataclass(frozen=True, slots=True)
class Post:
    """A POST of a JSON body; whatever is answered other than 200 ends the measurement."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the request as it goes over the wire."""
        url = urlsplit(self.url)
        headers = {
            "host": url.netloc,
            "content-type": "application/json",
            "content-length": str(len(self.body)),
            **self.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {url.path} HTTP/1.1\r\n{head}\r\n".encode() + self.body


def load(post: Post, connections: int, seconds: float) -> Load:
    """Keep so many connections busy for so long."""
    began = time.perf_counter()
    latencies = uvloop.run(_load(post, connections, began + seconds))
    return Load.of(latencies, time.perf_counter() - began)


async def _load(post: Post, connections: int, until: float) -> list[float]:
    loop = asyncio.get_running_loop()
    url = urlsplit(post.url)
    request = post.to_bytes()
    latencies: list[float] = []
    ends = []
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: _Caller(request, until, latencies), url.hostname or "", url.port or 80
        )
        ends.append(caller.done)
    await asyncio.wait_for(asyncio.gather(*ends), until - time.perf_counter() + PATIENCE)
    return latencies


class _Caller(asyncio.Protocol):
    """One connection; `done` when the time is up, or with what went wrong."""

    def __init__(self, request: bytes, until: float, latencies: list[float]) -> None:
        self._request, self._until, self._latencies = request, until, latencies
        self._parser = httptools.HttpResponseParser(self)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self._latencies.append(now - self._sent)
        status = self._parser.get_status_code()
        if status != 200:
            self._end(RuntimeError(f"a request was answered with {status}"))
        elif now >= self._until:
            self._end(None)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._transport.close()
