"""What `nlp-runner keys` promises: a key is shown once, listed without its secret, and revoked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from stage import Stage

from runner import key_commands
from runner.cli import cli
from runner.orchestrator.keys import FORM
from runner.settings import BY_NAME, resolve

CLEAN: dict[str, str | None] = dict.fromkeys(BY_NAME)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give an empty folder, in which the commands are run."""
    with chdir(tmp_path):
        yield tmp_path


def run(*words: str, **environ: str) -> Result:
    """Run a command in this process, with nothing of the environment but `environ`."""
    result = CliRunner().invoke(cli, words, env={**CLEAN, **environ})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def create(*words: str, **environ: str) -> str:
    """Make a key and return it."""
    result = run("keys", "create", *words, **environ)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


@pytest.mark.parametrize("command", ["", *key_commands.keys.commands])
def test_every_command_explains_itself(command: str) -> None:
    """`--help` says what a command does, and what each of its flags means."""
    result = run("keys", *command.split(), "--help")
    assert result.exit_code == 0
    for name in (
        option
        for parameter in (key_commands.keys.commands[command].params if command else ())
        for option in parameter.opts
        if option.startswith("--")
    ):
        assert re.search(rf"{name}\b.*\s+\w", result.stdout), name


def test_a_key_is_shown_once(folder: Path, database_url: str) -> None:
    """The key alone goes to standard output, for scripts; no list shows its secret again."""
    where = {"DATABASE_URL": database_url}
    words = ("--owner", "ada", "--scope", "read", "--expires", "90d", "--note", "for the laptop")
    result = run("keys", "create", *words, **where)
    token = result.stdout.strip()
    found = FORM.fullmatch(token)
    assert found
    key_id, secret = found.groups()
    assert secret not in result.stderr
    assert f"Key {key_id} of ada for read, until " in result.stderr
    listed = run("keys", "list", **where).stdout
    assert secret not in listed
    (row,) = [line for line in listed.splitlines() if key_id in line]
    assert re.split(r"\s{2,}", row.strip())[:4] == [key_id, "ada", "read", "valid"]
    assert "for the laptop" in row


def test_a_key_allows_the_usual_when_nothing_is_said(folder: Path) -> None:
    """Nobody becomes an administrator by leaving a word out."""
    create("--owner", "ada")
    assert "ada    submit read cancel  valid" in run("keys", "list").stdout


