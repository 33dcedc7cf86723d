"""What anybody could write into the registry: it is quarantined, and nobody else feels it."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from stage import SEAL, Stage, gallery

from runner.manifest import digest_of

SCRIPT = "<script>alert(1)</script>"


@dataclass
class Listener:
    """A port that nobody has reason to call."""

    url: str
    calls: int = 0


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    """Give a listening socket that counts who calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Listener(f"http://127.0.0.1:{server.getsockname()[1]}")

        def listen() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return
                found.calls += 1

        threading.Thread(target=listen, daemon=True).start()
        yield found


def nested(depth: int) -> dict[str, Any]:
    """Return a schema so many levels deep."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def announce(stage: Stage, document: Any, *, name: str = "", raw: bytes = b"") -> None:
    """Write an instance and its manifest into the registry, as a worker does."""
    version = document.get("version", "1.0.0")
    name = name or document["name"]
    body = raw or json.dumps(document).encode()
    digest = hashlib.sha256(body).hexdigest() if raw else digest_of(document)
    record = {
        "instance": f"rogue-{name}", "service": name, "version": version, "digest": digest,
        "state": "ready", "slots": 5, "host": SCRIPT, "pid": 1, "started_at": time.time(),
        "warnings": [SCRIPT], "seal": SEAL,  # which whoever reads Redis can say after a worker
    }  # fmt: skip
    key = f"{stage.namespace}:instance:{name}:rogue-{name}"
    stage.redis.set(f"{stage.namespace}:manifest:{digest}", body, ex=600)
    stage.redis.set(key, json.dumps(record), ex=600)
    stage.redis.sadd(f"{stage.namespace}:instances", key)
    stage.redis.publish(f"{stage.namespace}:registry", key)


@pytest.fixture(scope="module")
def stage(
    redis_url: str,
    until: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    listener: Listener,
) -> Iterator[Stage]:
    """Give a platform that serves one service, and every rogue in its registry."""
    with Stage(redis_url, tmp_path_factory.mktemp("rogues"), until) as stage:
        stage.orchestrator()
        stage.worker("echo")
        stage.ready("echo")
        sound = gallery("echo").document

        def rogue(name: str, **changes: Any) -> dict[str, Any]:
            return {**sound, "name": name, "examples": [], **changes}

        def takes(schema: dict[str, Any]) -> dict[str, Any]:
            return {"type": "object", "properties": {"text": schema}}

        huge = rogue("huge", description="x" * 10_000_000)
        announce(stage, huge, raw=json.dumps(huge).encode())
        deep = b'{"name": "deep", "input": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001
        announce(stage, {"name": "deep"}, raw=deep)
        announce(stage, rogue("deep-schema", input=nested(300)))
        announce(stage, rogue("fetches", input=takes({"$ref": f"{listener.url}/schema.json"})))
        announce(stage, rogue("fetches-out", output={"$ref": f"{listener.url}/schema.json"}))
        announce(stage, rogue("names-itself", input={"$id": listener.url, **takes({"$ref": "a"})}))
        announce(stage, rogue("reads", input=takes({"$ref": "file:///etc/passwd"})))
        announce(stage, rogue("redos", input=takes({"type": "string", "pattern": "^(a+)+$"})))
        announce(stage, rogue("looks", input=takes({"pattern": "(?=.*a)(?!.*b)"})))
        announce(stage, rogue("runs", handler="os:system"))
        announce(stage, rogue("script", summary=SCRIPT, description=SCRIPT))
        announce(stage, {**sound, "summary": "Another one."}, name="echo")
        announce(stage, rogue("lies"), name="told")
        announce(stage, {"name": "nan"}, raw=b'{"name": "nan", "version": NaN}')
        announce(stage, {"name": "twice"}, raw=b'{"name": "twice", "name": "echo"}')
        announce(stage, {"name": "scalar"}, raw=b"5")
        yield stage


REFUSED = (
    "huge", "deep", "deep-schema", "fetches", "fetches-out", "names-itself", "reads", "looks",
    "told", "nan", "twice", "scalar",
)  # fmt: skip


def quarantined(stage: Stage) -> dict[str, str]:
    """Return the services that are in quarantine, each with the reason."""
    listed = stage.http.get("/v1/services").json()["quarantined"]
    return {member["service"]: member["error"] for member in listed}


@pytest.mark.parametrize("name", REFUSED)
def test_a_rogue_is_quarantined(stage: Stage, name: str) -> None:
    """A manifest that is too large, too deep, fetches, reads or lies serves nothing, and says
    why in a sentence."""
    stage.until(lambda: name in quarantined(stage), 20, f"{name} in quarantine")
    reason = quarantined(stage)[name]
    assert 10 < len(reason) < 1000
    assert "root:" not in reason
    answer = stage.http.post(f"/v1/services/{name}/jobs", json={"text": "a"})
    assert answer.status_code in (404, 503), answer.text


def test_a_second_manifest_of_a_version_is_quarantined(stage: Stage) -> None:
    """Who comes later with another manifest under a version in use does not get its jobs."""

    def members() -> list[str]:
        entry = stage.http.get("/v1/services/echo").json()
        return [worker["state"] for worker in entry["workers"]]

    stage.until(lambda: sorted(members()) == ["quarantined", "ready"], 20, "the newcomer's place")
    assert stage.run("echo", {"text": "b"})["output"] == {"text": "b"}


def test_nobody_else_feels_it(stage: Stage, listener: Listener) -> None:
    """The sound service answers quickly, nothing was fetched, and the orchestrator rests."""
    before = psutil.Process(stage.parts[0].pid).cpu_times()
    began = time.monotonic()
    for number in range(5):
        assert stage.run("echo", {"text": str(number)})["status"] == "succeeded"
    threading.Event().wait(3)
    after = psutil.Process(stage.parts[0].pid).cpu_times()
    spent = after.user + after.system - before.user - before.system
    assert spent < (time.monotonic() - began) / 2
    assert listener.calls == 0


def test_a_slow_pattern_is_not_slow_here(stage: Stage, listener: Listener) -> None:
    """A pattern that takes ages elsewhere refuses its text at once."""
    stage.until(lambda: "redos" in {s["name"] for s in stage.services()}, 20)
    began = time.monotonic()
    answer = stage.http.post("/v1/services/redos/jobs", json={"text": "a" * 5000 + "!"})
    assert answer.status_code == 422
    assert time.monotonic() - began < 2
    assert listener.calls == 0


def test_a_named_function_is_only_a_name(stage: Stage) -> None:
    """A handler `os:system` is imported nowhere: its job waits for a worker that never asks."""
    stage.until(lambda: "runs" in {s["name"] for s in stage.services()}, 20)
    job = stage.submit("runs", {"text": f"touch {stage.folder}/owned"})
    assert stage.run("echo", {"text": "c"})["status"] == "succeeded"
    assert stage.job(job["id"])["status"] == "queued"
    assert stage.http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    assert not (stage.folder / "owned").exists()


def test_a_script_is_only_a_text(stage: Stage) -> None:
    """HTML in names and sentences arrives as JSON that no browser takes for a page."""
    stage.until(lambda: "script" in {s["name"] for s in stage.services()}, 20)
    for path in ("/v1/services", "/v1/services/script", "/openapi.json", "/list-services"):
        answer = stage.http.get(path)
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert SCRIPT not in stage.http.get("/docs").text
    stage.sound()
