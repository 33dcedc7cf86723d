"""The HTTP door of one service, from the first probe to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from runner import events, manifest, server, web
from runner.engine import Engine
from runner.errors import HandlerInvalid, SettingInvalid
from runner.events import Event
from runner.http import Lifetime
from runner.manifest import Manifest
from runner.metrics import Metrics
from runner.narrowing import narrowed

GALLERY = Path(__file__).parent / "gallery"


def gallery(name: str) -> Manifest:
    return manifest.load(GALLERY / f"{name}.yaml")


def limited(folder: Path, handler: str, examples: Any = (), **limits: str | int) -> Manifest:
    """Write a service with a handler in one file and these limits, and load it."""
    (folder / "its.py").write_text(handler)
    path = folder / "its.yaml"
    path.write_text(
        "apiVersion: nlp-runner/v1\nname: its\nversion: 1.0.0\nsummary: Is a test's own.\n"
        "handler: its:run\ninput: {type: object, properties: {n: {type: number, default: 0}}}\n"
        f"output: {{type: object}}\nlimits: {json.dumps(limits)}\n"
        f"examples: {json.dumps(list(examples))}\n"
    )
    sys.modules.pop("its", None)
    return manifest.load(path)


@pytest.fixture(autouse=True)
def _clean_path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


class Gate:
    """A service's engine whose handler waits until the test lets it go, one request at a time."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)

    def engine(self, one: Manifest, config: Any) -> Engine:
        engine = Engine(one, config)
        run = engine.run

        class Gated:
            manifest = one
            smoke = engine.smoke
            close = engine.close
            warnings = engine.warnings

            def run(_, *args: Any, **kwargs: Any) -> Any:
                self.entered.release()
                assert self.let_go.acquire(timeout=30)
                return run(*args, **kwargs)

        return Gated()  # type: ignore[return-value]


class Door:
    """A door on a real port, and what its listeners heard."""

    def __init__(self, one: Manifest, **options: Any) -> None:
        self.heard: list[Event] = []
        self.changed = threading.Condition()
        self.app = web.create(one, listeners=[self._hear], **options)

    def _hear(self, event: Event) -> None:
        with self.changed:
            self.heard.append(event)
            self.changed.notify_all()

    def hears(self, condition: Callable[[Event], bool]) -> Event:
        """Wait for an event, past or coming."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(map(condition, self.heard)), timeout=30)
            return next(filter(condition, self.heard))

    @contextlib.contextmanager
    def open(self) -> Iterator[httpx.Client]:
        with server.background(self.app) as url, httpx.Client(base_url=url, timeout=30) as client:
            until(lambda: client.get("/readyz").json()["status"] != "loading")
            yield client


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again; each question takes its own time."""
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never happened")


async def until_async(condition: Callable[[], bool]) -> None:
    """Let the event loop do its work until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def sse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the (name, data) of a stream of Server-Sent Events."""
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    return [(name, json.loads(data)) for name, data in found]


# --- answers -------------------------------------------------------------------------------------


def test_the_answer_is_the_output_itself() -> None:
    """A caller gets what the manifest's output describes, and the id of the execution."""
    door = Door(gallery("echo"))
    with door.open() as client:
        answer = client.post("/run", json={"text": "abc", "reverse": True})
    assert (answer.status_code, answer.json()) == (200, {"text": "cba"})
    job = door.hears(lambda event: event.kind == "succeeded" and event.job != "smoke").job
    assert answer.headers["x-job-id"] == job


def test_curl_as_the_readme_shows_it() -> None:
    """`curl -d '{…}' URL/run` is enough."""
    with Door(gallery("echo")).open() as client:
        done = subprocess.run(
            ["curl", "-s", "-d", '{"text": "hello"}', f"{client.base_url}/run"],
            capture_output=True, check=True,
        )  # fmt: skip
    assert json.loads(done.stdout) == {"text": "hello"}


