"""The server keeps its promises to slow, rude and leaving clients, and to its operator."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runner import guard, http, server
from runner.errors import Unavailable

MAX_BODY = 200_000


async def size(request: Request) -> Response:
    value = await http.read_json(request, MAX_BODY)
    return http.json_response(len(value))


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


def make() -> Starlette:
    return http.application([Route("/size", size, methods=["POST"]), Route("/", hello)])


class Impatient(guard.GuardedHttp):
    """The same protocol with deadlines that a test can wait for."""

    head_seconds = 0.2
    body_window = 0.2
    body_rate = 10_000
    linger = 0.2


@pytest.fixture
def url() -> Iterator[str]:
    with server.background(make(), Impatient) as url:
        yield url


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def everything(sock: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def answer(sock: socket.socket) -> tuple[int, bytes]:
    """Read one answer: status and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
    while len(body) < length:
        body += sock.recv(65536)
    return int(head.split()[1]), body


# --- what a client may send ----------------------------------------------------------------------


def test_a_body_that_is_declared_too_large_is_refused_at_once(url: str) -> None:
    """The refusal comes before the body, and the rest of the connection's life is bounded."""
    with connect(url) as sock:
        sock.sendall(b"POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000000\r\n\r\n")
        status, body = answer(sock)
        assert (status, json.loads(body)["code"]) == (413, "payload_too_large")
        assert everything(sock) == b""


