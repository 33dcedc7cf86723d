"""What the `nlp-runner` command promises: results on standard output, trouble in a sentence."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from stage import GALLERY, Stage

from runner import embedded
from runner.cli import cli
from runner.settings import BY_NAME

COMMANDS = ["", *sorted(cli.commands)]
CLEAN: dict[str, str | None] = dict.fromkeys(BY_NAME)
ESCAPE = "\x1b[2J\x1b]0;pwned\x07"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give an empty folder, in which the commands are run."""
    with contextlib.chdir(tmp_path):
        yield tmp_path


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Take back the logging that a command sets up for its process."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def run(*words: object, typed: str | bytes = "", **environ: str) -> Result:
    """Run a command in this process, with nothing of the environment but `environ`."""
    result = CliRunner().invoke(cli, [str(word) for word in words], typed, {**CLEAN, **environ})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    # An author is shown where a handler raised; what we raise ourselves is a sentence.
    assert "Traceback" not in result.output or "handler_error" in result.output
    return result


def fails(status: int, *words: object, **how: Any) -> str:
    """Run a command that must fail with this status and print no result; return what it said."""
    result = run(*words, **how)
    assert (result.exit_code, result.stdout) == (status, ""), result.output
    return result.stderr


def one_sentence(said: str) -> str:
    """Return what was said, which must be one line."""
    assert said.startswith("error: "), said
    assert said.count("\n") == 1, said
    return said


def a_service(folder: Path, body: str, name: str = "mine", **more: Any) -> Path:
    """Write a manifest and a handler whose `run(ctx, text)` has this body."""
    module = f"{folder.name}_{name}".replace("-", "_")
    (folder / f"{module}.py").write_text(f"def run(ctx, text):\n    {body}\n")
    (folder / "manifests").mkdir(exist_ok=True)
    path = folder / "manifests" / f"{name}.yaml"
    text = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
    document = {
        "apiVersion": "nlp-runner/v1", "name": name, "version": "1.0.0", "summary": "A test.",
        "handler": f"{module}:run", "input": text, "output": text, **more,
    }  # fmt: skip
    path.write_text(json.dumps(document, indent=2))
    return path


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """`--help` says what a command does, and what each of its flags means."""
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    parameters = cli.commands[command].params if command else cli.params
    for flag in (flag for parameter in parameters for flag in parameter.opts if flag[0] == "-"):
        assert re.search(rf"^ +(-\w, )?{flag}\b.*\s+\w", result.stdout, re.MULTILINE), flag
    assert len(result.stdout.splitlines()[2].strip()) > 30


def test_the_flags_of_settings_say_their_default() -> None:
    """Whoever reads the help of a command need not look elsewhere."""
    words = " ".join(run("up", "--help").stdout.split())
    assert "--port VALUE Port to listen on. [default: 8000]" in words


def test_alone_it_shows_its_help() -> None:
    """Without a word it does nothing but teach, and names the exit statuses."""
    result = run()
    assert result.exit_code == 0
    assert "Exit status: 0 good, 1 a job failed, 2 usage" in " ".join(result.stdout.split())
    assert all(name in result.stdout for name in cli.commands)


def test_a_flag_before_the_command_is_told() -> None:
    """`nlp-runner --port 1 up` would serve on another port than was asked for."""
    assert "put the flags behind the command's name" in fails(2, "--port", "1", "services")