@pytest.mark.parametrize(
    ("service", "body", "status", "code"),
    [
        ("echo", {"txt": "x"}, 422, "input_invalid"),
        ("echo", [], 422, "input_invalid"),
        ("rejects", {}, 422, "input_rejected"),
        ("fails_in_run", {}, 500, "handler_error"),
        ("wrong_output", {}, 500, "output_invalid"),
        ("exits", {}, 500, "handler_error"),
        ("memory", {}, 500, "out_of_memory"),
        ("transient", {}, 503, "transient"),
    ],
)
def test_each_failure_has_its_status_and_code(
    service: str, body: Any, status: int, code: str
) -> None:
    """A program can tell its own mistake from the handler's, and the process goes on."""
    one = gallery(service)
    door = Door(one)
    with door.open() as client:
        for _ in range(2):
            answer = client.post("/run", json=body)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert answer.headers["content-type"] == "application/problem+json"
            assert ("retry-after" in answer.headers) is (status == 503)
        assert client.get("/readyz").status_code == 200


def test_an_invalid_input_names_every_fault() -> None:
    """A 422 lists all that is wrong, each with its place."""
    with Door(gallery("echo")).open() as client:
        problem = client.post("/run", json={"text": 1, "more": 2}).json()
    assert {(one["pointer"], one["code"]) for one in problem["errors"]} == {
        ("/text", "type"),
        ("/more", "unknown_property"),
    }


def test_an_output_that_is_no_json_breaks_the_handlers_promise(tmp_path: Path) -> None:
    """A number that JSON cannot carry is the handler's fault, and said so."""
    one = limited(tmp_path, "def run(ctx, n):\n    return {'n': 2 ** 70}\n")
    with Door(one).open() as client:
        answer = client.post("/run", json={})
    assert (answer.status_code, answer.json()["code"]) == (500, "output_invalid")


def test_the_body_is_limited_by_the_manifest(tmp_path: Path) -> None:
    """`limits.max_body` holds for this service."""
    one = limited(tmp_path, "def run(ctx, n):\n    return {}\n", max_body="1kB")
    with Door(one).open() as client:
        answer = client.post("/run", content=b" " * 1001)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


# --- streams -------------------------------------------------------------------------------------


def test_a_stream_tells_the_story_and_ends_with_the_output() -> None:
    """The same execution, told as it happens: start, steps, and one completed with the output."""
    with Door(gallery("counts_steps")).open() as client:
        answer = client.post("/run", json={"documents": ["a b", "c"]},
                             headers={"accept": "text/event-stream"})  # fmt: skip
    assert answer.headers["content-type"].startswith("text/event-stream")
    story = sse(answer.text)
    names = [name for name, _ in story]
    assert names[0] == "start"
    assert names.count("step") == 6
    assert names[-1] == "completed"
    assert names.count("completed") == 1
    last = story[-1][1]
    assert last["job"] == answer.headers["x-job-id"]
    assert (last["status"], last["output"]) == ("succeeded", {"words": [2, 1]})
    at = story[1][1]["progress"]["steps"][0]["started_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    numbers = re.findall(r"id: (\d+)", answer.text)
    assert numbers == sorted(numbers, key=int)
    assert len(numbers) == len(set(numbers))


def test_a_stream_in_lines_of_json() -> None:
    """A shell can follow with `while read line`."""
    with Door(gallery("counts_steps")).open() as client:
        answer = client.post("/run", json={"documents": ["a"]},
                             headers={"accept": "application/x-ndjson"})  # fmt: skip
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0]["event"] == "start"
    assert (lines[-1]["event"], lines[-1]["output"]) == ("completed", {"words": [1]})


def test_a_stream_that_fails_ends_with_the_error() -> None:
    """Who follows hears why it ended, in the words that a plain answer would have."""
    one = gallery("fails_in_run")
    with Door(one).open() as client:
        answer = client.post("/run", json={},
                             headers={"accept": "text/event-stream"})  # fmt: skip
    name, data = sse(answer.text)[-1]
    assert (name, data["status"], data["error"]["code"]) == ("completed", "failed", "handler_error")


