"""The commands of whoever deploys: write the files that start everything, ask whether it lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import httpx

from runner import compose, pulse
from runner.command import INVALID, all_files, flags, load_all, settings_of
from runner.errors import Unavailable

FILES = click.argument("files", nargs=-1, type=click.Path(path_type=Path))


@click.command(name="compose")
@FILES
@click.option("-o", "--output", default="docker-compose.yml", show_default=True,
              type=click.Path(allow_dash=True, path_type=Path), help="The file to write; - prints.")
@click.option("--check", is_flag=True, help="Write nothing; say whether the file is up to date.")
def compose_(files: tuple[Path, ...], output: Path, check: bool) -> None:
    """Write docker-compose.yml with a service for each manifest.

    Without FILES it takes manifests/*.yaml.
    """
    text = compose.compose_file(load_all(files or all_files()))
    if str(output) == "-":
        click.echo(text, nl=False)
    elif check:
        if not output.is_file() or output.read_text("utf-8") != text:
            click.echo(f"{output} is not what the manifests say; run `nlp-runner compose`.", err=True)
            raise SystemExit(INVALID)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"{output} written.")


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