def test_a_command_pays_for_no_other() -> None:
    """Asking for help, or for a result, loads neither Celery nor a web server nor a database."""
    code = (
        "import sys\nfrom runner.cli import cli\n"
        "cli(['config'], standalone_mode=False)\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stderr.split())
    assert not loaded & {"celery", "kombu", "redis", "starlette", "uvicorn", "peewee", "spacy"}


def test_the_module_is_the_command() -> None:
    """`python -m runner` is the same, under the same name."""
    ran = subprocess.run(
        [sys.executable, "-m", "runner", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"nlp-runner, version \S+\n", ran.stdout)


# --- check ---------------------------------------------------------------------------------------


def test_check_says_what_is_good() -> None:
    """A sound manifest is one line with its name and version."""
    path = GALLERY / "echo.yaml"
    assert run("check", path).stdout == f"✓ {path}: echo 1.0.0\n"


def test_check_tells_every_problem_of_every_file(folder: Path) -> None:
    """One look is enough to mend all: each problem has its file and line, and the good are told."""
    bad = folder / "bad.yaml"
    bad.write_text("apiVersion: nlp-runner/v1\nname: Bad Name\nversion: one\ncolour: blue\n")
    worse = folder / "worse.yaml"
    worse.write_text("name: [\n")
    result = run("check", bad, GALLERY / "echo.yaml", worse, folder / "none.yaml")
    assert result.exit_code == 3
    assert result.stdout == f"✓ {GALLERY / 'echo.yaml'}: echo 1.0.0\n"
    lines = result.stderr.splitlines()
    assert all(line.startswith("✗ ") for line in lines)
    for place in (f"{bad}, line 2", f"{bad}, line 3", f"{bad}, line 4", f"{worse}, line "):
        assert any(place in line for line in lines), place
    assert any(f"{folder / 'none.yaml'}: cannot be read: No such file" in line for line in lines)
    assert len([line for line in lines if str(bad) in line]) >= 6  # what is missing is told too


def test_check_without_files_checks_this_folder(folder: Path) -> None:
    """It reads manifests/*.yaml, and says so when there are none."""
    said = one_sentence(fails(4, "check"))
    assert "There is no manifests/*.yaml here" in said
    a_service(folder, "return {'text': text}")
    assert run("check").stdout == "✓ manifests/mine.yaml: mine 1.0.0\n"


def test_check_reads_and_does_not_run() -> None:
    """Without --run the handler is not even imported."""
    assert run("check", GALLERY / "fails_on_import.yaml").exit_code == 0


def test_check_run_runs_the_examples() -> None:
    """It says how many were run."""
    path = GALLERY / "echo.yaml"
    assert run("check", "--run", path).stdout == f"✓ {path}: echo 1.0.0, 2 examples run\n"


@pytest.mark.parametrize("stem", ["fails_on_import", "fails_in_setup"])
def test_check_run_names_the_line_of_a_handler_that_fails(stem: str) -> None:
    """The author reads the file and the line, and no traceback of ours."""
    said = fails(3, "check", "--run", GALLERY / f"{stem}.yaml")
    assert re.search(rf"{stem}\.py, line \d+", said)


def test_check_run_compares_the_results(folder: Path) -> None:
    """An example that is no longer true is named with what came instead."""
    examples = [{"input": {"text": "a"}, "output": {"text": "b"}}]
    path = a_service(folder, "return {'text': text}", examples=examples)
    said = fails(3, "check", "--run", path)
    assert "`/examples/0/output/text` differs; expected 'b', found 'a'" in said


# --- new -----------------------------------------------------------------------------------------


def test_new_writes_a_service_that_works(folder: Path) -> None:
    """What it writes passes the very command that it proposes next."""
    result = run("new", "word-count", "--folder", folder)
    assert result.exit_code == 0
    proposed = re.search(r"nlp-runner (check \S+ --run)", result.stdout)
    assert proposed is not None
    assert run(*proposed[1].split()).exit_code == 0
    for path in re.findall(r"^wrote (.+)$", result.stdout, re.MULTILINE):
        assert Path(path).is_file()


def test_new_refuses_what_cannot_be(folder: Path) -> None:
    """A bad name and a name that is taken are sentences about usage."""
    assert "is no name of a service" in one_sentence(fails(2, "new", "Word Count"))
    run("new", "taken")
    assert "exists already; nothing was written" in one_sentence(fails(2, "new", "taken"))


# --- call, in this process -----------------------------------------------------------------------

ECHO = ("call", "echo", "--local", "--manifest", GALLERY / "echo.yaml")
COUNT = ("call", "counts-steps", "--local", "--manifest", GALLERY / "counts_steps.yaml")


def answer(*words: object, **how: Any) -> Any:
    """Run a command that must succeed; return its standard output as JSON."""
    result = run(*words, **how)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return json.loads(result.stdout)


def test_a_text_is_sent_where_the_service_takes_it(folder: Path) -> None:
    """As its one string, or as its documents; in any writing."""
    assert answer(*ECHO, "Où est l'œuvre ? 日本") == {"text": "Où est l'œuvre ? 日本"}
    assert answer(*COUNT, "one two", "three") == {"words": [2, 1]}


def test_a_file_is_a_document(folder: Path) -> None:
    """Files and texts may be mixed; a byte order mark is not part of the text."""
    (folder / "a.txt").write_bytes("\ufeffœuvre".encode())
    assert answer(*ECHO, "--file", "a.txt") == {"text": "œuvre"}
    assert answer(*COUNT, "--file", "a.txt", "--file", "a.txt", "a b") == {"words": [2, 1, 1]}


def test_standard_input_is_a_document(folder: Path) -> None:
    """It is read when nothing else is said, or when it is asked for."""
    assert answer(*ECHO, typed="naïve") == {"text": "naïve"}
    assert answer(*COUNT, "--file", "-", "a b", typed="one") == {"words": [2, 1]}


def test_the_whole_input_may_be_json(folder: Path) -> None:
    """As an argument, from a file, from standard input; --set changes it."""
    whole = '{"text": "abc", "reverse": true}'
    (folder / "input.json").write_text(whole)
    assert answer(*ECHO, whole) == {"text": "cba"}
    assert answer(*ECHO, "--file", "input.json") == {"text": "cba"}
    assert answer(*ECHO, typed=whole) == {"text": "cba"}
    assert answer(*ECHO, whole, "--set", "reverse=false") == {"text": "abc"}


def test_further_properties_are_set_as_json_or_as_text(folder: Path) -> None:
    """What is not JSON is a text, and so is what JSON does not know."""
    assert answer(*ECHO, "abc", "--set", "reverse=true") == {"text": "cba"}
    assert answer(*ECHO, "abc", "--set", "text=a=b") == {"text": "a=b"}
    assert answer(*ECHO, "abc", "--set", "text=NaN") == {"text": "NaN"}


def test_the_service_is_found_by_its_name(folder: Path) -> None:
    """Without --manifest it is manifests/NAME.yaml; a missing one is told with its path."""
    a_service(folder, "return {'text': text.upper()}")
    assert answer("call", "mine", "--local", "a") == {"text": "A"}
    said = one_sentence(fails(3, "call", "other", "--local", "a"))
    assert "manifests/other.yaml: cannot be read" in said


def test_config_is_chosen_for_one_call(folder: Path) -> None:
    """--config goes to the handler, by the same rules as when it is served."""
    text = {"type": "object", "properties": {"text": {"type": "string"}}}
    config = {"end": {"type": "string", "default": "."}}
    a_service(folder, "return {'text': text + ctx.config.end}", input=text | {"required": ["text"]},
              config=config)  # fmt: skip
    call = ("call", "mine", "--local", "a")
    assert answer(*call) == {"text": "a."}
    assert answer(*call, MINE_END="?") == {"text": "a?"}
    assert answer(*call, "--config", "end=!", MINE_END="?") == {"text": "a!"}


# --- how a call ends -----------------------------------------------------------------------------


def test_a_job_that_fails_is_status_1(folder: Path) -> None:
    """Its code and its words are told, and nothing is on standard output."""
    a_service(folder, "raise LookupError('no such word')")
    said = fails(1, "call", "mine", "--local", "a")
    assert "failed: handler_error: LookupError: no such word" in said


def test_an_input_that_is_wrong_is_status_1_with_every_problem() -> None:
    """A caller mends all of it at once."""
    said = fails(1, *ECHO, '{"text": 1, "reverse": "yes"}')
    assert said.startswith("failed: input_invalid: ")
    assert "/text has the wrong type" in said or "`/text`" in said
    assert "/reverse" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((*ECHO, "--set", "reverse"), "'reverse' is not KEY=VALUE"),
        ((*ECHO, "--set", "=true"), "'' is not KEY=VALUE"),
        ((*ECHO, "one", "two"), "does not take plain texts, or not so many"),
        ((*ECHO, "{no json"), "begins with a brace but is not JSON"),
        ((*ECHO, '{"a": NaN}'), "begins with a brace but is not JSON"),
        ((*ECHO, '{"a":' * 20_000), "begins with a brace but is not JSON"),
        ((*ECHO, "--file", "none.txt"), "none.txt cannot be read: No such file"),
        ((*ECHO, "--file", "."), ". cannot be read: Is a directory"),
        ((*ECHO, "--file", "latin.txt"), "latin.txt cannot be read: it is not UTF-8"),
        ((*ECHO, "a", "--config", "colour=blue"), "echo has no such config"),
    ],
)
def test_wrong_usage_is_status_2(folder: Path, words: tuple[object, ...], sentence: str) -> None:
    """What was typed wrongly is told in a sentence."""
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    assert sentence in one_sentence(fails(2, *words))