def test_a_revoked_key_is_listed_as_such(folder: Path) -> None:
    """A key is revoked by its id, or by the key itself where only that is at hand."""
    assert run("keys", "list").stdout == "No keys yet.\n"
    first, second = create("--owner", "ada"), create("--owner", "bob")
    for key, word in ((first, first), (second, second.split("_")[1])):
        said = run("keys", "revoke", word).stdout
        assert "is revoked" in said
        assert key.rpartition("_")[2] not in said
    assert run("keys", "list").stdout.count("revoked") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create"], "--owner"),
        (["create", "--owner", "a b"], "An owner is at most 64 letters"),
        (["create", "--owner", "a", "--scope", "write"], "'submit', 'read', 'cancel', 'admin'"),
        (["create", "--owner", "a", "--expires", "soon"], "30m, 12h, 90d, 4w"),
        (["create", "--owner", "a", "--expires", "0d"], "30m, 12h, 90d, 4w"),
        (["create", "--owner", "a", "--note", "x" * 201], "A note has at most 200 characters"),
        (["revoke", "nothing"], "There is no key 'nothing'"),
    ],
)
def test_a_wrong_word_is_told(folder: Path, words: list[str], said: str) -> None:
    """What cannot be done is a sentence with what can, and status 2."""
    result = run("keys", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_database_that_is_away_is_told(folder: Path) -> None:
    """Status 4 and no key where none could be kept, and no password of the database either."""
    url = "postgresql://me:hush@127.0.0.1:1/nlp"
    result = run("keys", "create", "--owner", "ada", DATABASE_URL=url)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "hush" not in result.output
    assert "cannot be reached" in result.stderr


def test_a_key_that_is_no_word_is_refused() -> None:
    """What could not be sent in a header is told by name, and not shown."""
    result = run("services", API_KEY="canary\r\nHost: evil")
    assert result.exit_code == 2
    assert "API_KEY (environment)" in result.stderr
    assert "canary" not in result.output


# --- with an orchestrator ------------------------------------------------------------------------


def test_commands_send_the_key(folder: Path, redis_url: str, until: Callable[..., Any]) -> None:
    """`call`, `services` and `jobs` work with API_KEY or its file; without, they say what to do,
    and no word of a wrong key is shown.
    """
    with Stage(redis_url, folder, until) as stage:
        stage.orchestrator(AUTH="on")
        stage.worker("echo")
        stage.as_holder(stage.key("root", "admin"))
        stage.ready("echo")
        url, key = f"http://127.0.0.1:{stage.port}", stage.key("ada")
        (folder / "key").write_text(f"{key}\n")
        for given in ({"API_KEY": key}, {"API_KEY_FILE": str(folder / "key")}):
            answer = run("call", "echo", "hello", ORCHESTRATOR_URL=url, **given)
            assert (answer.exit_code, "hello" in answer.stdout) == (0, True), answer.output
            assert "echo" in run("services", ORCHESTRATOR_URL=url, **given).stdout
            assert "succeeded" in run("jobs", ORCHESTRATOR_URL=url, **given).stdout
        for given in ({}, {"API_KEY": "c4n4ry"}):
            refused = run("jobs", ORCHESTRATOR_URL=url, **given)
            assert (refused.exit_code, refused.stdout) == (2, "")
            assert "API_KEY" in refused.stderr
            assert "c4n4ry" not in refused.output
        narrow = stage.key("ada", "submit")
        refused = run("jobs", ORCHESTRATOR_URL=url, API_KEY=narrow)
        assert "scope `read`" in refused.stderr
        assert "c4n4ry" not in run("config", API_KEY="c4n4ry").output
        stage.sound()


def test_what_cannot_reach_its_servers_tells_no_secret(
    folder: Path, until: Callable[..., Any]
) -> None:
    """The log of an orchestrator whose Redis is away names no password, however much it tells."""
    with Stage("redis://127.0.0.1:1/0", folder, until) as stage:
        part = stage.orchestrator(
            LOG_LEVEL="debug", BROKER_PASS="c4n4ry-pass", API_KEY="c4n4ry-key"
        )
        until(lambda: "Trying again." in part.said(), 30, "it to complain")
        with httpx.Client(base_url=f"http://127.0.0.1:{stage.port}", trust_env=False) as http:
            ready = http.get("/readyz").text
        part.stop()
        part.wait()
        assert "c4n4ry" not in part.said() + ready


def test_up_on_every_address_makes_a_key_for_itself(folder: Path) -> None:
    """`nlp-runner up` asks its own orchestrator with a key that ends with it; on loopback, or with
    a key of one's own, it makes none.
    """

    def visiting(**environ: str) -> Any:
        data = {"DATA_DIR": str(folder / "data")}
        return key_commands.visiting(resolve(environ={**data, **environ}, folder=folder))

    url = f"sqlite:///{folder}/data/jobs.db"
    with visiting() as key:
        assert key is None
    with visiting(HOST="0.0.0.0", AUTH="off") as key:
        assert key is None
    with visiting(HOST="0.0.0.0", API_KEY="mine") as key:
        assert key == "mine"
    assert not (folder / "data").exists()
    with visiting(HOST="0.0.0.0") as key:
        assert FORM.fullmatch(key)
        assert re.search(r"admin +valid", run("keys", "list", DATABASE_URL=url).stdout)
    assert re.search(r"admin +revoked", run("keys", "list", DATABASE_URL=url).stdout)
