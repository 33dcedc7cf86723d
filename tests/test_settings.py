"""What `runner.settings` promises: the strongest word wins, secrets stay so, faults are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from dotenv import dotenv_values
from kombu.utils.url import url_to_parts

from runner.errors import SettingInvalid
from runner.settings import (
    BY_NAME,
    ORIGINS,
    TABLE,
    linto_defaults,
    masked,
    resolve,
    service_config,
    written,
)

HOUSE = Path(__file__).parents[1]
NUMBERS = {origin: 9000 + step for step, origin in enumerate(ORIGINS)}


def put(folder: Path, **files: str) -> Path:
    """Return the folder with these files in it: `envdefault="PORT=1"` becomes `.envdefault`."""
    for name, text in files.items():
        (folder / f".{name}").write_text(text, "utf-8")
    return folder


def fault(folder: Path, **environ: str) -> str:
    """Return the sentence with which an environment is refused."""
    with pytest.raises(SettingInvalid) as caught:
        resolve(environ=environ, folder=folder)
    return str(caught.value)


# --- which word wins -----------------------------------------------------------------------------


@pytest.mark.parametrize("winner", ORIGINS)
def test_the_strongest_word_wins(tmp_path: Path, winner: str) -> None:
    """With everything below a source silent or weaker, the source's own word is in force."""
    says = {origin: str(NUMBERS[origin]) for origin in ORIGINS[ORIGINS.index(winner) : -1]}
    texts = {
        origin: f"PORT={says[origin]}\n" for origin in (".env", ".envdefault") if origin in says
    }
    put(tmp_path, **{origin[1:]: text for origin, text in texts.items()})
    settings = resolve(
        flags={"PORT": says.get("flag")},
        environ={"PORT": says["environment"]} if "environment" in says else {},
        folder=tmp_path,
        manifest={"PORT": int(says["manifest"])} if "manifest" in says else None,
    )
    expected = BY_NAME["PORT"].default if winner == "built-in" else NUMBERS[winner]
    assert (settings.port, settings.origin("PORT")) == (expected, winner)