def test_an_invalid_input_gets_no_stream() -> None:
    """A 422 is a 422 also for those who asked for a stream."""
    with Door(gallery("echo")).open() as client:
        answer = client.post("/run", json={}, headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["code"]) == (422, "input_invalid")


def test_log_lines_of_the_handler_reach_who_follows() -> None:
    """What a handler logs is told to its caller."""
    one = gallery("logs")
    with Door(one).open() as client:
        answer = client.post("/run", json={},
                             headers={"accept": "text/event-stream"})  # fmt: skip
    assert "log" in [name for name, _ in sse(answer.text)]


# --- the line ------------------------------------------------------------------------------------


async def _post_all(url: httpx.URL, count: int, body: Any) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        return await asyncio.gather(*(client.post("/run", json=body) for _ in range(count)))


def test_a_full_line_is_said_at_once() -> None:
    """One runs, two wait, and the rest hears `busy` with a time to come back: nothing piles up."""
    gate = Gate()
    with Door(gallery("echo"), line=2, make=gate.engine).open() as client:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.extend(asyncio.run(_post_all(client.base_url, 5, {"text": "x"})))

        thread = threading.Thread(target=ask)
        thread.start()
        assert gate.entered.acquire(timeout=30)
        until(lambda: _count(client, "/run", 503) == 2)
        for _ in range(3):
            gate.let_go.release()
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["code"] == "busy"
    assert int(refused.headers["retry-after"]) >= 1


def _count(client: httpx.Client, route: str, status: int) -> int:
    """Return how many requests of a route were answered with a status."""
    text = client.get("/metrics").text
    found = re.search(
        rf'duration_seconds_count{{method="POST",route="{route}",status="{status}"}} (\d+)', text
    )
    return int(found[1]) if found else 0


def test_an_invalid_input_does_not_wait_in_line() -> None:
    """While the slot is taken, a wrong request hears so at once, and is counted as any other."""
    gate = Gate()
    door = Door(gallery("echo"), make=gate.engine)
    with door.open() as client:
        thread = threading.Thread(target=lambda: client.post("/run", json={"text": "x"}))
        thread.start()
        assert gate.entered.acquire(timeout=30)
        with httpx.Client(base_url=client.base_url, timeout=5) as other:
            for headers in ({}, {"content-type": "application/json"}):
                answer = other.post("/run", content=b'{"text": 1}', headers=headers)
                assert answer.status_code == 422
        gate.let_go.release()
        thread.join()
    failed = door.hears(lambda event: event.kind == "failed")
    assert isinstance(failed, events.Failed)
    assert failed.error["code"] == "input_invalid"


def test_the_process_lives_while_it_computes() -> None:
    """A probe is answered while a handler has the only slot."""
    gate = Gate()
    with Door(gallery("echo"), make=gate.engine).open() as client:
        thread = threading.Thread(target=lambda: client.post("/run", json={"text": "x"}))
        thread.start()
        assert gate.entered.acquire(timeout=30)
        assert httpx.get(f"{client.base_url}/livez").json() == {"status": "alive"}
        assert httpx.get(f"{client.base_url}/readyz").json()["status"] == "ready"
        gate.let_go.release()
        thread.join()


# --- clients that leave --------------------------------------------------------------------------


def _leave_when(client: httpx.Client, accept: str, body: bytes, door: Door) -> None:
    """Send a request on a socket of its own, and close it once the handler has started."""
    parts = urlsplit(str(client.base_url))
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as sock:
        sock.sendall(
            b"POST /run HTTP/1.1\r\nhost: x\r\naccept: %s\r\ncontent-length: %d\r\n\r\n%s"
            % (accept.encode(), len(body), body)
        )
        door.hears(lambda event: event.kind == "step" and event.job != "smoke")


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_nothing_is_computed_for_a_client_that_left(accept: str) -> None:
    """An execution stops at its next checkpoint when its client is gone, and the slot is free."""
    door = Door(gallery("slow"))
    with door.open() as client:
        _leave_when(client, accept, b'{"seconds": 60}', door)
        stopped = door.hears(lambda event: event.kind == "canceled")
        assert isinstance(stopped, events.Canceled)
        assert stopped.error["detail"] == "The client left."
        assert client.post("/run", json={"seconds": 0}).status_code == 200