def test_bytes_that_are_no_text_are_wrong_usage() -> None:
    """Standard input may hold anything; a picture is not a document."""
    said = one_sentence(fails(2, *ECHO, typed=b"\x89PNG\xff\xfe"))
    assert "- cannot be read: it is not UTF-8 text" in said


def test_config_of_a_running_service_is_not_the_callers() -> None:
    """--config without --local would do nothing, so it is refused."""
    assert "--config goes with --local" in fails(2, "call", "echo", "a", "--config", "a=b")


def test_a_wrong_setting_is_status_2() -> None:
    """The setting, its origin and its fault are told."""
    said = one_sentence(fails(2, "config", PORT="high"))
    assert "PORT (environment): 'high': must be a whole number" in said


def test_a_manifest_or_handler_that_is_wrong_is_status_3(folder: Path) -> None:
    """The same sentence as `check` gives."""
    path = folder / "bad.yaml"
    path.write_text("name: bad\n")
    assert f"{path}, line 1" in fails(3, "--manifest", path)
    said = fails(3, *ECHO[:4], GALLERY / "fails_on_import.yaml", "{}")
    assert re.search(r"fails_on_import\.py, line \d+", said)


@pytest.mark.parametrize(
    "words", ["services", "jobs", "jobs id", "jobs id --cancel", "call echo a"]
)
def test_no_orchestrator_is_status_4(words: str) -> None:
    """One sentence says where it was looked for, and how to start one or to name another."""
    url = f"http://127.0.0.1:{embedded.free_port()}"
    said = one_sentence(fails(4, *words.split(), "--url", url))
    assert f"No orchestrator answers at {url}" in said
    assert "`nlp-runner up`" in said
    assert "--url or ORCHESTRATOR_URL" in said


