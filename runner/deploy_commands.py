"""The commands of whoever deploys: write the files that start everything, ask whether it lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import httpx

from runner import compose, image, kubernetes, pulse, source
from runner.command import INVALID, all_files, flags, load_all, settings_of
from runner.errors import Unavailable
from runner.settings import config_name

NEW = """
{name} is new. Choose {secret} in .env, and start it: docker compose up -d --build
Where nothing may restart, make its user of Redis, and start it alone:
  docker compose exec redis redis-cli --user admin ACL SETUSER worker-{name} on '>PASSWORD' {rules}
  docker compose up -d --build --no-deps {name}"""

FILES = click.argument("files", nargs=-1, type=click.Path(path_type=Path))


@click.command(name="compose")
@FILES
@click.option(
    "-o",
    "--output",
    default="docker-compose.yml",
    show_default=True,
    type=click.Path(allow_dash=True, path_type=Path),
    help="The file to write; - prints.",
)
@click.option("--check", is_flag=True, help="Write nothing; say whether the file is up to date.")
def compose_(files: tuple[Path, ...], output: Path, check: bool) -> None:
    """Write docker-compose.yml with a service for each manifest.

    Without FILES it takes manifests/*.yaml.
    """
    manifests = load_all(files or all_files())
    text = compose.compose_file(manifests)
    if str(output) == "-":
        click.echo(text, nl=False)
    elif check:
        if not output.is_file() or output.read_text("utf-8") != text:
            click.echo(
                f"{output} is not what the manifests say; run `nlp-runner compose`.", err=True
            )
            raise SystemExit(INVALID)
    else:
        before = output.read_text("utf-8") if output.is_file() else text
        output.write_text(text, "utf-8")
        click.echo(f"{output} written.")
        for manifest in manifests:
            if f"\n  {manifest.name}:\n" not in before:
                click.echo(NEW.format(
                    name=manifest.name, secret=config_name(manifest.name, "broker_pass"),
                    rules=compose.worker_rules(manifest),
                ))  # fmt: skip


@click.command(name="image")
@click.argument("service")
@click.argument("target", type=click.Path(path_type=Path))
def image_(service: str, target: Path) -> None:
    """Copy into the folder TARGET what the image of SERVICE holds of this one.

    Dockerfile.base asks for it; `orchestrator` is a service here, too.
    """
    image.gather(service, Path(), target)


@click.command(name="health")
@flags("SERVICE_MODE", "PORT")
def health(**flags_given: Any) -> None:
    """Ask the server or the worker of this machine whether it lives: the health check of an image.

    Exit status 0 means that requests or jobs are taken, 4 that they are not.
    """
    settings = settings_of(flags_given)
    if settings.service_mode == "worker":
        click.echo(pulse.feel())
        return
    url = f"http://127.0.0.1:{settings.port}/readyz"
    try:
        answer = httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError as error:
        raise Unavailable(f"{url} does not answer: {type(error).__name__}.") from None
    if answer.status_code != 200:
        raise Unavailable(f"{url} answers {answer.status_code}: {answer.text[:500]}")
    click.echo("ready")


@click.command(name="kubernetes")
@FILES
@click.option(
    "-o",
    "--output",
    default="-",
    show_default=True,
    type=click.Path(allow_dash=True, path_type=Path),
    help="The file to write; - prints.",
)
@click.option(
    "--images",
    default="nlp-runner",
    show_default=True,
    help="What stands before each image's name, such as registry.example/nlp-runner.",
)
@click.option("--tag", default="latest", show_default=True, help="The tag of the images.")
@click.option(
    "--redis",
    default="redis://redis:6379/0",
    show_default=True,
    help="The Redis of the cluster, without its password.",
)
@click.option(
    "--prometheus",
    default="",
    help="The Prometheus that KEDA asks how long jobs wait; without it workers are not scaled.",
)
@click.option(
    "--redis-users",
    "users",
    is_flag=True,
    help="Each part is its own user of Redis, as docs/deploy.md says; the Secret has a key such as "
    "NER_BROKER_PASS for each service.",
)
def kubernetes_(files: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Write the Kubernetes resources of the orchestrator and of a worker for each manifest.

    Secrets are named, not written: make the Secret `nlp-runner` with the keys BROKER_PASS,
    WIRE_SECRET and DATABASE_URL first. Without FILES it takes manifests/*.yaml.
    """
    cluster = kubernetes.Cluster(**options)
    text = source.write(kubernetes.resources(load_all(files or all_files()), cluster))
    if str(output) == "-":
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"{output} written.")
