"""The `nlp-runner` command; the only place that wires the rooms together.

A door and what it needs are imported inside their command, so that no command pays for another.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runner import logs
from runner import manifest as manifests
from runner.client import Client
from runner.errors import (
    BadRequest,
    HandlerInvalid,
    ManifestInvalid,
    Problem,
    RunnerError,
    SettingInvalid,
    Unavailable,
)
from runner.events import Event
from runner.manifest import Manifest
from runner.settings import BY_NAME, TABLE, Settings, config_name, resolve, service_config

F = TypeVar("F", bound=Callable[..., Any])

JOB_FAILED, USAGE, INVALID, UNAVAILABLE, TIMED_OUT, INTERRUPTED = 1, 2, 3, 4, 5, 130
"""Exit statuses besides 0; `--help` and docs/cli.md name them."""

LISTEN = ("HOST", "PORT", "SHUTDOWN_GRACE")
LOGGING = ("LOG_LEVEL", "LOG_FORMAT")
BROKER = ("SERVICES_BROKER", "BROKER_PASS", "NAMESPACE")

EPILOG = (
    "Exit status: 0 good, 1 a job failed, 2 usage, 3 a manifest or handler is wrong, 4 something "
    "is unavailable, 5 timed out, 130 interrupted."
)

until_eof = click.option("--until-eof", is_flag=True,
                         help="Also stop when standard input ends, as with whoever started it.")  # fmt: skip


def flags(*names: str) -> Callable[[F], F]:
    """Give a command the flags of these settings; their sentences come from the table."""

    def add(command: F) -> F:
        for name in reversed(names):
            row = BY_NAME[name]
            default = "" if row.default is None else f"  [default: {row.default}]"
            command = click.option(
                row.option or row.flag, row.name, metavar="VALUE", help=f"{row.help}{default}"
            )(command)
        return command

    return add


class _Failure(click.ClickException):
    """A failure of ours, as a person meets it: one sentence and an exit status."""

    def __init__(self, error: RunnerError) -> None:
        super().__init__(str(error))
        match error:
            case ManifestInvalid() | HandlerInvalid():
                self.exit_code = INVALID
            case SettingInvalid() | BadRequest():
                self.exit_code = USAGE
            case _:
                self.exit_code = UNAVAILABLE if error.status == 503 else JOB_FAILED

    def show(self, file: Any = None) -> None:
        """Say it on standard error."""
        _say(f"error: {self.message}")


class _Commands(click.Group):
    """The commands, none of which shows a traceback for a failure of ours."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(context)
        except RunnerError as error:
            raise _Failure(error) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@flags("MANIFEST", "SERVICE_MODE", *LISTEN, "CONCURRENCY", "QUEUE_SIZE", *BROKER, *LOGGING)
@click.option("--config", "config", multiple=True, metavar="KEY=VALUE",
              help="Set a config value of the manifest, such as model=en_core_web_sm.")  # fmt: skip
@until_eof
@click.version_option(metadata.version("nlp-runner"), prog_name="nlp-runner")
@click.pass_context
def cli(
    context: click.Context, config: tuple[str, ...], until_eof: bool, **flags_given: str | None
) -> None:
    """Serve NLP services: each is a manifest plus a handler.

    Alone, `nlp-runner --manifest manifests/ner.yaml` serves one service over HTTP; with
    `--mode worker` it works on the jobs of an orchestrator. `nlp-runner up` runs everything.

    Every flag is also an environment variable (--services-broker: SERVICES_BROKER), and may stand
    in .env; `nlp-runner config` shows what is in force and why.
    """
    if context.invoked_subcommand is not None:
        if any(flags_given.values()) or config or until_eof:
            raise click.UsageError("put the flags behind the command's name")
        return
    settings = _settings(flags_given)
    if settings.manifest is None:
        click.echo(context.get_help())
        context.exit(0)
    manifest = manifests.load(settings.manifest)
    settings = _settings(flags_given, manifest)
    logs.configure(settings.log_level, settings.log_format)
    values = _config_of(manifest, config)
    if until_eof:
        _stop_at_eof()
    if settings.service_mode == "worker":
        from runner import worker

        post = worker.Post(
            settings.broker_url, settings.namespace, settings.concurrency, settings.shutdown_grace
        )
        context.exit(worker.serve(manifest, values, post))
    _serve_http(manifest, values, settings)


def _serve_http(manifest: Manifest, values: Mapping[str, Any], settings: Settings) -> None:
    from runner import metrics, server

    several = settings.concurrency > 1
    with metrics.shared() if several else contextlib.nullcontext():
        server.serve(
            partial(http_app, str(manifest.path), dict(values), settings.queue_size),
            host=settings.host,
            port=settings.port,
            workers=settings.concurrency,
            grace=settings.shutdown_grace,
            reaped=metrics.forget if several else None,
        )