def test_an_empty_word_is_no_word(tmp_path: Path) -> None:
    """A variable that is set to nothing, as compose files do, hides nothing."""
    settings = resolve(environ={"PORT": ""}, folder=put(tmp_path, env="PORT=\nHOST=0.0.0.0\n"))
    assert (settings.port, settings.origin("PORT")) == (8000, "built-in")
    assert (settings.host, settings.origin("HOST")) == ("0.0.0.0", ".env")


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    """Quotes and comments are for people, and a dollar sign is a dollar sign."""
    put(tmp_path, env="# mine\nBROKER_PASS='a$HOME # b'\nexport NAMESPACE=staging # live\n")
    settings = resolve(environ={}, folder=tmp_path)
    assert (settings.broker_pass, settings.namespace) == ("a$HOME # b", "staging")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Garbage in the place of `.env` is a sentence with its path, and no traceback."""
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
    assert fault(tmp_path) == f"{tmp_path / '.env'} cannot be read: it is not UTF-8."


def test_settings_do_not_change(tmp_path: Path) -> None:
    """What was read at the start is in force to the end, and there is nothing else."""
    settings = resolve(environ={}, folder=tmp_path)
    with pytest.raises(AttributeError, match="do not change"):
        settings.port = 1
    with pytest.raises(AttributeError, match="there is no setting COLOUR"):
        _ = settings.colour


# --- what a word may say -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("SERVICE_MODE", "task", "worker"),
        ("SERVICE_MODE", "worker", "worker"),
        ("PORT", " 0 ", 0),
        ("PORT", "65535", 65535),
        ("QUEUE_SIZE", "0", 0),
        ("MAX_WAIT", "1.5", 1.5),
        ("SHUTDOWN_GRACE", "10s", 10.0),
        ("LOG_LEVEL", "DEBUG", "debug"),
        ("SERVICES_BROKER", "rediss://:p%40ss@redis.example:6380/3",
         "rediss://:p%40ss@redis.example:6380/3"),
        ("SERVICES_BROKER", "redis://[::1]:6379", "redis://[::1]:6379"),
        ("DATABASE_URL", "postgres://nlp@db/nlp", "postgres://nlp@db/nlp"),
        ("ORCHESTRATOR_URL", "https://nlp.example/base", "https://nlp.example/base"),
        ("SERVICES_BROKER", "rediss://me:p%40ss@redis.example:6380",
         "rediss://me:p%40ss@redis.example:6380"),
        ("SERVICES_BROKER", "redis://:p@redis.example/15", "redis://:p@redis.example/15"),
        ("LANGUAGE", "fr", ("fr",)),
        ("LANGUAGE", "fr en", ("fr", "en")),
        ("LANGUAGE", "fr_FR|en-US|fr-FR", ("fr-FR", "en-US")),
        ("LANGUAGE", "fr|*", ("*",)),
        ("LANGUAGE", "en_US:en", ("*",)),
        ("RESOLVE_POLICY", "STRICT", "strict"),
        ("RESOLVE_POLICY", "Default", "default"),
        ("SERVICE_NAME", "keyword_extraction_fr", "keyword_extraction_fr"),
        ("QUEUE_NAME", "keyword.fr-1", "keyword.fr-1"),
        ("MODEL_INFO", "Ein Modell, sagt man.", "Ein Modell, sagt man."),
    ],
)  # fmt: skip
def test_a_sound_word_is_understood(tmp_path: Path, name: str, text: str, value: Any) -> None:
    """Each type of setting is read from its text, in LinTO's spelling too (`task`, `fr_FR|en`).

    `en_US:en` is what desktops tell gettext, and nothing that an operator said to us.
    """
    settings = resolve(environ={name: text}, folder=tmp_path)
    assert getattr(settings, name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("PORT", "80 80", "a whole number, 0 to 65535"),
        ("PORT", "65536", "a whole number, 0 to 65535"),
        ("PORT", "-1", "a whole number, 0 to 65535"),
        ("CONCURRENCY", "0", "a whole number, 1 or more"),
        ("CONCURRENCY", "two", "a whole number, 1 or more"),
        ("QUEUE_SIZE", "-1", "a whole number, 0 or more"),
        ("QUEUE_SIZE", "9" * 5000, "a whole number, 0 or more"),
        ("MAX_WAIT", "nan", "seconds, 0 or more"),
        ("MAX_WAIT", "inf", "seconds, 0 or more"),
        ("SHUTDOWN_GRACE", "-1", "seconds, 0 or more"),
        ("SHUTDOWN_GRACE", "1m", "seconds, 0 or more"),
        ("SERVICE_MODE", "both", "http or worker"),
        ("SERVICES_BROKER", "amqp://rabbit", "a redis:// or rediss:// URL"),
        ("SERVICES_BROKER", "redis:6379", "a redis:// or rediss:// URL"),
        ("SERVICES_BROKER", "redis://host:port", "redis://host:port/number"),
        ("SERVICES_BROKER", "redis://host/jobs", "redis://host:port/number"),
        ("DATABASE_URL", "mysql://db", "a sqlite:///… or postgresql://… URL"),
        ("ORCHESTRATOR_URL", "localhost:8000", "an http:// or https:// URL"),
        ("NAMESPACE", "a b", "letters, digits, - or _"),
        ("NAMESPACE", "nlp:*", "letters, digits, - or _"),
        ("LOG_FORMAT", "xml", "console or json"),
        ("LANGUAGE", "fr;en", "language tags, such as fr|en, or *"),
        ("LANGUAGE", "|", "language tags, such as fr|en, or *"),
        ("RESOLVE_POLICY", "first", "any or default or strict"),
        ("SERVICE_NAME", "my service", "at most 100 letters, digits, ., - or _"),
        ("QUEUE_NAME", "q" * 101, "at most 100 letters, digits, ., - or _"),
        ("MODEL_INFO", "a" * 501, "at most 500 characters"),
    ],
)
def test_a_wrong_word_names_setting_origin_and_fault(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    """Whoever set a wrong value reads which one, where it came from and what it must be."""
    sentence = fault(tmp_path, **{name: text})
    assert sentence.startswith(f"{name} (environment): ")
    assert f"must be {words}" in sentence


def test_the_origin_of_a_wrong_word_is_where_it_stands(tmp_path: Path) -> None:
    """A fault in a file or a flag is told as such, not as one of the environment."""
    put(tmp_path, envdefault="PORT=high\n")
    assert fault(tmp_path).startswith("PORT (.envdefault): 'high'")
    with pytest.raises(SettingInvalid, match=r"^PORT \(flag\): 'low'"):
        resolve(flags={"PORT": "low"}, environ={}, folder=tmp_path)


# --- secrets -------------------------------------------------------------------------------------


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """`BROKER_PASS_FILE` names a file, as container platforms mount secrets."""
    secret = tmp_path / "redis-password"
    secret.write_text("hush\n")
    settings = resolve(environ={"BROKER_PASS_FILE": str(secret)}, folder=tmp_path)
    assert (settings.broker_pass, settings.origin("BROKER_PASS")) == ("hush", "environment")


def test_the_word_itself_comes_before_its_file(tmp_path: Path) -> None:
    """A value that is set is used, even where a file is named too; a stronger file beats both."""
    secret = tmp_path / "file"
    secret.write_text("from a file")
    put(tmp_path, env="BROKER_PASS=from .env\n")
    both = {"BROKER_PASS": "said", "BROKER_PASS_FILE": str(secret)}
    assert resolve(environ=both, folder=tmp_path).broker_pass == "said"
    stronger = {"BROKER_PASS_FILE": str(secret)}
    assert resolve(environ=stronger, folder=tmp_path).broker_pass == "from a file"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secrets_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """A missing or unreadable secret is a sentence with the variable and the file."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    sentence = fault(tmp_path, DATABASE_URL_FILE=str(path))
    assert sentence.startswith(f"DATABASE_URL_FILE: {path} cannot be read: ")


