"""A wire to cut: a TCP proxy that can lose or hold back one chunk, fall silent, or hang up."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

Match = Callable[[bytes, bytes], bool]
"""What the client sent last, and what the server answers (nothing yet on the way there)."""


class Proxy:
    """Forwards to a Redis until told otherwise; use it as a context manager."""

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname, urlsplit(url).port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open = threading.Event()
        self._open.set()
        self._lose: Match | None = None
        self.lost = threading.Event()
        self._hold: Match | None = None
        self.held = threading.Event()
        self._closing = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._open.set()
        self._closing.set()
        self.hang_up()

    @property
    def url(self) -> str:
        """The address to give to clients instead of the real one."""
        return f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"

    def lose(self, match: Match) -> None:
        """Swallow the first answer that matches, and hang up on its client."""
        self.lost.clear()
        self._lose = match

    def hold(self, match: Match) -> None:
        """Keep back the first chunk that matches, for good: its sender can be killed meanwhile."""
        self.held.clear()
        self._hold = match

    def fall_silent(self) -> None:
        """Take what is sent and pass nothing on, in either direction, as a cut cable does."""
        self._open.clear()

    def heal(self) -> None:
        """Pass on again, also what has been held back."""
        self._open.set()

    def hang_up(self) -> None:
        """End every connection with a reset."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._open.wait()
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._pairs.append((client, server))
            said: list[bytes] = [b""]
            for ends in ((client, server, said, False), (server, client, said, True)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, said: list[bytes], from_server: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                self._open.wait()
                if not from_server:
                    said[0] = chunk
                if self._hold is not None and self._hold(said[0], chunk if from_server else b""):
                    self._hold = None
                    self.held.set()
                    self._closing.wait()
                    break
                if from_server and self._lose is not None and self._lose(said[0], chunk):
                    self._lose = None
                    self.lost.set()
                    break
                sink.sendall(chunk)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
