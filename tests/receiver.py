"""Somebody outside who is told of jobs by webhook: a real server that behaves as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]
"""Answers one request on its own thread."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request; `headers` has lower-case names."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """Return the CloudEvent that it tells."""
        told: dict[str, Any] = json.loads(self.body)
        return told

    @property
    def id(self) -> str:
        """Return its `webhook-id`."""
        return self.headers["webhook-id"]


class Handler(BaseHTTPRequestHandler):
    """Keeps a request and answers as the receiver says."""

    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.receiver.keep(Received(self.path, headers, body))
        with contextlib.suppress(OSError):  # who asked may have gone
            answer(self)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server that many may call at once."""

    daemon_threads = True
    request_queue_size = 256


class Receiver:
    """A server on a free port; its `answers` are given in turn, the last one for ever."""

    def __init__(self, *answers: int | Answer) -> None:
        self.received: list[Received] = []
        self.over = threading.Event()
        self._answers = list(answers) or [204]
        self._lock = threading.Lock()
        handler = type("Its", (Handler,), {"receiver": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def keep(self, received: Received) -> Answer:
        with self._lock:
            self.received.append(received)
            one = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return status(one) if isinstance(one, int) else one

    def of(self, job_id: str) -> list[Received]:
        """Return what it was told of a job."""
        return [one for one in list(self.received) if one.event["subject"] == job_id]


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and nothing else."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in {**headers, "content-length": "0"}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def hang(handler: Handler) -> None:
    """Say nothing until it is over."""
    handler.receiver.over.wait(100)


def drip(handler: Handler) -> None:
    """Send a head that never ends, a byte at a time."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.receiver.over.wait(0.02):
        handler.wfile.write(b"x")


def endless(handler: Handler) -> None:
    """Answer 200 with ten gigabytes, as fast as they are taken."""
    handler.send_response(200)
    handler.send_header("content-length", str(10**10))
    handler.end_headers()
    while not handler.receiver.over.is_set():
        handler.wfile.write(b"x" * 65536)


def flood(handler: Handler) -> None:
    """Answer with a head of a gigabyte."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(10_000):
        handler.wfile.write(b"X-Flood: " + b"x" * 100_000 + b"\r\n")


def garbage(handler: Handler) -> None:
    """Answer in no known tongue."""
    handler.wfile.write(b"\x00\xff" * 500 + b"\r\n\r\n")