def test_a_port_that_is_taken_is_status_4(redis_url: str) -> None:
    """One sentence says which, and what to do."""
    port = redis_url.rpartition(":")[2].partition("/")[0]
    said = one_sentence(fails(4, "--manifest", GALLERY / "echo.yaml", "--port", port))
    assert f"Port {port} is taken" in said


def test_a_job_that_takes_too_long_is_status_5(folder: Path) -> None:
    """The clock that ran out is told."""
    body = "[ctx.check() for _ in iter(int, 1)]"
    a_service(folder, body, limits={"timeout": "50ms"})
    said = fails(5, "call", "mine", "--local", "a")
    assert said.startswith("failed: timed_out: ")
    assert "allows 0.05 s" in said


def test_an_interrupted_call_is_status_130(folder: Path) -> None:
    """Ctrl-C ends a call in this process, and is no failure of the service."""
    a_service(folder, "raise KeyboardInterrupt")
    assert "canceled" in fails(130, "call", "mine", "--local", "a")


# --- what is shown is not obeyed -----------------------------------------------------------------


def test_words_of_a_handler_do_not_rule_the_terminal(folder: Path) -> None:
    """Escape sequences and markup in errors and logs are shown, and change nothing."""
    body = f"ctx.log.warning({ESCAPE + '[/red]'!r}); raise ValueError({ESCAPE + '[/red]'!r})"
    a_service(folder, body)
    said = fails(1, "call", "mine", "--local", "a")
    assert "\x1b" not in said
    assert "\x07" not in said
    assert said.count(r"\x1b[2J\x1b]0;pwned\x07[/red]") >= 2