def test_a_client_that_leaves_the_line_is_not_served() -> None:
    """A request whose client went away while it waited never reaches the handler."""
    gate = Gate()
    door = Door(gallery("echo"), make=gate.engine, line=1)
    with door.open() as client:
        thread = threading.Thread(target=lambda: client.post("/run", json={"text": "first"}))
        thread.start()
        assert gate.entered.acquire(timeout=30)
        with httpx.Client(base_url=client.base_url) as other:
            with pytest.raises(httpx.ReadTimeout):
                other.post("/run", json={"text": "second"}, timeout=0.3)
            until(lambda: _count(other, "/run", 499) == 1)
        gate.let_go.release()
        thread.join()
        gate.let_go.release()
        assert client.post("/run", json={"text": "third"}).json() == {"text": "third"}
    outputs = [e.output for e in door.heard if isinstance(e, events.Succeeded) and e.job != "smoke"]
    assert outputs == [{"text": "first"}, {"text": "third"}]


# --- deadlines -----------------------------------------------------------------------------------


def test_a_handler_that_looks_up_ends_at_its_deadline(tmp_path: Path) -> None:
    """A request past `limits.timeout` is answered 504, and the slot is free again."""
    handler = (
        "from threading import Event\ndef run(ctx, n):\n"
        "    while n:\n        ctx.check()\n        Event().wait(0.01)\n    return {}\n"
    )
    with Door(limited(tmp_path, handler, timeout="100ms")).open() as client:
        answer = client.post("/run", json={"n": 1})
        assert (answer.status_code, answer.json()["code"]) == (504, "timed_out")
        assert client.post("/run", json={}).status_code == 200


def test_a_handler_that_never_looks_up_is_given_up_on(tmp_path: Path) -> None:
    """The caller hears 504 although the thread is still busy, and no new work is taken until it is
    free; those who wait are sent away."""
    handler = (
        "import threading\nfree = threading.Event()\nin_it = threading.Event()\n"
        "def run(ctx, n):\n    if n:\n        in_it.set()\n        free.wait(30)\n    return {}\n"
    )
    one = limited(tmp_path, handler, timeout="200ms")
    with Door(one, late=0.1).open() as client:
        free, in_it = sys.modules["its"].free, sys.modules["its"].in_it
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(f"{client.base_url}/run", json={"n": 1}, timeout=30))

        first = threading.Thread(target=ask)
        first.start()
        assert in_it.wait(30)
        second = threading.Thread(target=ask)
        second.start()
        first.join()
        second.join()
        assert sorted(a.status_code for a in answers) == [503, 504]
        late = max(answers, key=lambda a: a.status_code).json()
        assert (late["code"], late["clock"]) == ("timed_out", "timeout")
        assert client.get("/readyz").status_code == 503
        assert client.get("/readyz").json()["status"] == "stuck"
        assert client.get("/livez").status_code == 200
        refused = client.post("/run", json={})
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        free.set()
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/run", json={}).status_code == 200


# --- the life of the door ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def living(app: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Lifetime]]:
    """Run an application's life without a port."""
    async with app.router.lifespan_context(app) as state:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client, state["lifetime"]


