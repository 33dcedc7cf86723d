"""Nobody gets in who does not belong: every route of a real orchestrator, with and without keys."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import httpx
import invariants
import pytest
from openapi_spec_validator import validate
from stage import Stage, problem
from starlette.routing import BaseRoute, Mount

from runner.orchestrator import app
from runner.orchestrator.doors import Door
from runner.orchestrator.keys import SCOPES

OPEN_TO_ALL = {"/", "/docs", "/healthcheck", "/healthz", "/livez", "/openapi.json", "/readyz"}
"""The routes that ask nobody for a key, and beside them the files under /static."""

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>[a](javascript:alert(1))"
    "\"'><svg/onload=alert(1)>"
)


def table() -> list[BaseRoute]:
    """Return the routes of an orchestrator that is not running."""
    routes: list[BaseRoute] = app.create(
        app.Home("sqlite:///:memory:", "redis://127.0.0.1:1/0", "test", 1.0)
    ).routes
    return routes


DOORS = [route for route in table() if isinstance(route, Door)]
CLOSED = [door for door in DOORS if door.scope != "open"]
ABOUT_JOBS = [door for door in CLOSED if "{id}" in door.path]


def name_of(door: Door) -> str:
    """Return how a route is called among the tests."""
    return f"{door.verbs[0]} {door.path}"


def each(doors: list[Door]) -> Any:
    """Run a test once for every one of these routes."""
    return pytest.mark.parametrize("door", doors, ids=name_of)


once = pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
"""What has nothing to do with the database is tried on one of the two."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that the tests hold, by owner and by scope."""

    ada: str
    bob: str
    root: str
    only: dict[str, str]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stage(
    request: pytest.FixtureRequest, redis_url: str, until: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:  # fmt: skip
    """Give a platform that asks for keys, once on each database; it talks a lot in its log."""
    postgresql = request.param == "postgresql"
    database = request.getfixturevalue("postgres_databases")() if postgresql else ""
    with Stage(redis_url, tmp_path_factory.mktemp("doors"), until, database) as stage:
        stage.orchestrator(AUTH="on", LOG_LEVEL="debug")
        stage.worker("echo")
        stage.worker("slow")
        stage.worker("tags")
        stage.as_holder(stage.key("root", "admin"))
        stage.ready("echo", "slow", "tags")
        yield stage
        stage.sound()


@pytest.fixture(scope="module")
def keys(stage: Stage) -> Keys:
    """Give keys of two users, of an administrator, and one for each scope alone."""
    return Keys(
        ada=stage.key("ada"), bob=stage.key("bob"), root=stage.key("root", "admin"),
        only={scope: stage.key("ada", scope) for scope in SCOPES},
    )  # fmt: skip


def ask(stage: Stage, method: str, path: str, key: str | None, **how: Any) -> httpx.Response:
    """Send a request with this key and no other."""
    headers = {**how.pop("headers", {}), **({"authorization": f"Bearer {key}"} if key else {})}
    with httpx.Client(base_url=stage.http.base_url, timeout=30, trust_env=False) as http:
        return http.request(method, path, headers=headers, **how)


def knock(stage: Stage, door: Door, key: str | None, job_id: str = "nothing") -> httpx.Response:
    """Send a request to a route, with what it takes."""
    path = door.path.format(id=job_id, name="echo", delivery="any")
    body = {
        "/v1/services/{name}/jobs": {"text": "a"},
        "/v1/jobs": {"parts": {"echo": {"input": {"text": "a"}}}},
        "/nlp": {"documents": ["a"], "nlpConfig": {"keywordExtractionConfig": {}}},
    }
    (method,) = door.verbs
    return ask(stage, method, path, key, json=body.get(door.path) if method == "POST" else None)


def submit(stage: Stage, key: str, service: str = "echo", **inputs: Any) -> dict[str, Any]:
    """Submit a job that must be accepted, and return it, finished if it is a quick one."""
    wait = {"prefer": "wait=20"} if service == "echo" else {}
    path = f"/v1/services/{service}/jobs"
    answer = ask(stage, "POST", path, key, json=inputs or {"text": "mine"}, headers=wait)
    assert answer.status_code in (200, 202), answer.text
    job: dict[str, Any] = answer.json()
    return job


# --- what a route declares -----------------------------------------------------------------------


def test_every_route_declares_who_may() -> None:
    """A new route says its scope, or stands here by name among those that are open to all."""
    for route in table():
        if isinstance(route, Mount):
            assert route.path == "/static"
            continue
        assert isinstance(route, Door), f"{route} does not go through the gate"
        assert route.scope in (*SCOPES, "open"), f"{name_of(route)} declares no scope"
        assert (route.scope == "open") == (route.path in OPEN_TO_ALL), name_of(route)
        # Jobs are looked up for their callers by this name, see Door; a delivery is one of a job.
        names = re.findall(r"\{(\w+)\}", route.path)
        assert names in ([], ["id"], ["name"], ["id", "delivery"]), name_of(route)


def test_a_route_that_declares_nothing_opens_to_admins_alone() -> None:
    """What is forgotten is closed, not open."""
    it: Any = None
    endpoint: Any = None
    assert Door(it, "GET", "/new", endpoint).scope is None


# --- without a key -------------------------------------------------------------------------------


@once
@each(CLOSED)
def test_without_a_key_there_is_nothing(stage: Stage, door: Door) -> None:
    """Every route but the open ones answers 401 and how to do better, whatever else is wrong."""
    for key in (None, "nonsense", f"nlp_{'0' * 16}_{'0' * 40}"):
        answer = knock(stage, door, key)
        assert "Bearer" in problem(answer, 401, "unauthenticated")["detail"] or key
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["cache-control"] == "no-store"


@once
@each([door for door in DOORS if door.scope == "open"])
def test_what_is_open_is_open(stage: Stage, door: Door) -> None:
    """Health, documentation and the table of contents need no key."""
    assert knock(stage, door, None).status_code == 200
    assert ask(stage, "GET", "/static/docs.js", None).status_code == 200


@once
def test_a_key_in_the_address_is_no_key(stage: Stage, keys: Keys) -> None:
    """Addresses end in logs and histories, so a key in one opens nothing, whatever it is called."""
    for name in ("api_key", "key", "token", "access_token", "X-API-Key"):
        answer = ask(stage, "GET", f"/v1/jobs?{name}={keys.root}", None)
        problem(answer, 401, "unauthenticated")
        assert keys.root not in answer.text


@once
def test_a_refused_body_is_not_read(stage: Stage) -> None:
    """Whoever has no key is refused before a byte of his body is wanted."""
    began = time.monotonic()
    answer = ask(stage, "POST", "/v1/services/echo/jobs", None, content=b"[" * 5_000_000)
    problem(answer, 401, "unauthenticated")
    assert time.monotonic() - began < 5


# --- scopes --------------------------------------------------------------------------------------


@once
@each(CLOSED)
def test_a_scope_opens_its_own_routes_only(stage: Stage, keys: Keys, door: Door) -> None:
    """A key without the scope of a route gets 403 and its name; with it, or `admin`, one is in."""
    for scope, key in keys.only.items():
        answer = knock(stage, door, key)
        if scope in (door.scope, "admin"):
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert problem(answer, 403, "forbidden")["scope"] == door.scope


# --- two users -----------------------------------------------------------------------------------


def neutral(answer: httpx.Response, job_id: str) -> str:
    """Return an answer without what differs from request to request."""
    text = answer.text.replace(job_id, "ID")
    return f"{answer.status_code} " + re.sub(r'"request_id":"\w+"', "", text)


@each(ABOUT_JOBS)
@pytest.mark.parametrize("kind", ["single", "whole", "part", "running"])
def test_nobody_reaches_anothers_job(stage: Stage, keys: Keys, door: Door, kind: str) -> None:
    """On every route, another's job is as if it were not there, and stays as it was."""
    if kind == "running":
        job_id = submit(stage, keys.ada, "slow", seconds=0.6)["id"]
    elif kind == "single":
        job_id = submit(stage, keys.ada)["id"]
    else:
        body = {"parts": {"echo": {"input": {"text": "a"}}}}
        whole = ask(
            stage, "POST", "/v1/jobs", keys.ada, json=body, headers={"prefer": "wait=20"}
        ).json()
        job_id = whole["id"] if kind == "whole" else whole["parts"]["echo"]["id"]
    answer = knock(stage, door, keys.bob, job_id)
    assert answer.status_code == 404
    assert neutral(answer, job_id) == neutral(knock(stage, door, keys.bob, "f" * 32), "f" * 32)
    still = ask(stage, "GET", f"/v1/jobs/{job_id}?wait=20", keys.ada).json()
    assert (still["status"], still["cancel_requested_at"]) == ("succeeded", None)
    mine = knock(stage, door, keys.ada, job_id)
    assert mine.status_code in (200, 201, 202, 204) or mine.json()["code"] in (
        "job_finished", "part_of_job", "webhook_unknown",
    ), mine.text  # fmt: skip


def test_what_was_done_for_one_answers_no_other(stage: Stage, keys: Keys) -> None:
    """A key or an input that another has used before leads to nothing of his."""
    for terms in ({"idempotency-key": "theirs"}, {"cache-control": "max-age=600"}):
        told, text = {**terms, "prefer": "wait=20"}, f"ours under {terms}"
        answers = [
            ask(stage, "POST", "/v1/services/echo/jobs", key, json={"text": text}, headers=told)
            for key in (keys.ada, keys.bob, keys.bob)
        ]
        assert [answer.status_code for answer in answers] == [200] * 3
        ada, bob, again = (answer.json() for answer in answers)
        assert bob["id"] != ada["id"]
        assert bob["reused_from"] != ada["id"]
        assert "idempotent-replayed" not in answers[1].headers
        assert bob["id"] in (again["id"], again["reused_from"]), again


def test_lists_hold_ones_own_jobs(stage: Stage, keys: Keys) -> None:
    """Whatever is asked for, a list holds only the caller's; an administrator may choose whose."""
    ada, bob = submit(stage, keys.ada)["id"], submit(stage, keys.bob)["id"]

    def listed(key: str, query: str = "") -> set[str]:
        answer = ask(stage, "GET", f"/v1/jobs?limit=200{query}", key)
        assert answer.status_code == 200, answer.text
        return {job["id"] for job in answer.json()["jobs"]}

    assert ada in listed(keys.ada)
    for query in ("", "&service=echo", "&status=succeeded", "&owner=bob"):
        assert bob in listed(keys.bob, query)
        assert ada not in listed(keys.bob, query)
    assert {ada, bob} <= listed(keys.root)
    assert ada in listed(keys.root, "&owner=ada")
    assert bob not in listed(keys.root, "&owner=ada")
    refused = problem(ask(stage, "GET", "/v1/jobs?owner=ada", keys.bob), 403, "forbidden")
    assert refused["scope"] == "admin"


def test_a_cursor_of_anothers_page_shows_nothing_of_it(stage: Stage, keys: Keys) -> None:
    """A page that goes on where another's list stopped holds the caller's own jobs."""
    for _ in range(3):
        submit(stage, keys.ada)
    cursor = ask(stage, "GET", "/v1/jobs?limit=1", keys.ada).json()["next_cursor"]
    page = ask(stage, "GET", f"/v1/jobs?limit=200&cursor={cursor}", keys.bob).json()["jobs"]
    for job in page:
        assert ask(stage, "GET", f"/v1/jobs/{job['id']}", keys.bob).status_code == 200


def test_an_administrator_sees_and_ends_everything(stage: Stage, keys: Keys) -> None:
    """`admin` reaches the jobs of all owners, also to cancel and to erase them."""
    job = submit(stage, keys.ada, "slow", seconds=50)
    path = f"/v1/jobs/{job['id']}"
    assert ask(stage, "GET", path, keys.root).status_code == 200
    assert ask(stage, "POST", f"{path}/cancel", keys.root).status_code in (200, 202)
    ended = ask(stage, "GET", f"{path}?wait=20", keys.ada).json()
    assert ended["status"] == "canceled"
    assert ask(stage, "DELETE", path, keys.root).status_code == 204
    problem(ask(stage, "GET", path, keys.ada), 404, "job_unknown")


def test_lintos_calls_work_with_a_key(stage: Stage, keys: Keys) -> None:
    """A LinTO client that sends its key gets its own results, and another an unknown job."""
    body = {"documents": ["zebra apple zebra"], "nlpConfig": {"keywordExtractionConfig": {}}}
    job_id = ask(stage, "POST", "/nlp", keys.ada, json=body).json()["jobid"]
    stage.until(lambda: ask(stage, "GET", f"/job/{job_id}", keys.ada).status_code == 201, 30)
    found = ask(stage, "GET", f"/results/{job_id}", keys.ada)
    assert found.json()["keyword_extraction"] == [{"zebra": 2, "apple": 1}]
    assert found.headers["cache-control"] == "no-store"
    foreign = ask(stage, "GET", f"/job/{job_id}", keys.bob)
    assert (foreign.status_code, foreign.json()["state"]) == (404, "failed")


# --- keys that end -------------------------------------------------------------------------------


def test_a_revoked_key_stops_within_five_seconds(stage: Stage) -> None:
    """The command that revokes a key shuts it out of an orchestrator that runs."""
    key = stage.key("leaver")
    assert ask(stage, "GET", "/v1/jobs", key).status_code == 200
    stage.revoke(key)
    began = time.monotonic()
    stage.until(lambda: ask(stage, "GET", "/v1/jobs", key).status_code == 401, 5, "the end")
    assert time.monotonic() - began < 5


# --- what others see -----------------------------------------------------------------------------


def test_nothing_of_a_secret_is_written_down(stage: Stage, keys: Keys) -> None:
    """Neither the logs of all processes nor the table of keys nor any answer holds a secret, and
    no log holds a text.
    """
    canary = "c4n4ry-t3xt"
    job = submit(stage, keys.ada, text=canary)
    token = stage.key("eve")
    half = token.rpartition("_")[2]
    forged = f"nlp_{token.split('_')[1]}_{'ab' * 20}"
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/services/echo/jobs"), ("GET", "/no")):
        for key in (token, forged, f"nlp_{canary}"):
            answer = ask(stage, method, f"{path}?key={key}", key, json={"text": 7, canary: canary})
            assert key not in answer.text.replace(f"nlp_{canary}", "")
    assert ask(stage, "GET", f"/v1/jobs/{job['id']}/result", keys.ada).status_code == 200
    secrets = [half, "ab" * 20, canary, *(k.rpartition("_")[2] for k in keys.only.values())]
    said = "".join(part.said() for part in stage.parts)
    assert "refused key" in said
    assert [secret for secret in secrets if secret in said] == []
    table = invariants.rows(stage.database, "SELECT * FROM api_key")
    kept = [value for row in table for value in row]
    assert len(kept) > 8
    assert [secret for secret in secrets if any(secret in str(value) for value in kept)] == []


@once
def test_the_document_says_which_key_opens_what(stage: Stage) -> None:
    """The OpenAPI document is valid, and each operation names its scope, or that it has none."""
    document = ask(stage, "GET", "/openapi.json", None).json()
    validate(document)
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, item in document["paths"].items():
        for method in item.keys() & {"get", "post", "delete"}:
            operation = item[method]
            plain = re.sub("^/v1/services/[a-z-]+/jobs$", "/v1/services/{name}/jobs", path)
            (door,) = [d for d in DOORS if (d.path, d.verbs[0].lower()) == (plain, method)]
            if door.scope == "open":
                assert operation["security"] == []
            else:
                assert operation["security"] == [{"bearer": [door.scope]}, {"header": [door.scope]}]
                assert {"401", "403"} <= set(operation["responses"])


@once
@each([door for door in DOORS if "GET" in door.verbs])
def test_no_answer_helps_another_site(stage: Stage, keys: Keys, door: Door) -> None:
    """Every answer, refused or not, forbids sniffing, framing and embedding, and offers no CORS;
    what needs a key is kept by no cache.
    """
    for key in (None, keys.ada):
        headers = knock(stage, door, key).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert not [name for name in headers if name.startswith("access-control-")]
        if door.scope != "open":
            assert headers["cache-control"] in ("no-store", "private, no-cache")


class Page(HTMLParser):
    """What of an HTML page a browser would run or load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loaded: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a script, a handler in an attribute, and a source."""
        self._in_script = tag == "script"
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.inline.append(f"{name}={value}")
            if name == "src":
                self.loaded.append(value or "")

    def handle_data(self, data: str) -> None:
        """Note what stands inside a script."""
        if self._in_script and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        """Leave a script."""
        self._in_script = False


@once
def test_hostile_words_of_a_manifest_run_nowhere(stage: Stage) -> None:
    """A manifest whose title and texts are scripts is shown by /docs, and none of them can run:
    the page holds no word of it and no inline script, its policy forbids any, and the document it
    loads can be taken for nothing but JSON.
    """
    path = stage.variant(
        "echo", "hostile", summary=HOSTILE, description=HOSTILE,
        examples=[{"title": HOSTILE, "input": {"text": HOSTILE}, "output": {"text": HOSTILE}}],
    )  # fmt: skip
    worker = stage.worker(path)
    stage.ready("hostile")
    answer = ask(stage, "GET", "/openapi.json", None)
    assert HOSTILE in json.dumps(answer.json(), ensure_ascii=False).replace('\\"', '"')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    docs = ask(stage, "GET", "/docs", None)
    assert "alert" not in docs.text
    page = Page(docs.text)
    assert page.inline == []
    assert page.loaded
    assert all(src.startswith("static/") for src in page.loaded)
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in docs.headers["content-security-policy"].split(";")
    )
    assert policy.get("script-src", policy["default-src"]) == "'self'"
    assert policy["object-src"] == policy["base-uri"] == "'none'"
    for path_ in ("/v1/services", "/v1/services/hostile", "/list-services"):
        kind = stage.http.get(path_).headers["content-type"]
        assert kind == "application/json"
    worker.stop()
    worker.wait()


