"""One table of settings, and a frozen object that knows where each value came from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit, urlunsplit

from dotenv import dotenv_values

from runner import signature, words
from runner.errors import SettingInvalid
from runner.language import ANY
from runner.targets import Allowed

ORIGINS = ("flag", "environment", ".env", ".envdefault", "manifest", "built-in")
"""Where a value can come from, the strongest first."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: its environment name, type, default and sentence."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    secret: bool = False
    option: str = ""
    older: str = ""

    @property
    def key(self) -> str:
        """The attribute under which the value is read: `services_broker`."""
        return self.name.lower()

    @property
    def flag(self) -> str:
        """The command-line flag: `--services-broker`; `option` where the name would be clumsy."""
        return self.option or "--" + self.key.replace("_", "-")


TABLE: tuple[Setting, ...] = (
    Setting("HOST", str, "127.0.0.1", "Address to listen on; 0.0.0.0 for every interface."),
    Setting("PORT", words.whole(0, 65535), 8000, "Port to listen on."),
    Setting("MANIFEST", str, None, "The manifest of the service to serve."),
    Setting("SERVICE_MODE", words.mode, "http", "How to serve it: http, or worker (also: task).",
            option="--mode"),
    Setting("CONCURRENCY", words.whole(1), 1, "Executions at a time, each in its own process."),
    Setting("QUEUE_SIZE", words.whole(0), 16,
            "Requests that may wait for a slot in HTTP mode, per process."),
    Setting("SERVICES_BROKER", words.broker, "redis://127.0.0.1:6379/0",
            "The Redis that carries jobs.", secret=True),
    Setting("BROKER_PASS", str, None, "Password of that Redis, if its URL has none.", secret=True),
    Setting("WIRE_SECRET", str, None, "Seals jobs and results on that Redis; the same everywhere.",
            secret=True),
    Setting("NAMESPACE", words.namespace, "nlp", "Prefix of every Redis key of this deployment."),
    Setting("DATABASE_URL", words.database, "sqlite:///.nlp-runner/jobs.db",
            "Where jobs are kept: sqlite:///file or postgresql://user@host/name.", secret=True),
    Setting("DATA_DIR", str, ".nlp-runner", "Folder of `nlp-runner up` for its Redis and jobs."),
    Setting("MAX_WAIT", words.seconds, 60.0,
            "Longest a caller may wait in one request, in seconds."),
    Setting("RETENTION", words.kept, "7d",
            "How long a finished job is kept with its input and result: 7d, 12h, 90s; or never, "
            "to keep it until it is deleted."),
    Setting("SHUTDOWN_GRACE", words.seconds, 30.0, "Seconds that running work gets at a stop."),
    Setting("ORCHESTRATOR_URL", words.http, "http://127.0.0.1:8000",
            "The orchestrator that `call`, `services` and `jobs` talk to.", option="--url"),
    Setting("API_KEY", words.key, None, "The key that they send to it.", secret=True),
    Setting("AUTH", words.choice("auto", "on", "off"), "auto",
            "Whether the orchestrator asks for keys: on, off, or auto (on, unless HOST is "
            "loopback)."),
    Setting("SERVICE_NAME", words.name, None,
            "A second name of a worker's service, for LinTO's clients."),
    Setting("MODEL_INFO", words.sentence, None,
            "What /list-services says about a worker; else the manifest's summary."),
    Setting("QUEUE_NAME", words.name, None, "What /list-services calls a worker's queue; "
            "the real one is named after the manifest's digest."),
    Setting("LANGUAGE", words.languages, (ANY,),
            "Languages taken in HTTP mode, announced by a worker, asked for by POST /nlp: fr en, "
            "or * (also: APP_LANG).", older="APP_LANG"),
    Setting("RESOLVE_POLICY", words.choice("any", "default", "strict"), "any",
            "Which service POST /nlp takes when none is named: any, default (named by "
            "{TYPE}_DEFAULT) or strict (none)."),
    Setting("WEBHOOK_SECRET", signature.secrets, None,
            "Signs webhooks: whsec_ and base64; several while one replaces another. None: no "
            "webhooks.", secret=True),
    Setting("WEBHOOK_ALLOW", Allowed, None,
            "Targets of webhooks beside https on the internet: n8n:5678 10.0.0.0/8 127.0.0.1:*."),
    Setting("LOG_LEVEL", words.choice("debug", "info", "warning", "error"), "info",
            "What is logged."),
    Setting("LOG_FORMAT", words.choice("console", "json"), "console", "Lines for people, or JSON."),
)  # fmt: skip

BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in TABLE}


class Settings:
    """The values in force, read as attributes, and the origin of each. It cannot be changed."""

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_origins", dict(origins))

    def __getattr__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise AttributeError(f"there is no setting {key.upper()}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError("settings are read once and do not change")

    def origin(self, name: str) -> str:
        """Say where the value of `name` (as `PORT`) came from: one of `ORIGINS`."""
        origin: str = self._origins[name.lower()]
        return origin

    @property
    def broker_url(self) -> str:
        """The broker's URL with `BROKER_PASS` put in where the URL has no password.

        The password may hold any character; a URL that states an empty one (`:@`) means none.
        """
        parts = urlsplit(self.services_broker)
        if not self.broker_pass or parts.password is not None:
            return str(self.services_broker)
        user = parts.username or ""
        host = parts.netloc.rpartition("@")[2]
        password = quote(self.broker_pass, safe="")
        return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))

    def shown(self, name: str) -> str:
        """Return the value as a person may read it: passwords are masked."""
        value = self._values[name.lower()]
        if value is None:
            return "(none)"
        return masked(str(value)) if BY_NAME[name].secret else written(value)


