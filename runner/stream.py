"""An answer that goes on: an execution's events, told while they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

KEEP_ALIVE = 15.0
"""Seconds between two signs of life on a stream that has nothing to say."""

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


def sse_event(number: int | str | None, name: str, value: Any) -> bytes:
    """Write one Server-Sent Event; JSON in one line needs one `data:` field."""
    id_field = b"" if number is None else b"id: %s\n" % str(number).encode()
    return b"%sevent: %s\ndata: %s\n\n" % (id_field, name.encode(), orjson.dumps(value))


def json_line(number: int | str | None, name: str, value: Any) -> bytes:
    """Write one event as a JSON object in a line."""
    return orjson.dumps({"event": name, **value}, option=orjson.OPT_APPEND_NEWLINE)


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def disconnected(receive: Receive) -> None:
    """Return when the client has left; for requests whose body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
