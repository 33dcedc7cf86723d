"""What every command has in common: its flags, the settings in force, and how it fails."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

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
from runner.manifest import Manifest
from runner.settings import (
    BY_NAME,
    TABLE,
    Settings,
    config_name,
    resolve,
    service_config,
    written,
)
from runner.terminal import pairs, say

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

JOB_FAILED, USAGE, INVALID, UNAVAILABLE, TIMED_OUT, INTERRUPTED = 1, 2, 3, 4, 5, 130
"""Exit statuses besides 0; `--help` and docs/cli.md name them."""

SERVING = "runner.serving"
"""Where a command that serves leaves its flags."""

EPILOG = (
    "Exit status: 0 good, 1 a job failed, 2 usage, 3 a manifest or handler is wrong, 4 something "
    "is unavailable, 5 timed out, 130 interrupted."
)


class Commands(click.Group):
    """Commands that say a failure of ours in a sentence, and never with a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(context)
        except RunnerError as error:
            complain(error, context.meta.get(SERVING))
            raise click.exceptions.Exit(status_of(error)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def complain(error: RunnerError, serving: Mapping[str, Any] | None = None) -> None:
    """Say why a command ends; one that serves (with these flags) does so in the form of its log."""
    row = BY_NAME["LOG_FORMAT"]
    with contextlib.suppress(SettingInvalid):
        found = resolve(flags=serving, environ=os.environ, folder=Path.cwd(), table=(row,))
        if serving is not None and found.log_format == "json":
            logs.configure("error", "json")
            log.error("%s", error)
            return
    say(f"error: {error}")


def status_of(error: RunnerError) -> int:
    """Return the exit status of a command that ends with this failure."""
    match error:
        case ManifestInvalid() | HandlerInvalid():
            return INVALID
        case SettingInvalid():
            return USAGE
    known = {400: USAGE, 401: USAGE, 403: USAGE, 404: USAGE, 503: UNAVAILABLE}
    return known.get(error.status, JOB_FAILED)


# --- flags ---------------------------------------------------------------------------------------


def flags(*names: str) -> Callable[[F], F]:
    """Give a command the flags of these settings; their sentences come from the table."""

    def add(command: F) -> F:
        for name in reversed(names):
            row = BY_NAME[name]
            default = "" if row.default is None else f"  [default: {written(row.default)}]"
            option = click.option(row.flag, row.name, metavar="VALUE", help=f"{row.help}{default}")
            command = option(command)
        return command

    return add


until_eof = click.option(
    "--until-eof",
    is_flag=True,
    callback=lambda context, parameter, wanted: stop_at_eof() if wanted else None,
    expose_value=False,
    help="Stop when standard input ends too: with whoever started it.",
)


def stop_at_eof() -> None:
    """Stop this process when its input ends: whoever held the other end is gone, even killed."""

    def wait() -> None:
        with contextlib.suppress(OSError):  # an input that was closed has ended too
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="until-eof", daemon=True).start()


# --- settings and manifests ----------------------------------------------------------------------


def settings_of(given: Mapping[str, Any], manifest: Manifest | None = None) -> Settings:
    """Return the settings in force, with the flags given and what the manifest says."""
    limits = manifest.document.get("limits", {}) if manifest else {}
    said = {"CONCURRENCY": limits.get("concurrency")}
    return resolve(flags=given, environ=os.environ, folder=Path.cwd(), manifest=said)


def serving(given: Mapping[str, Any]) -> Settings:
    """Return the settings of a command that serves, with the flags given."""
    click.get_current_context().meta[SERVING] = given
    return settings_of(given)


def client_of(given: Mapping[str, Any]) -> Client:
    """Return a client of the orchestrator that the settings name, with their key."""
    settings = settings_of(given)
    return Client(settings.orchestrator_url, key=settings.api_key)


def settings_rows(settings: Settings, manifest: Manifest | None) -> list[tuple[str, ...]]:
    """Return name, value, origin and meaning of every setting, and of a service's config."""
    rows: list[tuple[str, ...]] = [
        (s.name, settings.shown(s.name), settings.origin(s.name), s.help) for s in TABLE
    ]
    if manifest is not None:
        chosen = configured(manifest, ())
        for key, schema in manifest.config.items():
            value, origin = chosen.get(key, (schema["default"], "manifest"))
            about = schema.get("description", "")
            rows.append((config_name(manifest.name, key), str(value), origin, about))
    return rows


def configured(manifest: Manifest, texts: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """Return the operator's values for a manifest's config, each with its origin."""
    return service_config(
        manifest.name, manifest.config, flags=pairs(texts), environ=os.environ, folder=Path.cwd()
    )


def config_of(manifest: Manifest, texts: Iterable[str]) -> dict[str, Any]:
    """Return the operator's values for a manifest's config."""
    return {key: value for key, (value, _) in configured(manifest, texts).items()}


def make_room(database_url: str) -> None:
    """Make the folder of an SQLite database; raises `Unavailable`."""
    if database_url.startswith("sqlite:///"):
        folder = Path(database_url.removeprefix("sqlite:///")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{folder} cannot be made: {error.strerror}.") from None


def all_files() -> list[Path]:
    """Return the manifests of this folder."""
    found = sorted(Path("manifests").glob("*.yaml"))
    if not found:
        raise Unavailable("There is no manifests/*.yaml here; name the files, or change folder.")
    return found


def load_all(files: Iterable[Path]) -> list[Manifest]:
    """Load manifests of different names, and tell the problems of all of them at once."""
    loaded: dict[str, Manifest] = {}
    problems: list[Problem] = []
    for path in files:
        try:
            manifest = manifests.load(path)
        except ManifestInvalid as error:
            problems += error.problems
            continue
        if before := loaded.get(manifest.name):
            sentence = f"`{manifest.name}` is the name of {before.path} too"
            problems.append(Problem("/name", "duplicate", sentence, file=str(path)))
        loaded[manifest.name] = manifest
    if problems:
        raise ManifestInvalid(problems=problems)
    return list(loaded.values())
