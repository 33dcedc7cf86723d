"""The `nlp-runner` command; the only place that wires the rooms together.

A door and what it needs are imported inside their command, so that no command pays for another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from runner import author_commands, deploy_commands, key_commands, logs, terminal
from runner import manifest as manifests
from runner.client import Client
from runner.command import (
    EPILOG,
    INTERRUPTED,
    JOB_FAILED,
    TIMED_OUT,
    Commands,
    all_files,
    client_of,
    config_of,
    flags,
    load_all,
    make_room,
    serving,
    settings_of,
    settings_rows,
    until_eof,
)
from runner.language import ANY
from runner.manifest import Manifest
from runner.narrowing import narrowed
from runner.settings import Settings, linto_defaults

log = logging.getLogger(__name__)

LINTO = ("SERVICE_NAME", "MODEL_INFO", "QUEUE_NAME", "LANGUAGE")
CALLING = ("ORCHESTRATOR_URL", "API_KEY")
LISTEN, LOGGING = ("HOST", "PORT", "SHUTDOWN_GRACE"), ("LOG_LEVEL", "LOG_FORMAT")
BROKER = ("SERVICES_BROKER", "BROKER_PASS", "WIRE_SECRET", "NAMESPACE")


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@flags("MANIFEST", "SERVICE_MODE", *LISTEN, "CONCURRENCY", "QUEUE_SIZE", *BROKER, *LINTO, *LOGGING)
@click.option("--config", "config", multiple=True, metavar="KEY=VALUE",
              help="Set a config value of the manifest, such as model=en_core_web_sm.")  # fmt: skip
@until_eof
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
    settings = serving(flags_given)
    if settings.manifest is None:
        click.echo(context.get_help())
        context.exit(0)
    manifest = manifests.load(settings.manifest)
    settings = settings_of(flags_given, manifest)
    logs.configure(settings.log_level, settings.log_format)
    values = config_of(manifest, config)
    if settings.service_mode == "worker":
        from runner import post, worker

        context.exit(worker.serve(manifest, values, post.post_of(settings)))
    _serve_http(narrowed(manifest, settings.language), values, settings)


def _serve_http(manifest: Manifest, values: Mapping[str, Any], settings: Settings) -> None:
    from runner import metrics, server

    make = partial(
        http_app, str(manifest.path), dict(values), settings.queue_size,
        settings.log_level, settings.log_format, settings.language,
    )  # fmt: skip
    several = settings.concurrency > 1
    with metrics.shared() if several else contextlib.nullcontext():
        server.serve(
            make,
            host=settings.host, port=settings.port, workers=settings.concurrency,
            grace=settings.shutdown_grace, reaped=metrics.forget if several else None,
        )  # fmt: skip


def http_app(
    path: str, values: dict[str, Any], queue_size: int, log_level: str, log_format: str,
    languages: tuple[str, ...],
) -> Any:  # fmt: skip
    """Make the HTTP door of one service, an ASGI application; called in each of its processes."""
    from runner import web

    logs.configure(log_level, log_format)
    manifest = narrowed(manifests.load(path), languages)
    if manifest.languages and ANY not in languages:
        log.info("%s takes %s only (LANGUAGE)", manifest.name, ", ".join(manifest.languages))
    return web.create(manifest, config=values, line=queue_size)


@cli.command()
@flags(*LISTEN, "AUTH", "DATABASE_URL", *BROKER, "MAX_WAIT", "RETENTION", "RESOLVE_POLICY",
       "LANGUAGE", "WEBHOOK_SECRET", "WEBHOOK_ALLOW", *LOGGING)  # fmt: skip
@until_eof
def orchestrator(**flags_given: str | None) -> None:
    """Find the living services, take jobs for them, and answer for every job."""
    from runner import server
    from runner.orchestrator import app
    from runner.orchestrator.home import Home

    settings = serving(flags_given)
    logs.configure(settings.log_level, settings.log_format)
    make_room(settings.database_url)
    home = Home.of(settings, linto_defaults(environ=os.environ, folder=Path.cwd()))
    make = partial(app.create, home)
    server.serve(make, host=settings.host, port=settings.port, grace=settings.shutdown_grace)


@cli.command(name="up")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@flags(*LISTEN, "AUTH", "DATA_DIR", "DATABASE_URL", *BROKER, *LOGGING)
@click.option("--demo", is_flag=True, help="Once ready, send each service its examples.")
@click.option("--once", is_flag=True, help="Stop after --demo; the status says whether it worked.")
def up_(files: tuple[Path, ...], demo: bool, once: bool, **flags_given: str | None) -> None:
    """Run the whole platform on this machine: Redis, orchestrator, a worker for each manifest.

    Without FILES it serves manifests/*.yaml. Nothing but Python is needed: Redis is the one on
    PATH or the one of a wheel, and jobs are kept in SQLite.
    """
    from runner import up

    settings = serving(flags_given)
    logs.configure(settings.log_level, settings.log_format)
    console = terminal.console()
    chosen = load_all(files or all_files())

    def then(client: Client) -> int | None:
        status = up.demonstrate(chosen, console, client)
        return status if once else None

    todo = then if demo or once else None
    with key_commands.visiting(settings) as key:
        status = up.up(chosen, settings, os.environ, console, key=key, then=todo)
    sys.exit(status)


for command in (
    author_commands.check, author_commands.new, key_commands.keys, deploy_commands.compose_,
    deploy_commands.kubernetes_, deploy_commands.image_, deploy_commands.health,
):  # fmt: skip
    cli.add_command(command)


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
@flags(*CALLING, "MANIFEST")
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
    settings = settings_of(flags_given)
    given = terminal.read_all(texts, paths)
    if local:
        path = settings.manifest or Path("manifests") / f"{service}.yaml"
        status, output, error = _run_here(manifests.load(path), given, parameters, config)
    else:
        client = Client(settings.orchestrator_url, key=settings.api_key)
        inputs = terminal.inputs(client.service(service)["manifest"]["input"], given, parameters)
        try:
            with terminal.Display() as display:
                job = client.run(service, inputs, display.hear)
        except KeyboardInterrupt:
            terminal.say("Interrupted; the job is canceled.")
            raise
        status, error = job["status"], job["error"] or {}
        output = client.result(job["id"]) if status == "succeeded" else None
    if status != "succeeded":
        terminal.say_problem(status, error)
        if status == "canceled" and local:
            sys.exit(INTERRUPTED)
        sys.exit(TIMED_OUT if error.get("code") in ("timed_out", "expired") else JOB_FAILED)
    terminal.print_json(output)


def _run_here(
    manifest: Manifest, texts: list[str], pairs: tuple[str, ...], config: tuple[str, ...]
) -> tuple[str, Any, dict[str, Any]]:
    """Run one request in this process: how it ended, its output, and its problem document."""
    from runner.engine import Engine

    logs.configure("warning", "console")
    inputs = terminal.inputs(manifest.input, texts, pairs)
    engine = Engine(manifest, config_of(manifest, config))
    with terminal.Display() as display:
        outcome = engine.run("local", inputs, emit=display.hear_event)
    engine.close()
    return outcome.status, outcome.output, outcome.error.to_problem() if outcome.error else {}


@cli.command()
@flags(*CALLING)
def services(**flags_given: str | None) -> None:
    """List the services that the orchestrator knows, and who serves them."""
    terminal.show_services(client_of(flags_given).get("/v1/services")["services"])


@cli.command()
@click.argument("job_id", required=False)
@click.option("--status", help="Only those: queued, running, succeeded, failed or canceled.")
@click.option("--service", help="Only those of this service.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--cancel", is_flag=True, help="Cancel the job JOB_ID.")
@flags(*CALLING)
def jobs(
    job_id: str | None, status: str | None, service: str | None, limit: int, cancel: bool,
    **flags_given: str | None,
) -> None:  # fmt: skip
    """List the newest jobs, or show the one with JOB_ID."""
    client = client_of(flags_given)
    if job_id is not None:
        terminal.print_json(client.cancel(job_id) if cancel else client.job(job_id))
        return
    if cancel:
        raise click.UsageError("--cancel needs a JOB_ID")
    page = client.get("/v1/jobs", status=status, service=service, limit=limit)
    terminal.show_jobs(page["jobs"])


@cli.command(name="config")
@click.option("--manifest", "MANIFEST", metavar="FILE", help="Also show this service's config.")
def config_(**flags_given: str | None) -> None:
    """Show every setting in force and where its value came from.

    Flag > environment > .env > .envdefault > manifest > built-in.
    """
    settings = settings_of(flags_given)
    manifest = manifests.load(settings.manifest) if settings.manifest else None
    settings = settings_of(flags_given, manifest)
    terminal.show(("setting", "value", "from", "meaning"), settings_rows(settings, manifest))


def main() -> None:
    """Run the command."""
    cli(prog_name="nlp-runner")
