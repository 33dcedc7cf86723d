"""A stranger's server cannot lead us elsewhere, keep us, or fill us."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from receiver import Receiver, drip, endless, flood, garbage, hang, status

from runner.egress import Egress, Reply, Undeliverable
from runner.targets import Allowed, target_of

pytestmark = pytest.mark.anyio

LOOPBACK = Allowed("127.0.0.1:*")


def names(*answers: list[str]) -> Callable[[str, int], object]:
    """Return a resolver that gives these answers in turn, the last one for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def post(receiver: Receiver, **options: object) -> Reply:
    options = {"deadline": 5.0, **options}
    egress = Egress(options.pop("allowed", LOOPBACK), **options)
    return await egress.post(target_of(receiver.url + "?a=b"), {"x-a": "b"}, b"body")


async def refused(receiver: Receiver, **options: object) -> str:
    with pytest.raises(Undeliverable) as caught:
        await post(receiver, **options)
    return str(caught.value)


async def test_the_request_arrives_as_it_was_given() -> None:
    """Path, query, headers and body are those that were asked for, and the status is told."""
    with Receiver(status(429, retry_after="7")) as receiver:
        assert await post(receiver) == Reply(429, "7")
        (one,) = receiver.received
    assert (one.path, one.body, one.headers["x-a"]) == ("/hook?a=b", b"body", "b")
    assert one.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_nobody_inside_is_reached_unless_listed() -> None:
    """Without the operator's word no connection is made to loopback, however it is written."""
    with Receiver() as receiver:
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "0177.0.0.1"):
            target = target_of(f"https://{host}/")
            with pytest.raises(Undeliverable, match="not on the public internet"):
                await Egress(Allowed()).post(target, {}, b"")
        assert "https" in await refused(receiver, allowed=Allowed())
        assert receiver.received == []


async def test_a_name_that_flips_leads_nowhere_else() -> None:
    """The address that was checked is the one connected to: there is no second look-up to win."""
    with Receiver() as receiver:
        asked: list[str] = []

        async def flipping(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

        url = f"http://hooks.test:{receiver.port}/"
        egress = Egress(LOOPBACK, resolve=flipping, deadline=5)
        assert (await egress.post(target_of(url), {}, b"")).status == 204
        assert asked == ["hooks.test"]
        with pytest.raises(Undeliverable, match="must start with https"):  # 127.0.0.2 is not listed
            await egress.post(target_of(url), {}, b"")
        assert len(receiver.received) == 1


async def test_one_address_inside_is_enough_to_refuse() -> None:
    """A name with a public and a private address is not called at all."""
    egress = Egress(Allowed(), resolve=names(["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(Undeliverable, match="not on the public internet"):
        await egress.post(target_of("https://hooks.test/"), {}, b"")


async def test_the_next_address_is_tried() -> None:
    """A host with an address that nobody listens on is reached at its other one."""
    with Receiver() as receiver:
        resolve = names(["127.0.0.3", "127.0.0.1"])
        reply = await post(receiver, allowed=Allowed("127.0.0.0/8:*"), resolve=resolve)
        assert reply.status == 204


async def test_a_redirect_is_not_followed() -> None:
    """A receiver cannot send us on to somebody inside."""
    with Receiver() as inside, Receiver(status(307, location=inside.url)) as receiver:
        assert (await post(receiver)).status == 307
        assert inside.received == []


def test_no_proxy_of_the_environment_is_used() -> None:
    """HTTP_PROXY is for others: behind a proxy nobody would have checked the address."""
    code = (
        "import asyncio, sys; from runner.egress import *; from runner.targets import target_of\n"
        "egress = Egress(Allowed('127.0.0.1:*'))\n"
        "print(asyncio.run(egress.post(target_of(sys.argv[1]), {}, b'')).status)"
    )
    with Receiver() as proxy, Receiver() as receiver:
        named = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), proxy.url)
        ran = subprocess.run(
            [sys.executable, "-c", code, receiver.url],
            env={**os.environ, **named}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert (ran.stdout.strip(), proxy.received) == ("204", [])


@pytest.mark.parametrize("behaviour", [hang, drip], ids=["hang", "drip"])
async def test_a_slow_answer_ends_at_the_deadline(behaviour: Callable[..., None]) -> None:
    """The whole exchange has one deadline, which no dripping prolongs."""
    with Receiver(behaviour) as receiver:
        began = time.monotonic()
        assert "no answer within 0.5 s" in await refused(receiver, deadline=0.5)
        assert time.monotonic() - began < 3


async def test_a_slow_name_server_ends_at_the_deadline() -> None:
    """A look-up that never ends is given up like a connection."""

    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(Undeliverable, match=r"no answer within 0\.2 s"):
        await Egress(LOOPBACK, resolve=never, deadline=0.2).post(target_of("https://a.b/"), {}, b"")


@pytest.mark.parametrize("behaviour", [endless, flood], ids=["body", "head"])
async def test_a_huge_answer_is_not_taken_in(behaviour: Callable[..., None]) -> None:
    """Ten gigabytes cost neither memory nor time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Receiver(behaviour) as receiver:
        began = time.monotonic()
        if behaviour is endless:
            assert (await post(receiver)).status == 200
        else:
            assert await refused(receiver) == "the answer is not HTTP"
        assert time.monotonic() - began < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KB


async def test_what_does_not_answer_is_told_in_a_sentence(unused: int) -> None:
    """No name, no listener and no HTTP are failures with a reason, and none of them is ours."""
    with Receiver(garbage) as receiver:
        assert await refused(receiver) == "the answer is not HTTP"
    egress = Egress(LOOPBACK, deadline=5)
    with pytest.raises(Undeliverable, match="refused or broken"):
        await egress.post(target_of(f"http://127.0.0.1:{unused}/"), {}, b"")
    for host in ("no-such-host.invalid", "a..b", "x" * 70 + ".test"):
        with pytest.raises(Undeliverable, match="cannot be resolved"):
            await egress.post(target_of(f"https://{host}/"), {}, b"")


@pytest.fixture
def unused() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_tls_is_checked_against_the_name(tmp_path: Path) -> None:
    """The certificate must be that of the name in the URL, though an address is connected to."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=hooks.test",
         "-addext", "subjectAltName=DNS:hooks.test"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve_tls, args=(server, context), daemon=True).start()
        port = server.getsockname()[1]
        egress = Egress(LOOPBACK, resolve=names(["127.0.0.1"]), deadline=5)
        with pytest.raises(Undeliverable, match="certificate"):
            await egress.post(target_of(f"https://hooks.test:{port}/"), {}, b"")
        egress.tls.load_verify_locations(tmp_path / "cert.pem")
        assert (await egress.post(target_of(f"https://hooks.test:{port}/"), {}, b"")).status == 200
        with pytest.raises(Undeliverable, match="certificate"):
            await egress.post(target_of(f"https://other.test:{port}/"), {}, b"")


def serve_tls(server: socket.socket, context: ssl.SSLContext) -> None:
    """Answer 200 to whoever gets through the handshake, until the socket is closed."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(65536)
                tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except OSError:
            connection.close()
