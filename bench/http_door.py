"""The HTTP door of a trivial service beside a bare uvicorn that does the same work.

`python -m bench.http_door`: two processes on loopback, loaded in turns by the same client.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx

from bench import client, machine, wrk
from bench.client import Post
from bench.load import Load
from bench.process import ROOT, Process, bounded, cpu_seconds, running
from bench.ratio import Contestant, Figures, compare, read_arguments
from bench.services.echo import INPUT, run
from runner.embedded import free_port

Server = tuple[Process, Post]
Loader = Callable[[Post, int, float], Load]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and stop what was started."""
    given = read_arguments("http_door", __doc__, arguments, 10, 1.0, "connections", [1, 32])
    print(machine.describe("starlette", "uvicorn", "uvloop", "httptools", "orjson"))
    loader: Loader = wrk.load if wrk.found() else client.load
    with bounded(given.longest), servers(line=max(given.numbers)) as (floor, ours):
        print(f"1 KB of JSON in, one process each, loaded by {loader.__module__}\n", flush=True)
        compare(
            "HTTP door, {} connection",
            Contestant("bare uvicorn", partial(measure, floor, loader)),
            Contestant("nlp-runner", partial(measure, ours, loader)),
            given,
        )


@contextlib.contextmanager
def servers(line: int) -> Iterator[tuple[Server, Server]]:
    """Run the floor and our door, one process each; `line` requests may wait in ours."""
    floor_port, our_port = str(free_port()), str(free_port())
    floor_arguments = [
        "bench.services.bare_uvicorn:app", "--port", floor_port, "--loop", "uvloop",
        "--http", "httptools", "--lifespan", "off", "--log-level", "warning", "--no-access-log",
        "--no-server-header",
    ]  # fmt: skip
    our_arguments = [
        "--manifest", str(ROOT / "bench" / "services" / "echo.yaml"), "--mode", "http",
        "--host", "127.0.0.1", "--port", our_port, "--concurrency", "1", "--queue-size", str(line),
    ]  # fmt: skip
    body = json.dumps(INPUT).encode()
    with tempfile.TemporaryDirectory(prefix="nlp-runner-bench-") as name:
        folder = Path(name)
        with (
            running("bare-uvicorn", "uvicorn", *floor_arguments, folder=folder) as floor,
            running("nlp-runner", "runner", *our_arguments, folder=folder) as ours,
        ):
            posts = [
                Post(f"http://127.0.0.1:{floor_port}/", body),
                Post(f"http://127.0.0.1:{our_port}/run", body),
            ]
            for process, post in zip((floor, ours), posts, strict=True):
                process.wait_until(partial(_does_the_work, post))
            yield (floor, posts[0]), (ours, posts[1])


def measure(server: Server, loader: Loader, connections: int, seconds: float) -> Figures:
    """Load a server once."""
    process, post = server
    before = cpu_seconds(process.pid)
    load = loader(post, connections, seconds)
    return load.figures("request", cpu_seconds(process.pid) - before)


def _does_the_work(post: Post) -> bool:
    """Say whether the server is up; raises `RuntimeError` if it answers something else."""
    try:
        answer = httpx.post(post.url, content=post.body, timeout=5, trust_env=False,
                            headers={"content-type": "application/json"})  # fmt: skip
    except httpx.HTTPError:
        return False
    if answer.status_code == 503:
        return False
    if answer.status_code != 200 or answer.json() != run(None, **INPUT):
        raise RuntimeError(f"{post.url} answered {answer.status_code}: {answer.text[:300]}")
    return True


if __name__ == "__main__":
    main()