def test_a_door_that_loads_is_alive_and_not_ready() -> None:
    """While a model loads, `/livez` answers and `/readyz` says `loading`."""
    loading, measured = threading.Event(), Metrics()

    def make(one: Manifest, config: Any) -> Engine:
        assert loading.wait(30)
        return Engine(one, config)

    async def story() -> None:
        app = web.create(gallery("echo"), make=make, metrics=measured)
        async with living(app) as (client, _):
            assert (await client.get("/livez")).status_code == 200
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "loading")
            assert int(ready.headers["retry-after"]) > 0
            early = await client.post("/run", json={"text": "x"})
            assert (early.status_code, early.json()["code"]) == (503, "not_ready")
            assert int(early.headers["retry-after"]) > 0
            loading.set()
            await until_async(lambda: "nlp_worker_load_seconds{" in measured.render()[0].decode())
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.post("/run", json={"text": "x"})).status_code == 200

    asyncio.run(story())


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("fails_in_setup", "failed while it was set up"),
        ("fails_on_import", "while it was imported"),
    ],
)
def test_a_handler_that_cannot_be_used_ends_the_server_with_its_sentence(
    service: str, words: str
) -> None:
    """The process does not stay behind as one that will never be ready."""
    one = gallery(service)
    code = (
        "import sys\nfrom runner import manifest, server, web\n"
        "from runner.errors import RunnerError\n"
        f"one = manifest.load({str(one.path)!r})\n"
        "try:\n    server.serve(lambda: web.create(one), host='127.0.0.1', port=0)\n"
        "except RunnerError as error:\n    print(error.detail)\n    sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert words in done.stdout
    assert "Traceback" not in done.stderr


def test_an_example_that_fails_is_found_before_the_first_request(tmp_path: Path) -> None:
    """A door calls itself ready only after the manifest's first example has run."""
    handler = "def run(ctx, n):\n    return {'n': 1 / n}\n"
    one = limited(tmp_path, handler, examples=[{"title": "By zero", "input": {"n": 0}}])

    async def story() -> Lifetime:
        async with living(web.create(one)) as (client, lifetime):
            await until_async(lambda: lifetime.failure is not None)
            assert (await client.get("/readyz")).json()["status"] == "failed"
            return lifetime

    failure = asyncio.run(story()).failure
    assert isinstance(failure, HandlerInvalid)
    assert "`By zero`" in failure.detail


def test_loading_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    """`limits.startup` ends a door that never gets ready, and says so."""
    one = limited(tmp_path, "def run(ctx, n):\n    return {}\n", startup="100ms")
    never = threading.Event()

    def make(one: Manifest, config: Any) -> Engine:
        never.wait(30)
        return Engine(one, config)

    async def story() -> Lifetime:
        async with living(web.create(one, make=make)) as (_, lifetime):
            await until_async(lambda: lifetime.failure is not None)
            return lifetime

    failure = asyncio.run(story()).failure
    never.set()
    assert failure is not None
    assert "limits.startup" in failure.detail


def test_a_stopping_door_is_not_ready() -> None:
    """From the signal on, `/readyz` says `stopping`."""

    async def story() -> str:
        async with living(web.create(gallery("echo"))) as (client, lifetime):
            lifetime.stopping.set()
            answer = await client.get("/readyz")
            assert answer.status_code == 503
            return str(answer.json()["status"])

    assert asyncio.run(story()) == "stopping"


def test_the_handler_gives_back_what_it_took(tmp_path: Path) -> None:
    """A handler's `close` runs when the door ends."""
    handler = (
        "closed = []\nclass run:\n    def __init__(self, config): pass\n"
        "    def __call__(self, ctx, n): return {}\n    def close(self): closed.append(1)\n"
    )
    with Door(limited(tmp_path, handler)).open() as client:
        assert client.post("/run", json={}).status_code == 200
    assert sys.modules["its"].closed == [1]


def test_an_execution_that_outlives_the_grace_is_interrupted() -> None:
    """A stop does not wait for ever: the caller hears 503 and the handler stops."""
    door = Door(gallery("slow"))
    answers: list[httpx.Response] = []
    with server.background(door.app) as url:  # which has a grace of one second
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        ask = lambda: answers.append(httpx.post(f"{url}/run", json={"seconds": 60}, timeout=30))  # noqa: E731
        thread = threading.Thread(target=ask)
        thread.start()
        door.hears(lambda event: event.kind == "step" and event.job != "smoke")
    thread.join()
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "interrupted")
    assert door.hears(lambda event: event.kind == "failed").error["code"] == "interrupted"  # type: ignore[attr-defined]


