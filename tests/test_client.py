"""What `runner.client` promises: a job is followed to its end, and every trouble is a sentence."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from stage import GALLERY, Stage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.responses import StreamingResponse as Stream
from starlette.routing import Route

from runner import embedded, server, web
from runner import manifest as manifests
from runner.client import Client, Refused
from runner.errors import JobUnknown, RunnerError, Unavailable

Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform with two services."""
    with Stage(redis_url, tmp_path_factory.mktemp("client"), until) as stage:
        stage.orchestrator()
        stage.worker("echo")
        stage.worker("slow")
        stage.ready("echo", "slow")
        yield stage
        stage.sound()


@pytest.fixture
def client(stage: Stage) -> Client:
    """Give a client of the platform."""
    return Client(f"http://127.0.0.1:{stage.port}")


def twin(*routes: Route) -> AbstractContextManager[str]:
    """Serve something that an orchestrator would not say; yields its URL."""

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        await Starlette(routes=routes)(scope, receive, send)

    return server.background(whole)


# --- a platform that works -----------------------------------------------------------------------


def test_a_job_is_run_to_its_end(client: Client) -> None:
    """The finished job comes back, its result can be fetched, and its story was heard."""
    heard: Told = []
    job = client.run("slow", {"seconds": 0.5}, lambda name, data: heard.append((name, data)))
    assert (job["status"], client.result(job["id"])) == ("succeeded", {"done": 26})
    names = [name for name, _ in heard]
    assert names[0] == "status"
    assert {"start", "step", "progress"} <= set(names)
    assert "completed" not in names
    assert client.job(job["id"])["status"] == "succeeded"


def test_what_is_known_of_a_service_can_be_asked(client: Client) -> None:
    """The manifest is part of it, so that a caller knows what to send."""
    known = client.service("echo")
    assert known["manifest"]["input"]["required"] == ["text"]
    assert {service["name"] for service in client.get("/v1/services")["services"]} >= {"echo"}


def test_a_job_can_be_canceled(client: Client) -> None:
    """A running job ends as canceled, soon."""
    job = client.post("/v1/services/slow/jobs", {"seconds": 60})
    story: Told = []
    for event in client.events(job["id"]):
        story.append(event)
        if event[0] == "start":
            assert client.cancel(job["id"])["cancel_requested_at"]
    name, data = story[-1]
    assert (name, data["status"]) == ("completed", "canceled")


def test_an_interrupt_cancels_the_job(stage: Stage, client: Client) -> None:
    """Ctrl-C while a job is followed does not leave it running."""
    code = (
        "import sys; from runner.client import Client\n"
        "def hear(name, data): print(name, data.get('id', ''), flush=True)\n"
        f"Client('http://127.0.0.1:{stage.port}').run('slow', {{'seconds': 60}}, hear)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as caller:
        assert caller.stdout is not None
        job_id = caller.stdout.readline().split()[1]
        for line in caller.stdout:
            if line.startswith(("start", "progress")):
                break
        caller.send_signal(signal.SIGINT)
    assert caller.returncode == -signal.SIGINT  # a KeyboardInterrupt that nobody caught
    *_, (_, data) = client.events(job_id)
    assert data["status"] == "canceled"


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (lambda c: c.service("nobody"), "service_unknown", "There is no service `nobody`"),
        (lambda c: c.job("nothing"), "job_unknown", "There is no job `nothing`"),
        (lambda c: c.run("echo", {}, print), "input_invalid", "text"),
        (lambda c: c.get("/v1/jobs", limit=0), "bad_request", "limit must be"),
    ],
)
def test_a_refusal_is_said_again(
    client: Client, ask: Callable[[Client], Any], code: str, words: str
) -> None:
    """What the orchestrator refuses is an error with its code and its own words."""
    with pytest.raises(Refused, match=words) as caught:
        ask(client)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["../services", "a/b", "a?b=c", "a#b", "%2e%2e", "é\n", ""])
def test_a_name_is_never_another_address(client: Client, name: str) -> None:
    """Whatever is typed as a job's id asks for no other thing than a job."""
    with pytest.raises(RunnerError):
        client.job(name)


def test_every_problem_of_an_input_is_said(client: Client) -> None:
    """A caller mends all of it at once."""
    with pytest.raises(Refused) as caught:
        client.run("echo", {"text": 1, "reverse": "yes", "more": 1}, print)
    assert len(str(caught.value).splitlines()) == 3


# --- nobody, or somebody else --------------------------------------------------------------------


def test_nobody_there_is_one_sentence() -> None:
    """A closed port is told with the address and with what to do."""
    url = f"http://127.0.0.1:{embedded.free_port()}"
    with pytest.raises(Unavailable, match=rf"^No orchestrator answers at {url} \(ConnectError\)"):
        Client(url).get("/v1/services")


