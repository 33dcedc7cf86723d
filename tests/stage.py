"""A stage for tests of several parts: real workers and orchestrators, and what callers do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import invariants
import pytest
import redis

from runner import embedded
from runner import manifest as manifests
from runner.broker import queue_name
from runner.manifest import Manifest
from runner.seal import Seal

GALLERY = Path(__file__).parent / "gallery"
SECRET = "the secret of the stage"
SEAL = Seal(SECRET).fingerprint
TERMINAL = ("succeeded", "failed", "canceled")

TRACEBACK = "Traceback (most recent call last):"

Event = tuple[str | None, str, Any]
"""One event of a stream: its id, its name and its data."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the product, with all that it prints in a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The id of its main process."""
        return self.process.pid

    @property
    def children(self) -> list[int]:
        """The ids of the processes that it has forked and that are still there."""
        try:
            return [int(pid) for pid in _read(f"/proc/{self.pid}/task/{self.pid}/children").split()]
        except OSError:
            return []

    def said(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text("utf-8", "replace")

    def stop(self) -> None:
        """Ask it to stop, as a container's host does."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self, pid: int | None = None) -> None:
        """End it, or one of its children, without a chance to say a word."""
        os.kill(pid or self.pid, signal.SIGKILL)

    def wait(self, within: float = 30.0) -> int:
        """Return its exit status once it has ended."""
        return self.process.wait(within)


class Stage:
    """One deployment on a Redis and a SQLite of its own; use it as a context manager.

    `until` is the fixture of that name. Parts that still run at the end are ended.
    """

    def __init__(
        self, redis_url: str, folder: Path, until: Callable[..., Any], database: str = ""
    ) -> None:
        self.redis_url, self.folder, self.until = redis_url, folder, until
        self.namespace = f"stage-{uuid.uuid4().hex[:12]}"
        self.database = database or f"sqlite:///{folder}/jobs.db"
        self.parts: list[Part] = []
        self.accepted: list[str] = []
        self.redis = redis.Redis.from_url(redis_url)
        # Every test wants its own work done, unless it says otherwise.
        anew = {"cache-control": "no-cache"}
        self.http = httpx.Client(timeout=30, trust_env=False, headers=anew)
        self.port = embedded.free_port()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self.parts:
            if part.process.poll() is None:
                part.kill()
                part.wait()
        self.http.close()
        self.redis.close()

    # --- parts -----------------------------------------------------------------------------------

    def orchestrator(self, **settings: object) -> Part:
        """Start an orchestrator on the stage's port; `settings` are those of the environment."""
        part = self._start("orchestrator", ["orchestrator"], settings)
        self.http.base_url = httpx.URL(f"http://127.0.0.1:{self.port}")
        return part

    def key(self, owner: str, *scopes: str) -> str:
        """Make a key with the command that operators use, on the stage's database."""
        words = [word for scope in scopes for word in ("--scope", scope)]
        return self._keys("create", "--owner", owner, *words)

    def revoke(self, key: str) -> None:
        """Revoke a key with the command."""
        self._keys("revoke", key)

    def _keys(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "runner", "keys", *words],
            cwd=self.folder, env={**os.environ, "DATABASE_URL": self.database},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def as_holder(self, key: str) -> None:
        """Send this key with everything that the stage asks from now on."""
        self.http.headers["authorization"] = f"Bearer {key}"

    def worker(self, manifest: str | Path, **settings: object) -> Part:
        """Start a worker of a manifest, or of that name in the gallery."""
        path = manifest if isinstance(manifest, Path) else GALLERY / f"{manifest}.yaml"
        arguments = ["--manifest", str(path), "--mode", "worker"]
        return self._start(path.stem, arguments, settings)

    def variant(self, stem: str, name: str, **changes: Any) -> Path:
        """Write a manifest like one of the gallery, under another name and with other keys."""
        home = self.folder / "gallery"
        if not home.exists():
            home.symlink_to(GALLERY)
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({**gallery(stem).document, "name": name, **changes}))
        return path

    def _start(self, name: str, arguments: list[str], settings: Mapping[str, object]) -> Part:
        log = self.folder / f"{len(self.parts):02}-{name}.log"
        environ = {
            **os.environ,
            "SERVICES_BROKER": self.redis_url,
            "NAMESPACE": self.namespace,
            "WIRE_SECRET": SECRET,
            "DATABASE_URL": self.database,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "SHUTDOWN_GRACE": "2",
            "PYTHONUNBUFFERED": "1",
            **{key: str(value) for key, value in settings.items()},
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "runner", *arguments],
                cwd=self.folder, env=environ, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        part = Part(name, process, log)
        self.parts.append(part)
        return part

    def ready(self, *services: str, within: float = 60.0) -> None:
        """Wait until the orchestrator says that these services are available."""
        waits = {name.replace("_", "-") for name in services}

        def look() -> bool:
            for part in self.parts:
                assert part.process.poll() in (None, 0, 3, -9), f"{part.name} died:\n{part.said()}"
            return waits <= {s["name"] for s in self.services() if s["status"] == "available"}

        self.until(look, within, f"{', '.join(sorted(waits))} to be available")

    def services(self) -> list[dict[str, Any]]:
        """Return what the orchestrator lists, or nothing while it does not answer."""
        with contextlib.suppress(httpx.TransportError):
            found: list[dict[str, Any]] = self.http.get("/v1/services").json()["services"]
            return found
        return []

    def sound(self, but: str = "") -> None:
        """Fail if a part has met an error that nobody expected; a handler's own is expected.

        `but` names parts that are left out.
        """
        for part in self.parts:
            said = part.said()
            ours = said.replace(f" raised\n{TRACEBACK}", "")
            assert part.name == but or TRACEBACK not in ours, f"{part.name} said:\n{said[-4000:]}"

    # --- what callers do -------------------------------------------------------------------------

    def submit(self, service: str, inputs: Any = None, **headers: str) -> dict[str, Any]:
        """Submit a job that must be accepted, and return it; it is worked on anew by default."""
        headers = {"cache-control": "no-cache", **headers}
        answer = self.http.post(f"/v1/services/{service}/jobs", json=inputs or {}, headers=headers)
        assert answer.status_code in (200, 202), answer.text
        job: dict[str, Any] = answer.json()
        self.accepted.append(job["id"])
        return job

    def job(self, job_id: str, wait: float = 0) -> dict[str, Any]:
        """Return a job as it stands, or once it has finished, within `wait` seconds."""
        answer = self.http.get(f"/v1/jobs/{job_id}", params={"wait": wait} if wait else {})
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def finished(self, job_id: str, within: float = 60.0) -> dict[str, Any]:
        """Return a job once it has finished."""

        def look() -> dict[str, Any] | None:
            with contextlib.suppress(httpx.TransportError):
                job = self.job(job_id, wait=5)
                return job if job["status"] in TERMINAL else None
            return None

        job: dict[str, Any] = self.until(look, within, f"the end of job {job_id}")
        return job

    def running(self, job_id: str, within: float = 30.0) -> dict[str, Any]:
        """Return a job once a worker runs it."""
        job: dict[str, Any] = self.until(
            lambda: (now := self.job(job_id))["status"] == "running" and now,
            within, f"the start of job {job_id}",
        )  # fmt: skip
        return job

    def runner(self, job_id: str) -> Part:
        """Return the worker that runs a job now, once there is one."""
        self.running(job_id)
        pid = self.runner_pids(job_id)[-1]
        return next(part for part in self.parts if part.pid == pid)

    def runner_pids(self, job_id: str) -> list[int]:
        """Return the ids of the workers that have started a job, the first first."""
        entries: Any = self.redis.xrange(f"{self.namespace}:live:{job_id}")
        told = [json.loads(fields[b"event"]) for _, fields in entries]
        starts = [event for event in told if event["event"] == "started"]
        return [int(event["worker"].rpartition("-")[2]) for event in starts]

    def run(self, service: str, inputs: Any = None) -> dict[str, Any]:
        """Submit a job and return it finished, with its `output` where it has one."""
        job = self.submit(service, inputs, prefer="wait=30")
        assert job["status"] in TERMINAL, job
        return job

    def story(self, job_id: str, **headers: str) -> list[Event]:
        """Follow a job to the end of its stream, and return all that was told."""
        return list(self.follow(job_id, **headers))

    def follow(self, job_id: str, **headers: str) -> Iterator[Event]:
        """Yield the events of a job's stream."""
        with self.http.stream(
            "GET", f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream", **headers}
        ) as answer:
            assert answer.status_code == 200, answer.read()
            yield from read_sse(answer.iter_lines())

    # --- what nobody may see broken --------------------------------------------------------------

    def history(self, job_id: str) -> list[tuple[str, str | None, int]]:
        """Return (status, reason, attempt) of every change of a job, from the database."""
        sql = "SELECT status, reason, attempt FROM transition WHERE job_id = ? ORDER BY revision"
        return invariants.rows(self.database, sql, job_id)

    def check(self, *, within: float = 20.0, most: int = 9, whole: bool = False) -> None:
        """Fail unless all invariants hold, at the latest `within` seconds from now.

        `most` is how often one job may have been started; `whole` says that `accepted` names all
        jobs that there are.
        """

        def broken() -> list[str]:
            seen = invariants.Seen(self.accepted if whole else None, self.starts(), most)
            found = invariants.violations(invariants.facts(self.database), seen)
            return found + invariants.left_over(self.redis, self.namespace)

        with contextlib.suppress(pytest.fail.Exception):
            self.until(lambda: not broken(), within)
            return
        pytest.fail("\n".join(broken()[:20]))

    def starts(self) -> dict[str, int]:
        """Return how often each job was started, for jobs whose story is still told."""
        return invariants.starts(self.redis, self.namespace, self.accepted)

    def messages(self, manifest: Manifest) -> int:
        """Return how many messages wait in the queue of a manifest."""
        queue = queue_name(manifest.name, manifest.digest, SEAL)
        return int(self.redis.llen(f"{self.namespace}:{queue}"))


def gallery(name: str) -> Manifest:
    """Read one manifest of the gallery."""
    return manifests.load(GALLERY / f"{name}.yaml")


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the problem document of an answer that must be this one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["detail"]
    return document


def read_sse(lines: Iterator[str]) -> Iterator[Event]:
    """Read Server-Sent Events as a browser does."""
    number: str | None = None
    name = data = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "id":
            number = value
        elif field == "event":
            name = value
        elif field == "data":
            data = value
        elif not line and name:
            yield number, name, json.loads(data)
            number, name, data = None, "", ""


def _read(path: str) -> str:
    return Path(path).read_text()