def http_app(path: str, values: dict[str, Any], queue_size: int) -> Any:
    """Make the HTTP door of one service, an ASGI application; called in each of its processes."""
    from runner import web

    return web.create(manifests.load(path), config=values, line=queue_size)


@cli.command()
@flags(*LISTEN, "DATABASE_URL", *BROKER, "MAX_WAIT", *LOGGING)
@until_eof
def orchestrator(until_eof: bool, **flags_given: str | None) -> None:
    """Find the living services, take jobs for them, and answer for every job."""
    from runner import server
    from runner.orchestrator import app
    from runner.orchestrator.life import Home

    settings = _settings(flags_given)
    logs.configure(settings.log_level, settings.log_format)
    if until_eof:
        _stop_at_eof()
    _make_room(settings.database_url)
    home = Home(settings.database_url, settings.broker_url, settings.namespace, settings.max_wait)
    server.serve(
        partial(app.create, home),
        host=settings.host,
        port=settings.port,
        grace=settings.shutdown_grace,
    )


@cli.command(name="up")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@flags(*LISTEN, "DATA_DIR", "DATABASE_URL", *BROKER, *LOGGING)
@click.option("--demo", is_flag=True, help="Once ready, send each service its examples.")
@click.option("--once", is_flag=True, help="Stop after --demo; the status says whether it worked.")
def up_(files: tuple[Path, ...], demo: bool, once: bool, **flags_given: str | None) -> None:
    """Run the whole platform on this machine: Redis, orchestrator, a worker for each manifest.

    Without FILES it serves manifests/*.yaml. Nothing but Python is needed: Redis is the one on
    PATH or the one of a wheel, and jobs are kept in SQLite.
    """
    from runner import up

    settings = _settings(flags_given)
    logs.configure(settings.log_level, settings.log_format)
    console = _console()
    chosen = _load_all(files)

    def then(client: Client) -> int | None:
        status = up.demonstrate(chosen, console, client)
        return status if once else None

    sys.exit(up.up(chosen, settings, os.environ, console, then=then if demo or once else None))


@cli.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--run", is_flag=True, help="Also import each handler and run its examples.")
def check(files: tuple[Path, ...], run: bool) -> None:
    """Validate manifests offline: every problem, with file and line.

    Without FILES it checks manifests/*.yaml.
    """
    from runner.testing import check_examples

    failed = False
    for path in files or _all_files():
        try:
            manifest = manifests.load(path)
            problems = [str(problem) for problem in check_examples(manifest)] if run else []
        except (ManifestInvalid, HandlerInvalid, SettingInvalid) as error:
            problems = str(error).splitlines()
        for problem in problems:
            click.echo(f"✗ {problem}", err=True)
        if not problems:
            ran = f", {len(manifest.examples)} examples run" if run else ""
            click.echo(f"✓ {path}: {manifest.name} {manifest.version}{ran}")
        failed = failed or bool(problems)
    if failed:
        sys.exit(INVALID)


@cli.command()
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("."), show_default=True,
              help="Where manifests/, handlers/ and tests/ stand.")  # fmt: skip
def new(name: str, folder: Path) -> None:
    """Write a new service: its manifest, its handler and a test, all working."""
    from runner import scaffold

    for path in scaffold.create(name, folder):
        click.echo(f"wrote {path}")
    stem = name.replace("-", "_")
    click.echo(
        f"\nNext:\n  nlp-runner check manifests/{name}.yaml --run\n"
        f"  pytest tests/handlers/test_{stem}.py\n"
        f"  nlp-runner --manifest manifests/{name}.yaml"
    )


@cli.command()
@click.argument("service")
@click.argument("texts", nargs=-1)
@click.option("--file", "paths", multiple=True, type=click.Path(path_type=Path),
              help="A text file, one document each; - is standard input.")  # fmt: skip
@click.option("--set", "parameters", multiple=True, metavar="KEY=VALUE",
              help="Another property of the input, as JSON or as plain text.")  # fmt: skip
@click.option("--local", is_flag=True, help="Run it in this process, without an orchestrator.")
@click.option("--config", "config", multiple=True, metavar="KEY=VALUE",
              help="With --local: a config value of the manifest.")  # fmt: skip