def resolve(
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str],
    folder: Path,
    manifest: Mapping[str, Any] | None = None,
    table: Iterable[Setting] = TABLE,
) -> Settings:
    """Find all settings of a table: flag, environment, `.env`, `.envdefault`, manifest, built-in.

    `flags` and `manifest` hold what the command line and the manifest say, by environment name;
    None counts as not said. A secret may stand in a file: `BROKER_PASS_FILE=/run/secrets/redis`.
    Raises `SettingInvalid` with the setting, its origin and what is wrong.
    """
    texts = _texts(environ, folder)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in table:
        values[setting.key], origins[setting.key] = _find(
            setting, flags or {}, texts, manifest or {}
        )
    return Settings(values, origins)


def service_config(
    name: str,
    schemas: Mapping[str, Any],
    *,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    folder: Path,
) -> dict[str, tuple[Any, str]]:
    """Find the operator's values for a manifest's `config`, each with its origin.

    `flags` holds what `--config model=…` says; then come `NER_MODEL` in the environment, `.env` and
    `.envdefault`. What nobody says is left out. Values are read as JSON where the schema wants
    something other than a string.
    """
    unknown = sorted(set(flags) - set(schemas))
    if unknown:
        known = ", ".join(schemas) or "none"
        raise SettingInvalid(f"--config {unknown[0]}: {name} has no such config; it has {known}.")
    texts = _texts(environ, folder)
    found: dict[str, tuple[Any, str]] = {}
    for key, schema in schemas.items():
        variable = config_name(name, key)
        said = [(flags[key], "flag")] if key in flags else []
        said += [(values[variable], origin) for origin, values in texts if values.get(variable)]
        if said:
            text, origin = said[0]
            plain = schema.get("type", "string") == "string"
            found[key] = text if plain else _json(variable, text, schema, origin), origin
    return found


def linto_defaults(*, environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the service that each type has by default: `KEYWORD_EXTRACTION_DEFAULT=yake`."""
    found: dict[str, str] = {}
    for _, values in reversed(_texts(environ, folder)):
        for variable, name in values.items():
            kind = re.fullmatch("([A-Z][A-Z0-9_]*)_DEFAULT", variable)
            if kind and name.strip():
                found[kind[1].lower()] = name.strip()
    return found


def written(value: Any) -> str:
    """Return a setting's value as it is written in the environment."""
    return "|".join(value) if isinstance(value, tuple) else str(value)


def config_name(service: str, key: str) -> str:
    """Return the environment name of a config value: `NER_MODEL`."""
    return f"{service}_{key}".upper().replace("-", "_")


def masked(text: str) -> str:
    """Return a URL with its passwords hidden; other text that is secret is hidden whole.

    A password that was not encoded may hold any character, so all up to the last @ is hidden.
    """
    if not re.match("[a-z][a-z0-9+.-]*://", text):
        return "********"
    text = re.sub(r"(?<=//)([^:@/]*):.*@", r"\1:********@", text, flags=re.DOTALL)
    return re.sub(r"(?<=[?&]password=)[^&]*", "********", text)


def _texts(environ: Mapping[str, str], folder: Path) -> list[tuple[str, Mapping[str, str]]]:
    """Return what the environment and the two files say, the strongest first."""
    return [("environment", environ), *((name, _file(folder / name)) for name in ORIGINS[2:4])]


def _file(path: Path) -> dict[str, str]:
    try:
        values = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        _unreadable(str(path), error)
    return {key: value for key, value in values.items() if value is not None}


def _find(
    setting: Setting,
    flags: Mapping[str, Any],
    texts: list[tuple[str, Mapping[str, str]]],
    manifest: Mapping[str, Any],
) -> tuple[Any, str]:
    if flags.get(setting.name) is not None:
        return _parsed(setting, str(flags[setting.name]), "flag"), "flag"
    for origin, values in texts:
        text = values.get(setting.name) or values.get(setting.older)
        if not text and setting.secret and (file := values.get(f"{setting.name}_FILE")):
            text = _secret(setting, file)
        if text:
            return _parsed(setting, text, origin), origin
    if manifest.get(setting.name) is not None:
        return manifest[setting.name], "manifest"
    return setting.default, "built-in"


def _parsed(setting: Setting, text: str, origin: str) -> Any:
    try:
        return setting.parse(text.strip())
    except ValueError as error:
        shown = masked(text) if setting.secret else text
        raise SettingInvalid(f"{setting.name} ({origin}): {shown!r}: {error}.") from None


def _secret(setting: Setting, file: str) -> str:
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        _unreadable(f"{setting.name}_FILE: {file}", error)


def _unreadable(what: str, error: OSError | UnicodeDecodeError) -> NoReturn:
    reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
    raise SettingInvalid(f"{what} cannot be read: {reason}.") from None


def _json(variable: str, text: str, schema: Mapping[str, Any], origin: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        wanted = schema.get("type", "a value")
        raise SettingInvalid(
            f"{variable} ({origin}): {text!r}: must be {wanted}, written as JSON."
        ) from None


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
