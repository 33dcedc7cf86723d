"""The whole job, from its submission until its result is there, beside a bare Celery round trip.

`python -m bench.whole_job`: an orchestrator on SQLite with one worker, and a lean Celery worker
with Redis results, called in turns. They share one embedded Redis that keeps what it is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import celery.exceptions
import httpx

from bench import client, machine
from bench.client import Post
from bench.load import Load
from bench.process import ROOT, bounded, cpu_seconds, running
from bench.ratio import Contestant, Figures, compare, read_arguments
from bench.services import bare_celery
from bench.services.echo import INPUT, run
from runner import embedded

SERVICE = "bench-echo"
WAIT = 20
"""Seconds that one result may take."""


class Side(NamedTuple):
    """One side: how it is loaded (callers, seconds), and the sessions that work for it."""

    load: Callable[[int, float], Load]
    sessions: tuple[int, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and stop what was started."""
    given = read_arguments("whole_job", __doc__, arguments, 6, 2.0, "callers", [1, 16])
    print(machine.describe("celery", "kombu", "redis", "starlette", "uvicorn", "peewee"))
    with (
        bounded(given.longest),
        tempfile.TemporaryDirectory(prefix="nlp-runner-bench-") as name,
        embedded.running_redis(Path(name) / "redis") as (url, redis),
        bare_celery_side(url, Path(name)) as floor,
        our_side(url, Path(name)) as ours,
    ):
        print(f"1 KB of JSON in, one worker process each; a write is on disk after "
              f"{_sync_milliseconds(Path(name)):.2g} ms\n", flush=True)  # fmt: skip
        compare(
            "whole job, {} caller",
            Contestant("bare Celery", partial(measure, floor, redis.pid)),
            Contestant("nlp-runner", partial(measure, ours, redis.pid)),
            given,
        )


def measure(side: Side, redis: int, callers: int, seconds: float) -> Figures:
    """Load a side once; its CPU time is that of Redis and of the callers as well."""

    def spent() -> float:
        servers = cpu_seconds(redis, *side.sessions)
        return servers and servers + time.process_time()

    before = spent()
    load = side.load(callers, seconds)
    return load.figures("job", spent() - before)


# --- the two sides -------------------------------------------------------------------------------


@contextlib.contextmanager
def our_side(broker: str, folder: Path) -> Iterator[Side]:
    """Run an orchestrator and one worker; a caller submits a job and waits in one request."""
    shared = ["--services-broker", broker, "--namespace", "bench", "--shutdown-grace", "3"]
    port = str(embedded.free_port())
    orchestrator_arguments = [
        "orchestrator", *shared, "--host", "127.0.0.1", "--port", port,
        "--database-url", f"sqlite:///{folder / 'jobs.db'}",
    ]  # fmt: skip
    worker_arguments = [
        "--manifest", str(ROOT / "bench" / "services" / "echo.yaml"), "--mode", "worker", *shared,
        "--concurrency", "1",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}/v1"
    post = Post(
        f"{url}/services/{SERVICE}/jobs",
        json.dumps(INPUT).encode(),
        # The work is measured, and not how fast a kept result is found.
        {"prefer": f"wait={WAIT}", "cache-control": "no-cache"},
    )
    with (
        running("orchestrator", "runner", *orchestrator_arguments, folder=folder) as orchestrator,
        running("worker", "runner", *worker_arguments, folder=folder) as worker,
        httpx.Client(base_url=url, timeout=2 * WAIT, trust_env=False) as http,
    ):
        orchestrator.wait_until(partial(_answers, http, "/services"))
        worker.wait_until(partial(_answers, http, f"/services/{SERVICE}", status="available"))
        job = http.post(f"/services/{SERVICE}/jobs", json=INPUT, headers=dict(post.headers)).json()
        if job.get("output") != run(None, **INPUT):
            raise RuntimeError(f"the first job came to nothing: {job}")
        yield Side(partial(client.load, post), (orchestrator.pid, worker.pid))
        failed = http.get("/jobs", params={"status": "failed", "limit": 1}).json()["jobs"]
        if failed:
            raise RuntimeError(f"not all jobs succeeded: {failed[0]}")


def _answers(http: httpx.Client, path: str, **wanted: Any) -> bool:
    try:
        answer = http.get(path)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and wanted.items() <= answer.json().items()


@contextlib.contextmanager
def bare_celery_side(broker: str, folder: Path) -> Iterator[Side]:
    """Run a Celery worker; a caller is a thread of this process: `task.delay(...).get()`."""
    url = broker.removesuffix("/0") + "/1"
    task = bare_celery.create(url).tasks[bare_celery.TASK]
    with (
        running("bare-celery", "bench.services.bare_celery", url, folder=folder) as worker,
        ThreadPoolExecutor() as pool,
    ):
        worker.wait_until(partial(_works, task))
        yield Side(partial(_call_celery, task, pool), (worker.pid,))


def _works(task: Any) -> bool:
    try:
        result = task.delay(**INPUT).get(timeout=2)
    except celery.exceptions.TimeoutError:
        return False
    if result != run(None, **INPUT):
        raise RuntimeError(f"the first task came to nothing: {result}")
    return True


def _call_celery(task: Any, pool: ThreadPoolExecutor, callers: int, seconds: float) -> Load:
    over = threading.Event()
    began = time.perf_counter()
    calling = [pool.submit(_call_until, over, task) for _ in range(callers)]
    try:
        over.wait(seconds)
    finally:  # Ctrl-C too
        over.set()
    latencies = [latency for one in calling for latency in one.result()]
    return Load.of(latencies, time.perf_counter() - began)


def _call_until(over: threading.Event, task: Any) -> list[float]:
    """Call, wait for the result and call again; return the latencies."""
    latencies = []
    while not over.is_set():
        began = time.perf_counter()
        task.delay(**INPUT).get(timeout=WAIT)
        latencies.append(time.perf_counter() - began)
    return latencies


def _sync_milliseconds(folder: Path) -> float:
    """Return the median time in which the disk below `folder` takes 4 KB for good."""
    spent = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


if __name__ == "__main__":
    main()
