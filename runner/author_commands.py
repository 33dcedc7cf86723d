"""The commands for authors: check manifests, and write a new service."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runner import manifest as manifests
from runner import terminal
from runner.command import INVALID, all_files
from runner.errors import HandlerInvalid, ManifestInvalid, SettingInvalid


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--run", is_flag=True, help="Also import each handler and run its examples.")
def check(files: tuple[Path, ...], run: bool) -> None:
    """Validate manifests offline: every problem, with file and line.

    Without FILES it checks manifests/*.yaml.
    """
    from runner.testing import check_examples

    failed = False
    for path in files or all_files():
        try:
            manifest = manifests.load(path)
            problems = [str(problem) for problem in check_examples(manifest)] if run else []
        except (ManifestInvalid, HandlerInvalid, SettingInvalid) as error:
            problems = str(error).splitlines()
        for problem in problems:
            terminal.say(f"✗ {problem}")
        if not problems:
            ran = f", {len(manifest.examples)} examples run" if run else ""
            click.echo(f"✓ {path}: {manifest.name} {manifest.version}{ran}")
        failed = failed or bool(problems)
    if failed:
        sys.exit(INVALID)


@click.command()
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
        f"  nlp-runner --manifest manifests/{name}.yaml\n"
        "  nlp-runner compose   # where the platform runs in containers"
    )