# --- about itself --------------------------------------------------------------------------------


def test_the_door_shows_what_it_is() -> None:
    """From `/` a reader finds the manifest, the document and the page."""
    one = gallery("echo")

    async def story() -> None:
        async with living(web.create(one)) as (client, _):
            index = (await client.get("/")).json()
            assert (index["name"], index["version"]) == ("echo", "1.0.0")
            shown = (await client.get(index["links"]["manifest"])).json()
            assert shown == {"digest": one.digest, "manifest": one.document}
            document = await client.get(index["links"]["openapi.json"])
            assert document.json()["x-manifest-digest"] == one.digest
            again = await client.get(
                "/openapi.json", headers={"if-none-match": document.headers["etag"]}
            )
            assert again.status_code == 304
            page = await client.get(index["links"]["docs"])
            assert page.headers["content-type"].startswith("text/html")

    asyncio.run(story())


def test_what_the_door_does_is_measured() -> None:
    """Executions and requests appear under the agreed names."""
    measured = Metrics()
    door = Door(gallery("counts_steps"), metrics=measured)
    with door.open() as client:
        client.post("/run", json={"documents": ["a"]})
        text = client.get("/metrics").text
    labels = 'outcome="succeeded",reason="",service="counts-steps",version="1.0.0"'
    assert f"nlp_jobs_total{{{labels}}}" in text
    assert 'nlp_step_seconds_count{service="counts-steps",step="count"}' in text
    assert 'nlp_jobs_in_progress{service="counts-steps"} 0.0' in text
    assert (
        'http_request_duration_seconds_count{method="POST",route="/run",status="200"} 1.0' in text
    )


# --- in LinTO's words ----------------------------------------------------------------------------

SPLITS = """
class Splits:
    def __init__(self, config):
        self.warnings = ["The small model is used."]

    def __call__(self, ctx, documents, language, top_n):
        found = [{"words": text.split()[:top_n], "language": language} for text in documents]
        return {"documents": [one if one["words"] else {"error": {"detail": "No words."}}
                              for one in found]}
"""


def splitter(folder: Path, **limits: str | int) -> Manifest:
    """Write and load a service that speaks LinTO in the form `articles`."""
    one = limited(folder, SPLITS, **limits)
    texts = {"type": "array", "minItems": 1, "items": {"type": "string", "maxLength": 20}}
    document = {
        **one.document, "handler": "its:Splits", "type": "word_splitting",
        "languages": ["en", "fr"],
        "input": {"type": "object", "required": ["documents"], "properties": {
            "documents": texts,
            "language": {"type": "string", "default": "en"},
            "top_n": {"type": "integer", "minimum": 1, "default": 2},
        }},
        "output": {"type": "object", "properties": {"documents": {"type": "array"}}},
        "examples": [{"input": {"documents": ["a b"]}},
                     {"input": {"documents": ["a b"], "language": "fr"}}],
        "x-linto": {"name": "split", "parameters": {"words": "top_n", "verbose": None},
                    "document": "{tokens: words, lang: language}"},
    }  # fmt: skip
    assert one.path is not None
    one.path.write_text(json.dumps(document))
    return manifest.load(one.path)


def test_articles_are_answered_under_the_services_name(tmp_path: Path) -> None:
    """LinTO's callers get one object for each article, in order, the text first (K6)."""
    body = {
        "articles": [{"text": "a b c"}, {"text": "d"}],
        "component_cfg": {"split": {"words": 1}},
    }
    with Door(splitter(tmp_path)).open() as client:
        answer = client.post("/split/fr_FR", json=body)
    assert answer.status_code == 200
    assert answer.text == (
        '{"split":[{"text":"a b c","tokens":["a"],"lang":"fr"},'
        '{"text":"d","tokens":["d"],"lang":"fr"}]}'
    )
    assert answer.headers["x-job-id"]