@flags("ORCHESTRATOR_URL", "MANIFEST")
def call(
    service: str, texts: tuple[str, ...], paths: tuple[Path, ...], parameters: tuple[str, ...],
    local: bool, config: tuple[str, ...], **flags_given: str | None,
) -> None:  # fmt: skip
    """Send texts to SERVICE, follow the job, and print the result as JSON.

    TEXTS may also be one JSON object, the whole input; with neither TEXTS nor --file, standard
    input is read.

    \b
    nlp-runner call ner "Marie Curie est née à Varsovie."
    nlp-runner call extractive-summarization --file article.txt --set sentences=2
    """
    if config and not local:
        raise click.UsageError("--config goes with --local; a running service has its own")
    settings = _settings(flags_given)
    given = [*texts, *(_read(path) for path in paths)] or [_read(Path("-"))]
    if local:
        path = settings.manifest or Path("manifests") / f"{service}.yaml"
        status, output, error = _run_here(manifests.load(path), given, parameters, config)
    else:
        client = Client(settings.orchestrator_url)
        inputs = _inputs(client.service(service)["manifest"]["input"], given, parameters)
        try:
            with _Display() as display:
                job = client.run(service, inputs, display.hear)
        except KeyboardInterrupt:
            _say("Interrupted; the job is canceled.")
            raise
        status, error = job["status"], job["error"] or {}
        output = client.result(job["id"]) if status == "succeeded" else None
    if status != "succeeded":
        _say(f"{status}: {error.get('code')}: {error.get('detail')}")
        for problem in error.get("errors", ())[1:]:
            _say(f"  {problem['pointer'] or '/'} {problem['message']}")
        sys.exit(TIMED_OUT if error.get("code") in ("timed_out", "expired") else JOB_FAILED)
    _print_json(output)


def _run_here(
    manifest: Manifest, texts: list[str], pairs: tuple[str, ...], config: tuple[str, ...]
) -> tuple[str, Any, dict[str, Any]]:
    """Run one request in this process: how it ended, its output, and its problem document."""
    from runner.engine import Engine

    logs.configure("warning", "console")
    inputs = _inputs(manifest.input, texts, pairs)
    engine = Engine(manifest, _config_of(manifest, config))
    with _Display() as display:
        outcome = engine.run("local", inputs, emit=display.hear_event)
    engine.close()
    return outcome.status, outcome.output, outcome.error.to_problem() if outcome.error else {}


@cli.command()
@flags("ORCHESTRATOR_URL")
def services(**flags_given: str | None) -> None:
    """List the services that the orchestrator knows, and who serves them."""
    listed = Client(_settings(flags_given).orchestrator_url).get("/v1/services")["services"]
    table = Table("service", "version", "languages", "status", "slots", "summary", box=None)
    for one in listed:
        languages = ", ".join(one["languages"]) or "-"
        words = one["summary"] if one["status"] == "available" else one["reason"]
        table.add_row(one["name"], one["version"], languages, one["status"], str(one["slots"]),
                      words)  # fmt: skip
    _console().print(table if listed else "No service is known yet.")


@cli.command()
@click.argument("job_id", required=False)
@click.option("--status", help="Only those: queued, running, succeeded, failed or canceled.")
@click.option("--service", help="Only those of this service.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--cancel", is_flag=True, help="Cancel the job JOB_ID.")
@flags("ORCHESTRATOR_URL")
def jobs(
    job_id: str | None, status: str | None, service: str | None, limit: int, cancel: bool,
    **flags_given: str | None,
) -> None:  # fmt: skip
    """List the newest jobs, or show the one with JOB_ID."""
    client = Client(_settings(flags_given).orchestrator_url)
    if job_id is not None:
        _print_json(client.cancel(job_id) if cancel else client.job(job_id))
        return
    if cancel:
        raise click.UsageError("--cancel needs a JOB_ID")
    page = client.get("/v1/jobs", status=status, service=service, limit=limit)
    table = Table("job", "service", "status", "progress", "created", box=None)
    for job in page["jobs"]:
        percent = (job["progress"] or {}).get("percent")
        shown = "" if percent is None else f"{percent:.0f} %"
        words = f"{job['status']} ({job['reason']})" if job["reason"] else job["status"]
        table.add_row(job["id"], job["service"], words, shown, job["created_at"])
    _console().print(table if page["jobs"] else "No jobs yet.")


@cli.command(name="config")
@click.option("--manifest", "MANIFEST", metavar="FILE", help="Also show this service's config.")
def config_(**flags_given: str | None) -> None:
    """Show every setting in force and where its value came from.

    Flag > environment > .env > .envdefault > manifest > built-in.
    """
    settings = _settings(flags_given)
    manifest = manifests.load(settings.manifest) if settings.manifest else None
    settings = _settings(flags_given, manifest)
    table = Table("setting", "value", "from", "meaning", box=None)
    for row in TABLE:
        table.add_row(row.name, settings.shown(row.name), settings.origin(row.name), row.help)
    if manifest is not None:
        chosen = _configured(manifest, ())
        for key, schema in manifest.config.items():
            value, origin = chosen.get(key, (schema["default"], "manifest"))
            table.add_row(config_name(manifest.name, key), str(value), origin,
                          schema.get("description", ""))  # fmt: skip
    _console().print(table)