def test_a_chunked_body_is_refused_when_it_passes_the_limit(url: str) -> None:
    """A body of unknown length is read up to the limit, and what follows is dropped."""
    with connect(url) as sock:
        sock.sendall(b"POST /size HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%s\r\n" % (50_000, b" " * 50_000)
        for _ in range(5):
            sock.sendall(chunk)
        status, body = answer(sock)
        assert (status, json.loads(body)["code"]) == (413, "payload_too_large")


def test_a_refused_client_may_finish_its_body_and_ask_again(url: str) -> None:
    """A client that sends all before it listens still hears the refusal, on a sound connection."""
    with connect(url) as sock:
        body = b" " * 1_000_000
        sock.sendall(b"POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + body)
        assert answer(sock)[0] == 413
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answer(sock) == (200, b"hello")


def test_a_client_that_expects_a_go_ahead_hears_the_refusal_instead(url: str) -> None:
    """curl does not send a body that is too large."""
    with connect(url) as sock:
        sock.sendall(
            b"POST /size HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            b"content-length: 5000000\r\n\r\n"
        )
        assert answer(sock)[0] == 413


@pytest.mark.parametrize(
    "head",
    [b"x: y\r\n" * 101, b"x: " + b"y" * 40_000 + b"\r\n", b"".join(b"x%d: %s\r\n" % (i, b"y" * 900)
     for i in range(60))],
    ids=["many", "one long", "long together"],
)  # fmt: skip
def test_a_head_has_bounds(url: str, head: bytes) -> None:
    """A flood of headers costs the server neither memory nor patience."""
    with connect(url) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + head)
        text = everything(sock)
    assert text.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"head_too_large"' in text


def test_an_endless_address_has_bounds(url: str) -> None:
    """A request line of 50 kB is refused."""
    with connect(url) as sock:
        sock.sendall(b"GET /" + b"x" * 50_000)
        assert everything(sock).startswith(b"HTTP/1.1 431 ")


def test_what_is_not_http_is_refused_as_a_problem(url: str) -> None:
    """A client that speaks TLS or nonsense is told so and let go."""
    with connect(url) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        text = everything(sock)
    assert text.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"malformed_request"' in text


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_a_head_that_does_not_come_ends_the_connection(url: str, start: bytes) -> None:
    """A client that connects and says nothing, or half of something, does not hold a connection."""
    with connect(url) as sock:
        sock.sendall(start)
        assert everything(sock).startswith(b"HTTP/1.1 408 ")


def test_a_head_may_not_trickle_in(url: str) -> None:
    """The deadline is for the whole head: a byte now and then does not renew it."""
    with connect(url) as sock:
        sock.settimeout(0.02)
        text = b""
        for byte in b"GET / HTTP/1.1\r\nx-slow: " + b"y" * 1000:
            try:
                sock.sendall(bytes([byte]))
                text += sock.recv(1000)
                break
            except TimeoutError:
                continue
    assert text.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_ends_the_connection(url: str) -> None:
    """A body slower than the least rate is given up."""
    with connect(url) as sock:
        sock.sendall(b"POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n[")
        text = everything(sock)
    assert text.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in text


def test_a_slow_body_of_honest_pace_arrives(url: str) -> None:
    """An upload that takes longer than the window is fine as long as it moves."""
    body = json.dumps(["x" * 20_000]).encode()
    with connect(url) as sock:
        head = b"POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        sock.sendall(head)
        pause = threading.Event()
        for start in range(0, len(body), 1000):  # 50 kB a second for 0.4 s, in windows of 0.2 s
            sock.sendall(body[start : start + 1000])
            pause.wait(0.02)
        assert answer(sock) == (200, b"1")


def test_a_connection_serves_one_request_after_the_other(url: str) -> None:
    """The deadlines are for requests, not for connections."""
    with connect(url) as sock:
        for _ in range(3):
            sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert answer(sock) == (200, b"hello")
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
        text = b""
        while text.count(b"hello") < 2:
            text += sock.recv(65536)


def test_an_offer_of_http2_is_answered_over_http1(url: str) -> None:
    """Java's client offers h2c with each request, also with a body; it gets an answer."""
    head = (
        b"POST /size HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 5\r\n"
        b"Host: x\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: h2c\r\n\r\n"
    )
    with connect(url) as sock:
        for _ in range(2):
            sock.sendall(head + b"[1,2]")
            assert answer(sock) == (200, b"2")


def test_the_server_does_not_name_itself(url: str) -> None:
    """Nobody learns from an answer what to attack."""
    assert "server" not in httpx.get(url).headers


# --- what an operator sees -----------------------------------------------------------------------


def test_a_taken_port_is_one_clear_sentence() -> None:
    """Who starts two servers on a port reads what to do, not a traceback."""
    with server.listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(Unavailable) as error:
            server.serve(make, host="127.0.0.1", port=port)
    assert error.value.detail.startswith(f"Port {port} is taken")
    assert "--port or PORT" in error.value.detail


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", r"http://127\.0\.0\.1:(\d+)"),
        ("0.0.0.0", r"port (\d+) of every interface \(http://127\.0\.0\.1:\1 here\)"),
    ],
)
def test_where_it_listens_is_said_as_it_is(host: str, said: str) -> None:
    """Who listens on every interface does not say that only this machine reaches it."""
    with server.listen(host, 0) as listener:
        assert re.fullmatch(said, server.place_of(listener))


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_one_clear_sentence(host: str) -> None:
    """A wrong host names the setting to change."""
    with pytest.raises(Unavailable, match="--host or HOST"):
        server.listen(host, 0)


SERVE = """
import asyncio, functools, os, sys
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from runner import guard, http, server
from runner.errors import HandlerInvalid


async def slow(request):
    print("working", flush=True)
    await asyncio.sleep(float(request.query_params["seconds"]))
    return PlainTextResponse("done")


async def pid(request):
    return PlainTextResponse(str(os.getpid()))


def make(broken):
    if broken == "make":
        raise HandlerInvalid("the handler is not there")
    import contextlib

    @contextlib.asynccontextmanager
    async def lifespan(lifetime):
        if broken == "later":
            asyncio.get_running_loop().call_later(
                0.1, lifetime.fail, HandlerInvalid("the model is not there"))
        yield

    return http.application([Route("/slow", slow), Route("/pid", pid)], lifespan=lifespan)


if __name__ == "__main__":
    import logging
    logging.basicConfig(level=logging.INFO)
    workers, broken = int(sys.argv[1]), sys.argv[2]
    try:
        server.serve(functools.partial(make, broken), host="127.0.0.1", port=0, workers=workers,
                     grace=5, reaped=lambda pid: print("reaped", pid, flush=True))
    except HandlerInvalid as error:
        print("invalid:", error.detail, flush=True)
        sys.exit(3)
    print("bye", flush=True)
"""


