"""The `nlp-runner` command; the only place that wires the rooms together.

A door and what it needs are imported inside their command, so that no command pays for another.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
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
    HandlerInvalid,
    ManifestInvalid,
    Problem,
    RunnerError,
    SettingInvalid,
    Unavailable,
)
from runner.events import Event
from runner.manifest import Manifest
from runner.settings import BY_NAME, TABLE, Settings, resolve, service_config

F = TypeVar("F", bound=Callable[..., Any])

JOB_FAILED, USAGE, INVALID, UNAVAILABLE, TIMED_OUT = 1, 2, 3, 4, 5
"""Exit statuses besides 0; `--help` and docs/cli.md name them."""

LISTEN = ("HOST", "PORT", "SHUTDOWN_GRACE")
LOGGING = ("LOG_LEVEL", "LOG_FORMAT")
BROKER = ("SERVICES_BROKER", "BROKER_PASS", "NAMESPACE")

EPILOG = "Exit status: 0 good, 1 a job failed, 2 usage, 3 a manifest or handler is wrong, 4 something is unavailable, 5 timed out."  # noqa: E501


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


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@flags("MANIFEST", "SERVICE_MODE", *LISTEN, "CONCURRENCY", "QUEUE_SIZE", *BROKER, *LOGGING)
@click.option("--config", "config", multiple=True, metavar="KEY=VALUE",
              help="Set a config value of the manifest, such as model=en_core_web_sm.")  # fmt: skip
@click.version_option(metadata.version("nlp-runner"), prog_name="nlp-runner")
@click.pass_context
def cli(context: click.Context, config: tuple[str, ...], **flags_given: str | None) -> None:
    """Serve NLP services: each is a manifest plus a handler.

    Alone, `nlp-runner --manifest manifests/ner.yaml` serves one service over HTTP; with
    `--mode worker` it works on the jobs of an orchestrator. `nlp-runner up` runs everything.

    Every flag is also an environment variable (--services-broker: SERVICES_BROKER), and may stand
    in .env; `nlp-runner config` shows what is in force and why.
    """
    if context.invoked_subcommand is not None:
        if any(flags_given.values()) or config:
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
def orchestrator(**flags_given: str | None) -> None:
    """Find the living services, take jobs for them, and answer for every job."""
    from runner import server
    from runner.orchestrator import app
    from runner.orchestrator.life import Home

    settings = _settings(flags_given)
    logs.configure(settings.log_level, settings.log_format)
    if settings.database_url.startswith("sqlite:///"):
        Path(settings.database_url.removeprefix("sqlite:///")).parent.mkdir(
            parents=True, exist_ok=True
        )
    home = Home(settings.database_url, settings.broker_url, settings.namespace, settings.max_wait)
    server.serve(
        partial(app.create, home),
        host=settings.host,
        port=settings.port,
        grace=settings.shutdown_grace,
    )


@cli.command(name="up")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@flags(*LISTEN, "DATA_DIR", "DATABASE_URL", *BROKER)
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
    console = Console(highlight=False)
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
        except (ManifestInvalid, HandlerInvalid) as error:
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
    settings = _settings(flags_given)
    given = [*texts, *(_read(path) for path in paths)]
    if not given:
        given = [sys.stdin.read()]
    with _Display() as display:
        if local:
            from runner.engine import Engine

            manifest = manifests.load(settings.manifest or Path("manifests") / f"{service}.yaml")
            inputs = _inputs(manifest.input, given, parameters)
            engine = Engine(manifest, _config_of(manifest, config))
            outcome = engine.run("local", inputs, emit=display.hear_event)
            engine.close()
            status, output = outcome.status, outcome.output
            error = outcome.error.to_problem() if outcome.error else None
        else:
            client = Client(settings.orchestrator_url)
            known = client.get(f"/v1/services/{service}")["manifest"]
            job = client.run(service, _inputs(known["input"], given, parameters), display.hear)
            status, error = job["status"], job["error"]
            output = client.result(job["id"]) if status == "succeeded" else None
    if error is not None:
        click.echo(f"{status}: {error['code']}: {error['detail']}", err=True)
        for problem in error.get("errors", ())[1:]:
            click.echo(f"  {problem['pointer'] or '/'} {problem['message']}", err=True)
        sys.exit(TIMED_OUT if error["code"] == "timed_out" else JOB_FAILED)
    _print_json(output)


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
    Console(highlight=False).print(table if listed else "No service is known yet.")


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
        _print_json(client.post(f"/v1/jobs/{job_id}/cancel") if cancel
                    else client.get(f"/v1/jobs/{job_id}"))  # fmt: skip
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
    Console(highlight=False).print(table if page["jobs"] else "No jobs yet.")


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
        chosen = _config_of(manifest, ())
        prefix = manifest.name.upper().replace("-", "_")
        for key, schema in manifest.config.items():
            table.add_row(f"{prefix}_{key.upper()}", str(chosen.get(key, schema["default"])),
                          "environment or file" if key in chosen else "manifest",
                          schema.get("description", ""))  # fmt: skip
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def main() -> None:
    """Run the command; a failure of ours is one sentence and an exit status."""
    try:
        cli(prog_name="nlp-runner", standalone_mode=True)
    except RunnerError as error:
        click.echo(f"error: {error}", err=True)
        match error:
            case ManifestInvalid() | HandlerInvalid():
                sys.exit(INVALID)
            case SettingInvalid():
                sys.exit(USAGE)
            case Unavailable():
                sys.exit(UNAVAILABLE)
        sys.exit(UNAVAILABLE if error.status == 503 else JOB_FAILED)


# --- what commands share -------------------------------------------------------------------------


def _settings(given: Mapping[str, Any], manifest: Manifest | None = None) -> Settings:
    said = {"CONCURRENCY": manifest.limits.concurrency} if manifest else {}
    return resolve(flags=given, environ=os.environ, folder=Path.cwd(), manifest=said)


def _config_of(manifest: Manifest, pairs: tuple[str, ...]) -> dict[str, Any]:
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
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from None


def _inputs(schema: Mapping[str, Any], texts: list[str], pairs: tuple[str, ...]) -> dict[str, Any]:
    """Put texts where the service's input takes them: `documents`, else its one string."""
    parameters = {key: _value(text) for key, text in _pairs(pairs).items()}
    if len(texts) == 1 and texts[0].lstrip().startswith("{"):
        try:
            whole = json.loads(texts[0])
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
        return json.loads(text)
    except ValueError:
        return text


def _print_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if sys.stdout.isatty():
        Console().print_json(text)
    else:
        click.echo(text)


class _Display:
    """The live progress of one job, on standard error where a person watches."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
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
            self._progress.console.print(f"{data['level']}: {data['message']}")
        picture = data.get("progress")
        if picture:
            titles = {step["name"]: step["title"] for step in picture["steps"]}
            title = titles.get(picture["step"], "working")
            self._progress.update(self._task, description=title, completed=picture["percent"])

    def hear_event(self, event: Event) -> None:
        """Show one event of an execution in this process."""
        self.hear(event.kind, event.to_json())