def test_what_could_not_be_followed_is_in_the_answer(tmp_path: Path) -> None:
    """Parameters without effect and documents without result are told beside the results."""
    body = {"articles": [{"text": ""}], "component_cfg": {"split": {"verbose": True, "x": 1}}}
    with Door(splitter(tmp_path)).open() as client:
        answer = client.post("/split/*", json=body).json()
    assert answer["split"] == [{"text": "", "error": {"detail": "No words."}}]
    assert answer["warnings"] == [
        "The parameter `verbose` has no meaning here and was ignored.",
        "There is no parameter `x`; it was ignored. Known are: words, top_n.",
        "Document 1 has no result: No words.",
    ]


def test_documents_are_answered_with_a_list() -> None:
    """Keyword extraction answers a list of {keyword: score}, best first; a header warns."""
    door = Door(gallery("tags"))
    body = {"documents": ["b a b", ""], "config": {"method": "counts", "top_n": 5}}
    with door.open() as client:
        answer = client.post("/keyword_extraction", json=body)
        warned = client.post("/keyword_extraction", json={"documents": ["é"], "é": "\n"})
    assert answer.text == '[{"b":2,"a":1},{}]'
    assert "x-warnings" not in answer.headers
    assert warned.json() == [{"é": 1}]
    assert json.loads(warned.headers["x-warnings"]) == [
        "`é` in the request is not known and was ignored."
    ]


@pytest.mark.parametrize("body", ["{}", '{"articles": []}'])
def test_nothing_asked_is_nothing_answered(tmp_path: Path, body: str) -> None:
    """Absent articles are an empty list, as they were."""
    with Door(splitter(tmp_path)).open() as client:
        assert client.post("/split/fr", content=body).json() == {"split": []}