class Program:
    """The script above as a process of its own, and the URL it says it listens on."""

    def __init__(self, folder: Path, workers: int, broken: str = "no") -> None:
        script = folder / "serve_it.py"
        script.write_text(SERVE)
        command = [sys.executable, str(script), str(workers), broken]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.url = ""
        for line in self.process.stderr:
            if "listening on" in line:
                self.url = line.split()[-1]
                break

    def get(self, path: str) -> str:
        """Ask until the workers have come up."""
        transport = httpx.HTTPTransport(retries=5)
        with httpx.Client(transport=transport, timeout=30) as client:
            return client.get(self.url + path).text

    def end(self, sig: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[functools.partial[Program]]:
    started: list[Program] = []

    def start(workers: int, broken: str = "no") -> Program:
        started.append(Program(tmp_path, workers, broken))
        return started[-1]

    yield start  # type: ignore[misc]
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
            program.process.communicate()


@pytest.mark.parametrize(
    ("workers", "sig"), [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM)]
)
def test_a_running_request_is_finished_before_the_end(programs, workers: int, sig) -> None:
    """A stop does not cut a request, and leaves with status 0 after everything is put away."""
    program = programs(workers)
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(program.get("/slow?seconds=1")))
    thread.start()
    assert program.process.stdout.readline() == "working\n"
    status, out = program.end(sig)
    thread.join()
    assert answers == ["done"]
    assert status == 0
    assert out.endswith("bye\n")


def test_a_worker_that_dies_is_replaced(programs, until) -> None:
    """A worker process that is killed is reported and started again."""
    program = programs(2)
    victim = program.get("/pid")
    os.kill(int(victim), signal.SIGKILL)
    assert program.process.stdout.readline() == f"reaped {victim}\n"
    error = program.process.stderr.readline()
    assert victim in error
    assert "SIGKILL" in error
    answering: set[str] = set()
    until(lambda: answering.add(program.get("/pid")) or len(answering) == 2, why="two workers")
    assert victim not in answering
    status, out = program.end()
    assert status == 0
    assert out.count("reaped") == 2


def test_workers_do_not_survive_their_parent(programs) -> None:
    """After the parent was killed the port is free: no orphan goes on serving."""
    program = programs(2)
    program.get("/pid")
    program.process.kill()
    program.process.communicate(timeout=30)  # ends when the last holder of its output is gone
    with pytest.raises(httpx.ConnectError):
        httpx.get(program.url + "/pid")


@pytest.mark.parametrize(
    ("workers", "broken", "sentence"),
    [
        (1, "later", "the model is not there"),
        (2, "make", "the handler is not there"),
        (2, "later", "the model is not there"),
    ],
)
def test_an_application_that_cannot_work_ends_the_server(
    programs, workers: int, broken: str, sentence: str
) -> None:
    """The reason reaches the operator as the one sentence, from one process or several."""
    status, out = programs(workers, broken).wait()
    assert status == 3
    assert f"invalid: {sentence}\n" in out


def test_the_application_is_told_before_the_port_closes() -> None:
    """While a load balancer still looks, requests are served and readiness can say no."""
    stopping: list[bool] = []

    async def state(request: Request) -> Response:
        return PlainTextResponse(str(request.state.lifetime.stopping.is_set()))

    async def run() -> None:
        listener = server.listen("127.0.0.1", 0)
        one = server.Server(http.application([Route("/", state)]), grace=1, drain=0.3)
        serving = asyncio.create_task(one.serve(sockets=[listener]))
        async with httpx.AsyncClient(base_url=server.address_of(listener)) as client:
            before = await client.get("/")
            one.should_exit = True
            answer = before
            while answer.text == "False":
                answer = await client.get("/")
            stopping.append(True)
        await serving

    asyncio.run(run())
    assert stopping