# --- serving -------------------------------------------------------------------------------------


def test_a_process_can_end_with_whoever_started_it(until: Callable[..., Any]) -> None:
    """--until-eof stops it when its input ends, and not when something is typed."""
    command = [sys.executable, "-m", "runner", "--port", "0", "--until-eof"]
    with subprocess.Popen(
        [*command, "--manifest", GALLERY / "echo.yaml"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        url = re.findall(r"listening on (\S+)", process.stderr.readline())[0]
        until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        process.stdin.write("typed\n")
        process.stdin.flush()
        ask = {"text": "abc", "reverse": True}
        assert httpx.post(f"{url}/run", json=ask, trust_env=False).json() == {"text": "cba"}
        process.stdin.close()
        assert process.wait(20) == 0


# --- config --------------------------------------------------------------------------------------


def rows(said: str) -> dict[str, list[str]]:
    """Read a printed table: the cells of each row by its first one."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in said.splitlines()]
    return {row[0]: row[1:] for row in cells if row[0]}


def test_config_shows_every_value_and_its_origin(folder: Path) -> None:
    """Each setting is a row: value, where it came from, what it means."""
    (folder / ".env").write_text("NAMESPACE=mine\n")
    (folder / ".envdefault").write_text("NAMESPACE=theirs\nLOG_FORMAT=json\n")
    shown = rows(run("config", PORT="81").stdout)
    assert list(shown)[1:] == list(BY_NAME)
    assert shown["PORT"][:2] == ["81", "environment"]
    assert shown["NAMESPACE"][:2] == ["mine", ".env"]
    assert shown["LOG_FORMAT"][:2] == ["json", ".envdefault"]
    assert shown["HOST"] == ["127.0.0.1", "built-in", BY_NAME["HOST"].help]


def test_config_shows_no_secret() -> None:
    """Its output can be sent to anybody."""
    said = run("config", BROKER_PASS="hush", DATABASE_URL="postgresql://me:hush@db/nlp").stdout
    assert "hush" not in said
    assert rows(said)["BROKER_PASS"][0] == "********"


def test_config_shows_what_a_service_takes(folder: Path) -> None:
    """With a manifest, its config is listed by environment name, with the value in force."""
    config = {
        "model": {"type": "string", "default": "bundled", "description": "What to load."},
        "top_k": {"type": "integer", "default": 3},
    }
    path = a_service(folder, "pass", name="my-ner", config=config, limits={"concurrency": 4})
    shown = rows(run("config", "--manifest", path, MY_NER_TOP_K="5").stdout)
    assert shown["MY_NER_MODEL"] == ["bundled", "manifest", "What to load."]
    assert shown["MY_NER_TOP_K"] == ["5", "environment"]
    assert shown["CONCURRENCY"][:2] == ["4", "manifest"]


# --- with an orchestrator ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform with a service that works, a slow one and one that cannot start."""
    with Stage(redis_url, tmp_path_factory.mktemp("cli"), until) as stage:
        stage.orchestrator()
        for name in ("echo", "slow", "overruns", "fails_on_import"):
            stage.worker(name)
        stage.ready("echo", "slow", "overruns")
        yield stage


@pytest.fixture
def url(stage: Stage) -> str:
    """Give the address of the platform."""
    return f"http://127.0.0.1:{stage.port}"


def test_a_call_goes_through_the_platform(url: str) -> None:
    """The address may be a flag or a setting; the result is the same as with --local."""
    assert answer("call", "echo", "Où ?", "--url", url) == {"text": "Où ?"}
    assert answer("call", "echo", typed="abc", ORCHESTRATOR_URL=url) == {"text": "abc"}
    assert answer("call", "echo", '{"text": "abc"}', "--set", "reverse=true", "--url", url) == {
        "text": "cba"
    }


def test_a_call_through_the_platform_ends_with_the_same_statuses(url: str) -> None:
    """1 for a wrong input, 2 for a service that nobody knows, 5 for one that took too long."""
    assert "/text" in fails(1, "call", "echo", '{"text": 1, "reverse": 2}', "--url", url)
    assert "There is no service `nobody`" in fails(2, "call", "nobody", "a", "--url", url)
    assert fails(5, "call", "overruns", "{}", "--url", url).startswith("failed: timed_out: ")


def test_a_service_without_a_worker_is_status_4(stage: Stage, url: str) -> None:
    """The reason that its worker gave is told."""
    stage.until(lambda: "fails-on-import" in run("services", "--url", url).stdout, 20, "its record")
    said = fails(4, "call", "fails-on-import", "{}", "--url", url)
    assert "No worker of fails-on-import" in said


def test_services_are_a_table(url: str) -> None:
    """Name, version, languages, status, slots and summary; nothing is cut off when piped."""
    shown = rows(run("services", "--url", url).stdout)
    assert shown["echo"] == [
        "1.0.0",
        "-",
        "available",
        "1",
        "Gives a text back, reversed if asked.",
    ]


def test_jobs_are_a_table_and_one_job_is_json(url: str) -> None:
    """The newest come first; one is shown whole; it can be filtered."""
    answer("call", "echo", "a", "--url", url)
    (job_id, cells), *_ = list(rows(run("jobs", "--service", "echo", "--url", url).stdout).items())[
        1:
    ]
    assert cells[:2] == ["echo", "succeeded"]
    job = answer("jobs", job_id, "--url", url)
    assert (job["id"], job["status"]) == (job_id, "succeeded")
    assert run("jobs", "--status", "queued", "--url", url).stdout == "No jobs yet.\n"


def test_a_job_that_nobody_knows_is_wrong_usage(url: str) -> None:
    """Showing, canceling and filtering by what does not exist are told apart from failures."""
    assert "There is no job `nothing`" in one_sentence(fails(2, "jobs", "nothing", "--url", url))
    assert "There is no job" in fails(2, "jobs", "nothing", "--cancel", "--url", url)
    assert "status must be one of" in fails(2, "jobs", "--status", "gone", "--url", url)
    assert "--cancel needs a JOB_ID" in fails(2, "jobs", "--cancel", "--url", url)


def test_a_person_watches_the_progress(url: str) -> None:
    """On a terminal the step is shown by its title on standard error, and wiped away at the end."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "runner", "call", "slow", '{"seconds": 1}', "--url", url]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as caller:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal says that nobody is left
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        assert caller.stdout is not None
        assert json.loads(caller.stdout.read()) == {"done": 51}
    assert b"Wait in many short ticks" in shown
    assert re.search(rb"[1-9]\d %", shown)
    assert shown.endswith(b"\x1b[2K")


def test_ctrl_c_cancels_the_job_of_a_call(stage: Stage, url: str) -> None:
    """The caller is told, the status is 130, and the worker is free again."""
    environ = {**os.environ, "ORCHESTRATOR_URL": url}
    command = [sys.executable, "-m", "runner", "call", "slow", '{"seconds": 60}']
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as caller:
        page = ("/v1/jobs", {"service": "slow", "status": "running"})
        find = lambda: stage.http.get(page[0], params=page[1]).json()["jobs"]  # noqa: E731
        (job,) = stage.until(find, 20, "the job to start")
        caller.send_signal(signal.SIGINT)
        said, trouble = caller.communicate(timeout=20)
    assert (caller.returncode, said) == (130, "")
    assert trouble == "Interrupted; the job is canceled.\n"
    assert stage.job(job["id"], wait=20)["status"] == "canceled"