def test_only_secrets_are_read_from_files(tmp_path: Path) -> None:
    """`PORT_FILE` means nothing to us."""
    assert resolve(environ={"PORT_FILE": "/etc/passwd"}, folder=tmp_path).port == 8000


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("BROKER_PASS", "hush", "********"),
        ("SERVICES_BROKER", "redis://:hush@h:1/0", "redis://:********@h:1/0"),
        ("SERVICES_BROKER", "redis://me:hush@h/0", "redis://me:********@h/0"),
        ("SERVICES_BROKER", "redis://h:1/0?password=hush", "redis://h:1/0?password=********"),
        ("DATABASE_URL", "postgresql://me:hu@sh@h/n", "postgresql://me:********@h/n"),
        ("DATABASE_URL", "sqlite:///jobs.db", "sqlite:///jobs.db"),
    ],
)
def test_a_shown_secret_is_masked(tmp_path: Path, name: str, text: str, shown: str) -> None:
    """`nlp-runner config` can be pasted into a bug report."""
    assert resolve(environ={name: text}, folder=tmp_path).shown(name) == shown


@pytest.mark.parametrize(
    "url", ["redis://:hush/hush@h/0", "amqp://me:hush@h", "hush", "redis://:hush#hush@h"]
)
def test_a_wrong_secret_is_refused_without_being_said(tmp_path: Path, url: str) -> None:
    """Not even a broken URL puts its password into a log."""
    assert "hush" not in fault(tmp_path, SERVICES_BROKER=url)
    assert "hush" not in masked(url)


# --- the broker's password -----------------------------------------------------------------------