def test_one_who_never_answers_is_not_waited_for_in_vain() -> None:
    """A port that takes calls and says nothing is given up after the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unavailable, match="ReadTimeout"):
            Client(url, timeout=0.2).get("/v1/services")


async def page(request: Request) -> Response:
    """Answer as a web site does."""
    return HTMLResponse("<h1>It works!</h1>", status_code=int(request.query_params["status"]))


async def elsewhere(request: Request) -> Response:
    """Send the caller away."""
    return RedirectResponse("https://example.org")


@pytest.mark.parametrize("status", [200, 404, 502])
def test_a_web_site_is_no_orchestrator(status: int) -> None:
    """Whatever another server says, the caller learns that it is the wrong one."""
    routes = (Route("/v1/services", page), Route("/v1/jobs", elsewhere))
    with twin(*routes) as url, pytest.raises(Unavailable, match="is not an orchestrator"):
        Client(url).get("/v1/services", status=status)


def test_a_redirect_is_not_followed_blindly() -> None:
    """Documents go where the person said, and nowhere else."""
    with twin(Route("/v1/jobs", elsewhere)) as url, pytest.raises(RunnerError):
        Client(url).get("/v1/jobs")


def test_a_service_alone_is_no_orchestrator() -> None:
    """The HTTP door of one service listens on the same port by default: the mix-up is told."""
    app = web.create(manifests.load(GALLERY / "echo.yaml"), config={}, line=1)
    with server.background(app) as url, pytest.raises(Unavailable, match="is not an orchestrator"):
        Client(url).get("/v1/services")


# --- a line that breaks --------------------------------------------------------------------------


class Fragile:
    """An orchestrator whose stream of events breaks off again and again."""

    def __init__(self, *pieces: bytes | int) -> None:
        self.pieces = list(pieces)
        self.asked: list[str] = []

    async def events(self, request: Request) -> Response:
        """Answer with the next piece: a status, or a part of the stream."""
        self.asked.append(request.headers["last-event-id"])
        piece = self.pieces.pop(0)
        if isinstance(piece, int):
            problem = {"code": "store_unavailable", "detail": "The database does not answer."}
            return JSONResponse(problem, status_code=piece)
        return Stream(self._broken(piece), media_type="text/event-stream")

    async def _broken(self, piece: bytes) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n: still here\n\n" + piece
        if b"completed" not in piece and b"clean" not in piece:
            raise ConnectionResetError

    def __call__(self) -> AbstractContextManager[str]:
        """Serve it; yields its URL."""
        return twin(Route("/v1/jobs/{id}/events", self.events))


def event(number: int | None, name: str, **data: Any) -> bytes:
    """Write one Server-Sent Event."""
    head = b"" if number is None else f"id: {number}\n".encode()
    return head + f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


END = event(None, "completed", status="succeeded")


def test_a_broken_stream_is_taken_up_where_it_broke() -> None:
    """An orchestrator that is started anew loses no follower, and tells nothing twice."""
    fragile = Fragile(
        event(7, "log", message="a") + event(8, "log", message="b"),
        503,
        event(9, "log", message="clean"),
        END,
    )
    with fragile() as url:
        told = [(name, data.get("message")) for name, data in Client(url).events("job")]
    assert told == [("log", "a"), ("log", "b"), ("log", "clean"), ("completed", None)]
    assert fragile.asked == ["0", "8", "8", "9"]


def test_a_broken_stream_is_not_asked_for_without_a_pause() -> None:
    """A follower does not hammer an orchestrator that is in trouble."""
    fragile = Fragile(503, END)
    began = time.monotonic()
    with fragile() as url:
        assert [name for name, _ in Client(url).events("job")] == ["completed"]
    assert time.monotonic() - began >= 0.5


def test_a_follower_does_not_wait_for_ever() -> None:
    """When nobody answers any more, the failure is told."""
    with Fragile(503)() as url, pytest.raises(Refused, match="The database does not answer"):
        list(Client(url, patience=0).events("job"))
    with pytest.raises(Unavailable, match="No orchestrator answers"):
        list(Client(url, patience=0).events("job"))


def test_a_job_that_is_erased_meanwhile_is_told() -> None:
    """A stream may end with nothing to show; that is no traceback."""
    fragile = Fragile(event(None, "completed").replace(b"{}", b"null"))

    async def submit(request: Request) -> Response:
        return JSONResponse({"id": "job"}, status_code=202)

    routes = (
        Route("/v1/jobs/{id}/events", fragile.events),
        Route("/v1/services/{name}/jobs", submit, methods=["POST"]),
    )
    with twin(*routes) as url, pytest.raises(JobUnknown, match="erased before it had finished"):
        Client(url).run("echo", {}, print)
