"""What `runner.embedded` promises: a real Redis that comes, keeps what it is told, and goes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from runner import embedded
from runner.errors import Unavailable

STARTER = """
import sys
from pathlib import Path
from runner import embedded
with embedded.running_redis(Path(sys.argv[1])) as (url, process):
    print(url, process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder that does not exist yet, with a name that shells do not like."""
    return tmp_path / "it's a folder"


@pytest.fixture
def starter(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Give another process that runs a Redis in the folder: itself, the URL, and its Redis."""
    command = [sys.executable, "-c", STARTER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        url, pid = process.stdout.readline().split()
        yield process, url, int(pid)
        process.kill()
    if psutil.pid_exists(int(pid)):
        psutil.Process(int(pid)).kill()


def alive(pid: int) -> bool:
    """Say whether a process runs and has not just been left unburied."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def keepers_of(pid: int) -> list[psutil.Process]:
    """Return the keepers of a Redis."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[-1:] == [str(pid)]
        and (process.info["cmdline"] or [])[:2] == ["sh", "-c"]
    ]


# --- finding one ---------------------------------------------------------------------------------


def test_a_program_is_found_that_runs() -> None:
    """What is found says of itself that it is a Redis server."""
    found = embedded.redis_server()
    ran = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("Redis server v=")


def test_the_module_says_which_redis_it_would_run() -> None:
    """`python -m runner.embedded` is what `make` asks."""
    command = [sys.executable, "-m", "runner.embedded"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == f"Redis: {embedded.redis_server()}\n"


# --- running it ----------------------------------------------------------------------------------


def test_it_serves_and_is_gone_without_a_trace(folder: Path) -> None:
    """For the length of a `with` block there is a Redis; then neither it nor its keeper is left."""
    with embedded.running_redis(folder) as (url, process):
        assert redis.Redis.from_url(url).set("key", "value")
        assert not embedded.obstacle(url)
        assert len(keepers_of(process.pid)) == 1
    assert process.returncode == 0
    assert embedded.obstacle(url)
    assert keepers_of(process.pid) == []
    assert not (folder / "port").exists()


def test_it_is_for_this_machine_only(folder: Path) -> None:
    """It listens on the loopback interface and never throws a job away to make room."""
    with embedded.running_redis(folder) as (url, process):
        listening = psutil.Process(process.pid).net_connections(kind="inet")
        assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
        client = redis.Redis.from_url(url, decode_responses=True)
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_what_it_holds_survives_a_restart(folder: Path) -> None:
    """Jobs that were on the conveyor are there again, with their times to live."""
    with embedded.running_redis(folder) as (url, _):
        client = redis.Redis.from_url(url)
        client.set("plain", "é")
        client.xadd("stream", {"event": "1"})
        client.set("lease", "1", ex=1000)
    with embedded.running_redis(folder) as (url, _):
        client = redis.Redis.from_url(url)
        assert client.get("plain") == "é".encode()
        assert client.xlen("stream") == 1
        assert 0 < client.ttl("lease") <= 1000


def test_what_keeps_us_from_a_redis_is_said(folder: Path) -> None:
    """A closed port and a wrong password are told apart, and neither takes long."""
    with embedded.running_redis(folder) as (url, _):
        assert embedded.obstacle(url) == ""
        redis.Redis.from_url(url).config_set("requirepass", "hush")
        wrong = embedded.obstacle(url.replace("//", "//:guess@"), within=60)
        assert "password" in wrong
        assert "Authentication required" in embedded.obstacle(url, within=60)
        redis.Redis.from_url(url, password="hush").config_set("requirepass", "")
    assert "refused" in embedded.obstacle(url, within=0.1)


def test_it_can_be_told_to_keep_nothing(folder: Path) -> None:
    """Benchmarks measure a Redis that does not write to a disk."""
    with embedded.running_redis(folder, durable=False) as (url, _):
        redis.Redis.from_url(url).set("key", "value")
    with embedded.running_redis(folder, durable=False) as (url, _):
        assert redis.Redis.from_url(url).dbsize() == 0


def test_one_that_cannot_start_says_why(folder: Path) -> None:
    """The last words of its log are in the error, at once and not after ten seconds."""
    folder.mkdir()
    (folder / "appendonly.aof").write_text("This was never written by a Redis.")
    with (
        pytest.raises(Unavailable, match=r"(?s)did not start.*redis\.log says why.*append only"),
        embedded.running_redis(folder),
    ):
        pytest.fail("it must not start")


def test_a_port_that_is_taken_is_not_mistaken_for_ours(folder: Path, redis_url: str) -> None:
    """Another Redis that answers on the port is not the one that was started."""
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(Unavailable, match="did not start"), embedded.running_redis(folder, port):
        pytest.fail("it must not start")
    assert not embedded.obstacle(redis_url)


# --- a starter that was killed -------------------------------------------------------------------


def test_it_ends_soon_after_the_process_that_started_it(
    starter: tuple[subprocess.Popen[str], str, int], until
) -> None:
    """A starter that is killed cannot clean up; its Redis ends all the same, within seconds."""
    process, url, pid = starter
    redis.Redis.from_url(url).set("key", "value")
    process.kill()
    process.wait()
    assert not embedded.obstacle(url)  # whoever used it may still say good-bye
    until(lambda: not alive(pid), within=10, why="the Redis to end")


def test_the_next_start_stops_what_was_left_behind(
    folder: Path, starter: tuple[subprocess.Popen[str], str, int]
) -> None:
    """With the keeper killed as well, the next start in the folder ends the old one first."""
    process, url, pid = starter
    redis.Redis.from_url(url).set("key", "value")
    for keeper in keepers_of(pid):
        keeper.kill()
    process.kill()
    process.wait()
    assert alive(pid)
    with embedded.running_redis(folder) as (new_url, new):
        assert new.pid != pid
        assert not alive(pid)
        assert redis.Redis.from_url(new_url).get("key") == b"value"


@pytest.mark.parametrize("noted", ["", "eighty", "0", "99999999", "-1", "redis"])
def test_a_note_of_another_redis_harms_nobody(folder: Path, redis_url: str, noted: str) -> None:
    """Only a Redis that says to use this very folder is stopped; a wrong note is passed over."""
    folder.mkdir()
    port = redis_url.rpartition(":")[2].partition("/")[0]
    (folder / "port").write_text(port if noted == "redis" else noted)
    with embedded.running_redis(folder) as (url, _):
        assert not embedded.obstacle(url)
    assert not embedded.obstacle(redis_url)