@pytest.mark.parametrize("password", ["plain", "p@ss", "a/b", "50%", "#?&=", ":", "é ü", "%40"])
def test_any_password_reaches_redis(tmp_path: Path, password: str) -> None:
    """Whatever stands in BROKER_PASS is what both of our Redis clients send, to the same place."""
    environ = {"SERVICES_BROKER": "redis://redis.example:6380/2", "BROKER_PASS": password}
    url = resolve(environ=environ, folder=tmp_path).broker_url
    ours = redis.Redis.from_url(url).connection_pool.connection_kwargs
    theirs = url_to_parts(url)
    assert (ours["password"], ours["host"], ours["port"]) == (password, "redis.example", 6380)
    assert (theirs.password, theirs.hostname, theirs.port) == (password, "redis.example", 6380)


def test_a_secret_that_signs_is_never_shown(tmp_path: Path) -> None:
    """Neither a good WEBHOOK_SECRET nor a broken one is printed, and one may stand in a file."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    (tmp_path / "secret").write_text(f"{secret}\n")
    environ = {"WEBHOOK_SECRET_FILE": str(tmp_path / "secret"), "WEBHOOK_ALLOW": "n8n:5678,::1"}
    settings = resolve(environ=environ, folder=tmp_path)
    assert settings.shown("WEBHOOK_SECRET") == "********"
    assert settings.shown("WEBHOOK_ALLOW") == "n8n:5678 ::1"
    assert len(settings.webhook_secret) == 1
    assert secret[:-2] not in fault(tmp_path, WEBHOOK_SECRET=f"{secret} {secret[:-2]}")
    assert "is not a host or a network" in fault(tmp_path, WEBHOOK_ALLOW="https://n8n")


def test_a_user_keeps_its_name(tmp_path: Path) -> None:
    """The password joins the user that the URL names."""
    environ = {"SERVICES_BROKER": "redis://nlp@[::1]:6379/0", "BROKER_PASS": "p"}
    assert resolve(environ=environ, folder=tmp_path).broker_url == "redis://nlp:p@[::1]:6379/0"


@pytest.mark.parametrize("url", ["redis://:own@h/0", "redis://:@h/0"])
def test_a_url_that_states_its_password_keeps_it(tmp_path: Path, url: str) -> None:
    """BROKER_PASS is for URLs without one; an empty one that is stated means none."""
    environ = {"SERVICES_BROKER": url, "BROKER_PASS": "other"}
    assert resolve(environ=environ, folder=tmp_path).broker_url == url


# --- the config of a service ---------------------------------------------------------------------

SCHEMAS: Mapping[str, Any] = {
    "model": {"type": "string", "default": "bundled"},
    "top_k": {"type": "integer", "default": 3},
    "labels": {"type": ["array", "null"], "default": None},
}


def config(
    folder: Path, environ: Mapping[str, str] | None = None, **flags: str
) -> dict[str, tuple[Any, str]]:
    """Find the config of a service called `my-ner`."""
    return service_config("my-ner", SCHEMAS, flags=flags, environ=environ or {}, folder=folder)


def test_a_services_config_has_the_same_order(tmp_path: Path) -> None:
    """A flag beats the environment, which beats the files; who says nothing is left out."""
    put(tmp_path, env="MY_NER_MODEL=c\nMY_NER_TOP_K=1\n", envdefault="MY_NER_MODEL=d\n")
    assert config(tmp_path, {"MY_NER_MODEL": "b"}, model="a")["model"] == ("a", "flag")
    assert config(tmp_path, {"MY_NER_MODEL": "b"})["model"] == ("b", "environment")
    assert config(tmp_path) == {"model": ("c", ".env"), "top_k": (1, ".env")}
    (tmp_path / ".env").unlink()
    assert config(tmp_path) == {"model": ("d", ".envdefault")}


def test_values_are_json_where_the_schema_wants_more_than_text(tmp_path: Path) -> None:
    """A string is taken as it stands; numbers, lists and null are written as JSON."""
    found = config(tmp_path, {"MY_NER_LABELS": '["A", "B"]'}, model="12", top_k="12")
    assert {key: value for key, (value, _) in found.items()} == {
        "model": "12", "top_k": 12, "labels": ["A", "B"],
    }  # fmt: skip


def test_an_empty_text_can_be_chosen_by_flag_only(tmp_path: Path) -> None:
    """`--config model=` says the empty text; an empty variable says nothing."""
    assert config(tmp_path, {"MY_NER_MODEL": ""}) == {}
    assert config(tmp_path, model="") == {"model": ("", "flag")}


@pytest.mark.parametrize("text", ["many", "NaN", "[" * 20_000])
def test_a_wrong_config_names_variable_origin_and_fault(tmp_path: Path, text: str) -> None:
    """What is not JSON is told with its variable and with the type that is wanted."""
    with pytest.raises(SettingInvalid, match=r"^MY_NER_TOP_K \(environment\): .* must be integer"):
        config(tmp_path, {"MY_NER_TOP_K": text})


def test_a_config_that_the_manifest_does_not_declare_is_refused(tmp_path: Path) -> None:
    """A typing mistake in `--config` is told with the names that exist."""
    with pytest.raises(SettingInvalid, match="--config modle: my-ner has no such config; it has"):
        config(tmp_path, modle="x")


# --- what LinTO's operators say -------------------------------------------------------------------


def test_an_older_name_is_understood(tmp_path: Path) -> None:
    """`APP_LANG` is `LANGUAGE` where that is silent, in each of the places where it may stand."""
    put(tmp_path, env="APP_LANG=fr en\n", envdefault="LANGUAGE=de\n")
    settings = resolve(environ={}, folder=tmp_path)
    assert (settings.language, settings.origin("LANGUAGE")) == (("fr", "en"), ".env")
    assert resolve(environ={"LANGUAGE": "es", "APP_LANG": "it"}, folder=tmp_path).language == (
        "es",
    )


def test_each_type_has_its_default_service(tmp_path: Path) -> None:
    """Every `{TYPE}_DEFAULT` is found wherever settings stand, and the strongest word counts."""
    put(tmp_path, env="KEYWORD_EXTRACTION_DEFAULT=a\nNER_DEFAULT=\n",
        envdefault="KEYWORD_EXTRACTION_DEFAULT=b\nTOPIC_MODELING_DEFAULT=c\n")  # fmt: skip
    environ = {"TOPIC_MODELING_DEFAULT": " d ", "lower_DEFAULT": "x", "PORT": "1"}
    assert linto_defaults(environ=environ, folder=tmp_path) == {
        "keyword_extraction": "a", "topic_modeling": "d",
    }  # fmt: skip


# --- the table and its copies --------------------------------------------------------------------


def default(name: str) -> str:
    """Return a built-in default as a person writes it."""
    value = BY_NAME[name].default
    return "" if value is None else f"{value:g}" if isinstance(value, float) else written(value)


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_envdefault_shows_every_setting(setting: Any) -> None:
    """Whoever opens `.envdefault` sees each setting with its default, in force or commented out."""
    text = (HOUSE / ".envdefault").read_text("utf-8")
    lines = re.findall(rf"^(?:# )?{setting.name}=(.*)$", text, re.MULTILINE)
    assert lines == [default(setting.name)]


def test_envdefault_holds_nothing_else() -> None:
    """Every variable there is a setting of ours."""
    assert set(dotenv_values(HOUSE / ".envdefault")) <= set(BY_NAME)


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_the_documentation_describes_every_setting(setting: Any) -> None:
    """`docs/settings.md` has a row for each setting: name, flag, built-in default, sentence."""
    rows = (HOUSE / "docs" / "settings.md").read_text("utf-8").splitlines()
    (row,) = [row for row in rows if row.startswith(f"| `{setting.name}` |")]
    name, flag, built_in, meaning = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, flag) == (f"`{setting.name}`", f"`{setting.flag}`")
    assert (built_in.strip("`"), meaning) == (default(setting.name), setting.help)


def test_no_two_settings_share_a_flag() -> None:
    """A flag means one thing."""
    assert len({setting.flag for setting in TABLE}) == len(TABLE)