@pytest.mark.parametrize(
    ("path", "body", "status", "pointers"),
    [
        ("/split/fr", "{", 400, []),
        ("/split/fr", "[]", 422, [""]),
        ("/split/de", '{"articles": [{"text": "a"}]}', 422, ["/language"]),
        ("/split/de", "{}", 422, ["/language"]),
        ("/split/fr", '{"articles": [{"text": 1}]}', 422, ["/articles/0/text"]),
        ("/split/fr",
         '{"articles": [{"text": "a"}, {"text": "0123456789 0123456789"}],'
         ' "component_cfg": {"split": {"words": 0}}}', 422,
         ["/articles/1/text", "/component_cfg/split/words"]),
        ("/split", "{}", 404, []),
        ("/other/fr", "{}", 404, []),
    ],
)  # fmt: skip
def test_a_mistake_in_linto_s_words_is_told_in_them(
    tmp_path: Path, path: str, body: str, status: int, pointers: list[str]
) -> None:
    """Each mistake has its own status, and its place in what the caller wrote."""
    with Door(splitter(tmp_path)).open() as client:
        answer = client.post(path, content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert [one["pointer"] for one in answer.json().get("errors", [])] == pointers


def test_a_bare_text_is_not_read_letter_by_letter() -> None:
    """`documents` must be a list, and a list of texts."""
    with Door(gallery("tags")).open() as client:
        answer = client.post("/keyword_extraction", json={"documents": "abc"})
        asked = client.get("/keyword_extraction")
    assert answer.status_code == 422
    assert (asked.status_code, asked.headers["allow"]) == (405, "POST")


def test_linto_s_callers_share_the_line_and_the_story(tmp_path: Path) -> None:
    """The same execution as `/run`: heard by the same listeners, limited by the same manifest."""
    door = Door(splitter(tmp_path, max_body="200B"))
    with door.open() as client:
        done = client.post("/split/fr", json={"articles": [{"text": "a"}]})
        wrong = client.post("/split/fr", json={"articles": [{"text": "a" * 50}]})
        large = client.post("/split/fr", json={"articles": [{"text": "a" * 500}]})
        succeeded = door.hears(lambda event: event.kind == "succeeded")
        failed = door.hears(lambda event: event.kind == "failed")
    assert (wrong.status_code, large.status_code) == (422, 413)
    assert succeeded.job == done.headers["x-job-id"]
    assert failed.error["code"] == "input_invalid"  # type: ignore[attr-defined]


def test_a_failure_in_linto_s_words_is_the_same_failure() -> None:
    """A handler that raises is a 500 with its code, for LinTO's callers too."""
    body = {"documents": ["a"], "config": {"method": "fails"}}
    with Door(gallery("tags")).open() as client:
        answer = client.post("/keyword_extraction", json=body)
    assert (answer.status_code, answer.json()["code"]) == (500, "handler_error")


def test_linto_s_probe_is_answered(tmp_path: Path) -> None:
    """`/healthcheck` says OK while requests are taken, and 503 while the handler loads."""
    held = threading.Event()

    def slow(one: Manifest, config: Any) -> Engine:
        assert held.wait(timeout=30)
        return Engine(one, config)

    app = web.create(splitter(tmp_path), make=slow)
    with server.background(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        loading = client.get("/healthcheck")
        held.set()
        until(lambda: client.get("/healthcheck").status_code == 200)
        ready = client.get("/healthcheck")
    assert (loading.status_code, loading.json()) == (503, {"healthcheck": "loading"})
    assert ready.json() == {"healthcheck": "OK"}


def test_what_the_handler_warns_of_is_shown(tmp_path: Path, caplog: Any) -> None:
    """A handler that works with a fallback says so to whoever looks whether it is ready."""
    with Door(splitter(tmp_path)).open() as client:
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["warnings"]) == (200, ["The small model is used."])
    with Door(gallery("echo")).open() as client:
        assert "warnings" not in client.get("/readyz").json()
    said = [r for r in caplog.records if "The small model is used." in r.getMessage()]
    assert len(said) == 1


# --- fewer languages -----------------------------------------------------------------------------


def test_an_operator_may_narrow_the_languages(tmp_path: Path) -> None:
    """With `LANGUAGE=fr` only French is taken, and who names no language means it."""
    one = splitter(tmp_path)
    less = narrowed(one, ("fr-FR", "de"))
    assert (less.languages, less.digest) == (("fr",), one.digest)
    with Door(less).open() as client:
        silent = client.post("/run", json={"documents": ["a"]}).json()
        english = client.post("/run", json={"documents": ["a"], "language": "en"})
        linto = client.post("/split/en", json={"articles": [{"text": "a"}]})
        told = client.get("/manifest").json()
    assert silent["documents"][0]["language"] == "fr"
    assert (english.status_code, linto.status_code) == (422, 422)
    assert english.json()["errors"][0]["expected"] == ["fr"]
    assert told == {"digest": one.digest, "manifest": one.document}


def test_examples_in_other_languages_are_not_run(tmp_path: Path) -> None:
    """A process proves itself on an example that it would take."""
    less = narrowed(splitter(tmp_path), ("fr",))
    assert [example.input.get("language") for example in less.examples] == [None, "fr"]
    languages = narrowed(gallery("languages"), ("en",))
    assert [example.input for example in languages.examples] == [{}]


def test_no_narrowing_is_the_same_service(tmp_path: Path) -> None:
    """`*` changes nothing, nor does any word about a service that has no languages."""
    one = splitter(tmp_path)
    assert narrowed(one, ("*",)) is one
    echo = gallery("echo")
    assert narrowed(echo, ("fr",)) is echo


def test_a_narrowing_to_nothing_is_refused(tmp_path: Path) -> None:
    """A service that has none of the languages wanted does not start."""
    with pytest.raises(SettingInvalid, match="LANGUAGE: its has none of de; it has en, fr"):
        narrowed(splitter(tmp_path), ("de",))
