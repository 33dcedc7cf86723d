"""The answers, bodies, streams and the front that both HTTP servers share."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from runner import http, server
from runner.errors import Busy, InputInvalid, MalformedJson, Problem
from runner.front import Complaints, Front, Observe
from runner.stream import StreamEvent

MAX_BODY = 1000


async def read(request: Request) -> Response:
    return http.json_response(await http.read_json(request, MAX_BODY))


async def form(request: Request) -> Response:
    return http.json_response(await http.read_form(request, MAX_BODY))


async def busy(request: Request) -> Response:
    raise Busy("Nothing is free.", retry_after=7)


async def invalid(request: Request) -> Response:
    raise InputInvalid("Two things.", problems=[Problem("/a", "type", "is wrong", got="x")])


async def broken(request: Request) -> Response:
    raise ValueError("the secret of the house")


async def page(request: Request) -> Response:
    return HTMLResponse("<p>hello")


async def item(request: Request) -> Response:
    return PlainTextResponse(request.path_params["id"])


async def document(request: Request) -> Response:
    return http.document_response(request, {"a": 1})


ROUTES = [
    Route("/read", read, methods=["POST"]),
    Route("/form", form, methods=["POST"]),
    Route("/busy", busy),
    Route("/invalid", invalid),
    Route("/broken", broken),
    Route("/page", page),
    Route("/items/{id}", item),
    Route("/document", document),
]


def ask(method: str, path: str, observe: Observe | None = None, **kwargs: Any) -> Any:
    """Send one request to an application with the routes above."""
    transport = httpx.ASGITransport(http.application(ROUTES, observe=observe))

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **kwargs)

    return asyncio.run(send())


def post(body: Any, content_type: str | None = "application/json", **headers: str) -> Any:
    if content_type is not None:
        headers["content-type"] = content_type
    return ask("POST", "/read", content=body, headers=headers)


# --- problems ------------------------------------------------------------------------------------


def test_a_failure_is_a_problem_document_with_its_path_and_request_id() -> None:
    """A caller finds code, status, path and the id to quote in every failure."""
    answer = ask("GET", "/busy", headers={"x-request-id": "abc-1"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "7"
    assert answer.json() == {
        "type": "urn:nlp-runner:error:busy",
        "title": Busy.title,
        "status": 503,
        "detail": "Nothing is free.",
        "code": "busy",
        "instance": "/busy",
        "request_id": "abc-1",
    }


def test_each_problem_of_an_input_is_listed() -> None:
    """A form can mark every wrong field, because each comes with its pointer."""
    answer = ask("GET", "/invalid")
    assert answer.json()["errors"] == [
        {"pointer": "/a", "code": "type", "message": "is wrong", "got": "x"}
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("GET", "/read", 405, "method_not_allowed"),
     ("GET", "/read/", 404, "not_found"), ("GET", "/static/nothing.js", 404, "not_found")],
)  # fmt: skip
def test_what_the_framework_refuses_is_a_problem_too(
    method: str, path: str, status: int, code: str
) -> None:
    """There is one shape of failure, also for addresses that do not exist."""
    answer = ask(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_method_that_is_not_allowed_says_which_is() -> None:
    """A 405 carries `Allow`."""
    assert ask("GET", "/read").headers["allow"] == "POST"


def test_an_unexpected_error_tells_the_log_and_not_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing of an internal error leaves the house; its trace can be found by the request id."""
    answer = ask("GET", "/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "the secret of the house" in caplog.text
    assert answer.json()["request_id"] in caplog.text


# --- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "application/ld+json", None,
     "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_json_is_read_under_the_names_clients_give_it(content_type: str | None) -> None:
    """`curl -d '{…}' URL` works, although curl calls the body a form."""
    assert post(b'{"a": 1}', content_type).json() == {"a": 1}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"a=1&b=2", "application/x-www-form-urlencoded"), (b"<a/>", "text/xml"),
     (b'{"a": 1}', "text/plain")],
)  # fmt: skip
def test_other_media_types_are_refused_with_the_one_to_send(body: bytes, content_type: str) -> None:
    """A 415 says what to send instead."""
    answer = post(body, content_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["detail"]


def test_a_compressed_body_is_refused() -> None:
    """A gzip body is called what it is, not malformed."""
    answer = post(b"\x1f\x8b", **{"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert "gzip" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [(b'{"a": 1,\n  "b": NaN}', 2, 8), (b"{'a': 1}", 1, 2), (b'"\\ud800"', 1, 2), (b"{}x", 1, 3)],
)
def test_malformed_json_is_located(body: bytes, line: int, column: int) -> None:
    """A 400 says at which line and column the body stops being JSON; NaN is not JSON."""
    problem = post(body).json()
    assert problem["code"] == "malformed_json"
    assert (problem["line"], problem["column"]) == (line, column)


def test_an_empty_body_is_malformed() -> None:
    """An empty body is answered with what to send."""
    assert post(b"").json()["detail"] == "The body is empty; send a JSON object."


@pytest.mark.parametrize(("levels", "fine"), [(64, True), (65, False), (100_000, False)])
def test_nesting_is_bounded(levels: int, fine: bool) -> None:
    """A body may have 64 levels, and a bomb of 100 000 costs nothing."""
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        body = opening * levels + b"1" + closing * levels
        if fine:
            http.parse_json(body)
        else:
            with pytest.raises(MalformedJson):
                http.parse_json(body)


def test_wide_bodies_are_not_deep() -> None:
    """Many brackets next to each other are no nesting."""
    assert len(http.parse_json(b"[" + b",".join([b"[[1]]"] * 1000) + b"]")) == 1000


def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    """Not a byte of a body that is said to be too large is read."""
    answer = asyncio.run(_read_asgi([(b"content-length", b"1001")], chunks=0))
    assert answer == ("payload_too_large", 0)


def test_a_body_without_length_is_read_no_further_than_the_limit() -> None:
    """A chunked body ends the reading when it passes the limit, however much would follow."""
    answer = asyncio.run(_read_asgi([], chunks=1000))
    assert answer == ("payload_too_large", 11)


async def _read_asgi(headers: list[tuple[bytes, bytes]], chunks: int) -> tuple[str, int]:
    """Read a body in chunks of 100 bytes; return the error's code and the chunks that were read."""
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        assert taken <= chunks, "nobody should read on"
        return {"type": "http.request", "body": b" " * 100, "more_body": True}

    request = Request({"type": "http", "headers": headers, "path": "/", "method": "POST"}, receive)
    with pytest.raises(http.PayloadTooLarge) as error:
        await http.read_json(request, MAX_BODY)
    return error.value.code, taken


# --- documents and pages -------------------------------------------------------------------------


def test_a_document_is_sent_again_only_when_it_changed() -> None:
    """A client that has the document is answered 304 without it."""
    first = ask("GET", "/document")
    again = ask("GET", "/document", headers={"if-none-match": first.headers["etag"]})
    other = ask("GET", "/document", headers={"if-none-match": '"something else"'})
    assert [a.status_code for a in (first, again, other)] == [200, 304, 200]
    assert again.content == b""
    assert again.headers["etag"] == first.headers["etag"]


def test_pages_may_load_nothing_from_elsewhere() -> None:
    """Every HTML page has a content policy, and other answers one that allows nothing."""
    policy = ask("GET", "/page").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    answer = ask("GET", "/document")
    assert answer.headers.get_list("content-security-policy") == [
        "default-src 'none'; frame-ancestors 'none'"
    ]


@pytest.mark.parametrize("path", ["/page", "/document", "/static/docs.js", "/xyz", "/broken"])
def test_every_answer_is_closed_to_other_sites(path: str) -> None:
    """Pages, documents, files and failures alike: no sniffing, embedding, CORS or referrer."""
    headers = ask("GET", path, headers={"origin": "https://evil.example"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert not [name for name in headers if name.startswith("access-control-")]


def test_the_documentation_page_works_without_the_internet() -> None:
    """The page of the documentation names only files that ship with the package."""
    text = http.docs_page("<b>", "openapi.json?a=1&b").body.decode()
    assert "<title>&lt;b&gt;</title>" in text
    assert 'data-openapi="openapi.json?a=1&amp;b"' in text
    assert "<script>" not in text
    names = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(names) == 4
    for name in names:
        answer = ask("GET", f"/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_license_of_what_we_ship_ships_with_it() -> None:
    """Swagger UI's license and notice lie beside its files."""
    folder = Path(http.__file__).parent / "static"
    names = {path.name for path in folder.iterdir()}
    assert {"swagger-ui.LICENSE", "swagger-ui.NOTICE", "swagger-ui-bundle.js.LICENSE.txt"} <= names


# --- the front -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "A-z_09" * 10, "550e8400-e29b-41d4-a716-446655440000"])
def test_a_clients_request_id_is_kept(given: str) -> None:
    """Who brings an id finds it in the answer."""
    assert ask("GET", "/page", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tforged line", "é", "<script>"])
def test_a_request_id_that_could_forge_a_log_line_is_replaced(given: str) -> None:
    """Only letters, digits, `-` and `_` reach the log."""
    headers = [(b"x-request-id", given.encode("utf-8"))]
    found = ask("GET", "/page", headers=headers).headers["x-request-id"]
    assert found != given
    assert re.fullmatch(r"[0-9a-f]{16}", found)


def test_requests_are_counted_by_template() -> None:
    """No path with an id in it becomes a time series, nor does a path that does not exist."""
    seen: list[tuple[str, str, int]] = []
    for method, path in (("GET", "/items/1"), ("GET", "/items/2"), ("DELETE", "/items/1"),
                         ("GET", "/xyz"), ("GET", "/broken")):  # fmt: skip
        ask(method, path, observe=lambda *what: seen.append(what[:3]))
    assert seen == [
        ("GET", "/items/{id}", 200),
        ("GET", "/items/{id}", 200),
        ("DELETE", "/items/{id}", 405),
        ("GET", "unknown", 404),
        ("GET", "/broken", 500),
    ]


async def _through_front(seconds: float, waited: float = 0.0, status: int = 200) -> None:
    """Send one request through a front whose clock makes it last so many seconds."""
    ticks = iter([0.0, seconds])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["waited"] = waited
        await PlainTextResponse("", status)(scope, receive, send)

    async def send(message: Any) -> None:
        return None

    scope = {"type": "http", "method": "GET", "headers": [], "path": "/"}
    await Front(app, lambda scope: app, clock=lambda: next(ticks))(scope, _never, send)


@pytest.mark.parametrize(
    ("seconds", "waited", "status", "lines"),
    [(0.5, 0.0, 200, 0), (0.5, 0.0, 404, 0), (1.5, 0.0, 200, 1), (31.0, 30.5, 200, 0),
     (0.1, 0.0, 503, 1)],
)  # fmt: skip
def test_only_the_slow_and_the_failed_are_logged(
    seconds: float, waited: float, status: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A quiet log means all is well; a long poll that waits on purpose is not slow."""
    caplog.set_level(logging.INFO)
    asyncio.run(_through_front(seconds, waited, status))
    assert len(caplog.records) == lines


def test_a_failure_is_logged_with_its_path_and_code(caplog: pytest.LogCaptureFixture) -> None:
    """Who reads the log sees what was asked and why it failed; no path forges a line."""
    ask("GET", "/busy", headers={"x-request-id": "abc-1"})
    [line] = caplog.messages
    assert re.fullmatch(r"GET /busy answered 503 busy in \d\.\d{3} s \(request abc-1\)", line)
    ask("GET", "/items/a%0Afailed%20")
    ask("POST", "/broken%0A")
    assert not any("\n" in line for line in caplog.messages)


def test_failures_of_one_kind_share_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """The first is told at once, the others by their number; another kind has its own lines."""

    async def story() -> None:
        complaints = Complaints(quiet=0.1)
        for number in range(98):
            complaints.hear(("POST /jobs", "503 no_worker"), f"request {number} failed")
        complaints.hear(("POST /jobs", "503 queue_full"), "the queue is full")
        assert caplog.messages == ["request 0 failed", "the queue is full"]
        await asyncio.sleep(0.15)
        complaints.hear(("POST /jobs", "503 no_worker"), "once more")
        assert caplog.messages[2:] == ["request 97 failed, and 96 more like it"]
        await asyncio.sleep(0.25)
        assert caplog.messages[3:] == ["once more"]
        complaints.hear(("POST /jobs", "503 no_worker"), "much later")
        assert caplog.messages[4:] == ["much later"]

    asyncio.run(story())


# --- streams -------------------------------------------------------------------------------------


async def _never() -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


class Story:
    """Events that a test lets happen one by one, and whether they were closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self.closed = False

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        event = await self.queue.get()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        self.closed = True


class Client:
    """Receives a stream; `left` is set when it leaves."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.messages: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.heard = asyncio.Condition()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        async with self.heard:
            self.messages.append(message)
            self.parts.append(message.get("body", b""))
            self.heard.notify_all()

    async def hears(self, what: Callable[[bytes], bool]) -> None:
        async with self.heard:
            await self.heard.wait_for(lambda: what(b"".join(self.parts)))

    @property
    def text(self) -> bytes:
        return b"".join(self.parts)


def test_events_are_written_as_server_sent_events() -> None:
    """An EventSource gets id, name and one line of JSON, and is told when to come back."""

    async def tell() -> Client:
        story, client = Story(), Client()
        story.queue.put_nowait((1, "start", {"a": "é\n"}))
        story.queue.put_nowait((None, "log", "x"))
        story.queue.put_nowait(None)
        await http.sse(story)({"type": "http"}, client.receive, client.send)
        assert story.closed
        return client

    client = asyncio.run(tell())
    assert (
        client.text
        == (
            'retry: 2000\n\nid: 1\nevent: start\ndata: {"a":"é\\n"}\n\nevent: log\ndata: "x"\n\n'
        ).encode()
    )
    assert dict(client.messages[0]["headers"])[b"content-type"] == (
        b"text/event-stream; charset=utf-8"
    )
    assert client.messages[-1]["more_body"] is False


def test_events_are_written_as_lines_of_json() -> None:
    """A shell reads one object a line."""

    async def tell() -> bytes:
        story, client = Story(), Client()
        story.queue.put_nowait((1, "start", {"a": 1}))
        story.queue.put_nowait(None)
        await http.ndjson(story)({"type": "http"}, client.receive, client.send)
        return client.text

    assert [json.loads(line) for line in asyncio.run(tell()).splitlines()] == [
        {"event": "start", "a": 1}
    ]


def test_a_silent_stream_shows_that_it_lives() -> None:
    """Proxies do not cut a stream that has nothing to say, and no event is lost by the pause."""

    async def tell() -> bytes:
        story, client = Story(), Client()
        stream = http.sse(story, keep_alive=0.005)
        task = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
        await client.hears(lambda text: text.count(b": still here\n\n") >= 3)
        story.queue.put_nowait((1, "late", {}))
        story.queue.put_nowait(None)
        await task
        return client.text

    assert asyncio.run(tell()).endswith(b"id: 1\nevent: late\ndata: {}\n\n")


def test_a_client_that_leaves_ends_its_stream() -> None:
    """The events are let go of as soon as nobody listens."""

    async def tell() -> Story:
        story, client = Story(), Client()
        stream = http.sse(story)
        task = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
        await client.hears(lambda text: b"retry" in text)
        client.left.set()
        await task
        return story

    assert asyncio.run(tell()).closed


def test_a_stream_ends_when_the_server_stops() -> None:
    """A stream that can be taken up elsewhere does not hold up the end of the process."""

    async def tell() -> Client:
        story, client, stopping = Story(), Client(), asyncio.Event()
        stream = http.sse(story, until=stopping)
        task = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
        await client.hears(lambda text: b"retry" in text)
        stopping.set()
        await task
        assert story.closed
        return client

    assert asyncio.run(tell()).messages[-1]["more_body"] is False


def test_a_stream_whose_events_fail_is_cut() -> None:
    """A stream that breaks does not look like one that has ended."""

    async def failing() -> AsyncIterator[StreamEvent]:
        yield 1, "start", {}
        raise ValueError("broken")

    async def tell(request: Request) -> Response:
        return http.sse(failing())  # type: ignore[arg-type]

    with (
        server.background(http.application([Route("/", tell)])) as url,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(url)


# --- forms ---------------------------------------------------------------------------------------

MULTIPART = "multipart/form-data; boundary=b"
URLENCODED = "application/x-www-form-urlencoded"


def send_form(body: bytes, content_type: str = MULTIPART, **headers: str) -> Any:
    return ask("POST", "/form", content=body, headers={"content-type": content_type, **headers})


def part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def test_a_form_is_its_fields() -> None:
    """Both kinds of form, texts of any language, and files as if they were texts."""
    fields = {"documents": '["é 🎈"]', "nlpConfig": "{}"}
    assert ask("POST", "/form", data=fields).json() == fields
    multipart = {name: (None, value) for name, value in fields.items()}
    assert ask("POST", "/form", files=multipart).json() == fields
    files = {"documents": ("texts.json", '["é 🎈"]'.encode()), "nlpConfig": (None, "{}")}
    assert ask("POST", "/form", files=files).json() == fields
    assert send_form(b"--b--\r\n").json() == {}


@pytest.mark.parametrize(
    ("body", "kind", "status", "word"),
    [
        (b"{}", "application/json", 415, "send a form"),
        (b"{}", "text/plain", 415, "send a form"),
        (part("a", b"x" * 2000), MULTIPART, 413, "at most 1,000 bytes"),
        (b"a=" + b"x" * 2000, URLENCODED, 413, "at most 1,000 bytes"),
        (part("a", b"1") + part("a", b"2") + b"--b--", MULTIPART, 400, "field `a` twice"),
        (b"a=1&a=2", URLENCODED, 400, "field `a` twice"),
        (part("a", b"\xff", '; filename="f"') + b"--b--", MULTIPART, 400, "not a text in UTF-8"),
        (b"--b--", "multipart/form-data", 400, "boundary"),
        (b"nonsense", MULTIPART, 400, "cannot be read"),
        (b"--b\r\nX: y\r\n\r\n1\r\n--b--", MULTIPART, 400, "cannot be read"),
        (b"&".join(b"%d=" % n for n in range(101)), URLENCODED, 400, "Too many fields"),
    ],
)
def test_a_form_that_cannot_be_read_is_told(body: bytes, kind: str, status: int, word: str) -> None:
    """Each reason has its status and its sentence, and nothing of it is a 500."""
    answer = send_form(body, kind)
    assert answer.status_code == status
    assert word in answer.json()["detail"]


def test_an_encoded_form_is_refused() -> None:
    """What is compressed could be a bomb."""
    assert send_form(b"", **{"content-encoding": "gzip"}).status_code == 415


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([MULTIPART, URLENCODED]))
def test_any_bytes_are_a_form_or_a_refusal(body: bytes, kind: str) -> None:
    """No body makes a server fail."""
    for whole in (body, b"--b\r\n" + body, part("a", body) + b"--b--"):
        assert send_form(whole, kind).status_code in (200, 400)