# --- servers that ask for no keys ----------------------------------------------------------------


def test_on_loopback_nobody_needs_a_key(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By default a server on loopback is open to this machine, and to no page of another site."""
    with Stage(redis_url, tmp_path_factory.mktemp("local"), until) as stage:
        part = stage.orchestrator()
        until(lambda: "listening" in part.said() and not stage.services(), 20)
        until(lambda: _answers(stage), 20, "an answer")
        assert stage.http.get("/v1/jobs").json()["jobs"] == []
        assert "securitySchemes" not in stage.http.get("/openapi.json").json()["components"]
        for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
            problem(stage.http.get("/v1/jobs", headers=headers), 403, "forbidden")
            assert stage.http.get("/livez", headers=headers).status_code == 200
        stage.sound()


def test_on_every_address_keys_are_asked_for(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A server that others reach asks for keys unless told not to, and then says so loudly."""
    with Stage(redis_url, tmp_path_factory.mktemp("wide"), until) as stage:
        part = stage.orchestrator(HOST="0.0.0.0")
        until(lambda: _answers(stage), 20, "an answer")
        problem(stage.http.get("/v1/jobs"), 401, "unauthenticated")
        assert "NOBODY" not in part.said()
        part.stop()
        part.wait()
        part = stage.orchestrator(HOST="0.0.0.0", AUTH="off")
        until(lambda: _answers(stage), 20, "an answer")
        assert stage.http.get("/v1/jobs", headers={"host": "nlp.example"}).status_code == 200
        assert "NOBODY IS ASKED FOR A KEY" in part.said()
        stage.sound()


def _answers(stage: Stage) -> bool:
    try:
        return stage.http.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