def main() -> None:
    """Run the command."""
    cli(prog_name="nlp-runner")


# --- what commands share -------------------------------------------------------------------------


def _settings(given: Mapping[str, Any], manifest: Manifest | None = None) -> Settings:
    limits = manifest.document.get("limits", {}) if manifest else {}
    said = {"CONCURRENCY": limits.get("concurrency")}
    return resolve(flags=given, environ=os.environ, folder=Path.cwd(), manifest=said)


def _config_of(manifest: Manifest, pairs: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, (value, _) in _configured(manifest, pairs).items()}


def _configured(manifest: Manifest, pairs: tuple[str, ...]) -> dict[str, tuple[Any, str]]:
    return service_config(
        manifest.name, manifest.config, flags=_pairs(pairs), environ=os.environ, folder=Path.cwd()
    )


def _pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise click.UsageError(f"{pair!r} is not KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _all_files() -> list[Path]:
    found = sorted(Path("manifests").glob("*.yaml"))
    if not found:
        raise Unavailable("There is no manifests/*.yaml here; name the files, or change folder.")
    return found


def _load_all(files: tuple[Path, ...]) -> list[Manifest]:
    """Load every manifest, and tell the problems of all of them at once."""
    loaded: list[Manifest] = []
    problems: list[Problem] = []
    for path in files or _all_files():
        try:
            loaded.append(manifests.load(path))
        except ManifestInvalid as error:
            problems += error.problems
    if problems:
        raise ManifestInvalid(problems=problems)
    return loaded


def _read(path: Path) -> str:
    """Return the text of a file; `-` is standard input."""
    try:
        if str(path) != "-":
            return path.read_text("utf-8-sig")
        if sys.stdin.isatty():
            _say("Reading from the keyboard; end with Ctrl-D.")
        return click.get_binary_stream("stdin").read().decode("utf-8-sig")
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} cannot be read: it is not UTF-8 text") from None


def _inputs(schema: Mapping[str, Any], texts: list[str], pairs: tuple[str, ...]) -> dict[str, Any]:
    """Put texts where the service's input takes them: `documents`, else its one string."""
    parameters = {key: _value(text) for key, text in _pairs(pairs).items()}
    if len(texts) == 1 and texts[0].lstrip().startswith("{"):
        try:
            whole = _json(texts[0])
        except ValueError as error:
            raise click.UsageError(f"the input is not JSON: {error}") from None
        return {**whole, **parameters}
    properties = schema.get("properties", {})
    if properties.get("documents", {}).get("type") == "array":
        return {"documents": texts, **parameters}
    strings = [name for name in schema.get("required", ())
               if properties.get(name, {}).get("type") == "string"]  # fmt: skip
    if len(strings) == 1 and len(texts) == 1:
        return {strings[0]: texts[0], **parameters}
    raise click.UsageError(
        f"this service does not take plain texts; give its input as one JSON object with "
        f"{', '.join(properties)}"
    )


def _value(text: str) -> Any:
    try:
        return _json(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    """Read JSON as RFC 8259 has it, without NaN; raises `ValueError`."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _print_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if sys.stdout.isatty():
        Console().print_json(text)
    else:
        click.echo(text)


def _say(text: str) -> None:
    """Say something to the person at the terminal, whoever's words it may hold."""
    click.echo(logs.printable(text), err=True)


def _console() -> Console:
    """Return a console for texts that may hold anything; what is piped on is not cut to fit."""
    wide = None if sys.stdout.isatty() else 200
    return Console(highlight=False, markup=False, emoji=False, width=wide)


def _make_room(database_url: str) -> None:
    """Make the folder of an SQLite database."""
    if database_url.startswith("sqlite:///"):
        folder = Path(database_url.removeprefix("sqlite:///")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{folder} cannot be made: {error.strerror}.") from None


def _stop_at_eof() -> None:
    """Stop this process when its input ends: whoever held the other end is gone, even killed."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="until-eof", daemon=True).start()


class _Display:
    """The live progress of one job, on standard error where a person watches."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("queued", total=100)

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def hear(self, name: str, data: Mapping[str, Any]) -> None:
        """Show one event of the job's story."""
        if name == "status" and data.get("status") == "queued" and data.get("position"):
            self._progress.update(self._task, description=f"queued behind {data['position']}")
        if name == "log":
            line = logs.printable(f"{data['level']}: {data['message']}")
            self._progress.console.print(line, soft_wrap=True)
        picture = data.get("progress")
        if picture:
            titles = {step["name"]: step["title"] for step in picture["steps"]}
            title = titles.get(picture["step"], "working")
            self._progress.update(self._task, description=title, completed=picture["percent"])

    def hear_event(self, event: Event) -> None:
        """Show one event of an execution in this process."""
        self.hear(event.kind, event.to_json())
