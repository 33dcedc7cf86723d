"""What callers of LinTO's services ask for, read from the bodies they send."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from runner.errors import InputInvalid, Problem, summary

MAX_WARNINGS = 100
"""Sentences that one answer holds; more would not be read."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request to a standalone service asks for, in LinTO's names."""

    documents: list[str]
    parameters: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """What `nlpConfig` says about one type of service, in LinTO's names."""

    enabled: bool = True
    service: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def config_key(kind: str) -> str:
    """Return the key of a type in `nlpConfig`: `keywordExtractionConfig`."""
    first, *rest = kind.split("_")
    return f"{first}{''.join(map(str.capitalize, rest))}Config"


def enable_key(kind: str) -> str:
    """Return the key that switches a type on and off: `enableKeywordExtraction`."""
    return f"enable{''.join(map(str.capitalize, kind.split('_')))}"


def read_choice(kind: str, config: Any) -> Choice:
    """Read what `nlpConfig` says about a type; None stands for nothing.

    `method` may stand beside or inside `methodConfig`. Raises `InputInvalid` with pointers into
    the request.
    """
    if config is None:
        return Choice()
    place, enable = f"/nlpConfig/{config_key(kind)}", enable_key(kind)
    wanted = {enable: (bool, "boolean"), "serviceName": (str, "string"), "method": (str, "string"),
              "methodConfig": (dict, "object")}  # fmt: skip
    _must_be(dict, "object", place, config)
    for key, (kind_of, word) in wanted.items():
        if config.get(key) is not None:
            _must_be(kind_of, word, f"{place}/{key}", config[key])
    warnings = _ignored(config, wanted, f"`{config_key(kind)}`")
    parameters, more = _with_method(config.get("method"), config.get("methodConfig") or {})
    enabled = config.get(enable)
    return Choice(
        enabled is None or enabled, config.get("serviceName"), parameters, [*warnings, *more]
    )


def read_articles(body: Any, name: str) -> Asked:
    """Read `{"articles": [{"text"}], "component_cfg": {name: {parameter: value}}}`.

    Absent articles are none. Raises `InputInvalid` with every problem of one kind.
    """
    _must_be(dict, "object", "", body)
    articles, config = _or(body.get("articles"), []), _or(body.get("component_cfg"), {})
    _must_be(list, "array", "/articles", articles)
    _must_be(dict, "object", "/component_cfg", config)
    _all_must_be(dict, "object", "/articles/{}", articles)
    texts = [one.get("text") for one in articles]
    _all_must_be(str, "string", "/articles/{}/text", texts)
    own = _or(config.get(name), {})
    _must_be(dict, "object", f"/component_cfg/{name}", own)
    warnings = _ignored(body, ("articles", "component_cfg"), "the request")
    return Asked(texts, own, warnings + _ignored(config, (name,), "`component_cfg`"))


def read_documents(body: Any) -> Asked:
    """Read `{"documents": [text], "config": {"method", parameter: value}}`.

    Raises `InputInvalid` with every problem of one kind; a bare text is not a list of texts.
    """
    _must_be(dict, "object", "", body)
    documents, config = body.get("documents"), _or(body.get("config"), {})
    _must_be(list, "array", "/documents", documents)
    _all_must_be(str, "string", "/documents/{}", documents)
    _must_be(dict, "object", "/config", config)
    inner = _or(config.get("methodConfig"), {})
    _must_be(dict, "object", "/config/methodConfig", inner)
    others = {key: value for key, value in config.items() if key not in ("method", "methodConfig")}
    parameters, warnings = _with_method(config.get("method"), {**others, **inner})
    return Asked(
        documents, parameters, warnings + _ignored(body, ("documents", "config"), "the request")
    )


def _with_method(method: Any, config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Put `method` among the parameters, where it may also stand; the one beside them counts."""
    inner = config.get("method")
    if method is None:
        return dict(config), []
    told = f"`method` is said twice; `{short(method)}` counts."
    return {**config, "method": method}, [told] if inner not in (None, method) else []


def _must_be(kind: type, word: str, place: str, value: Any) -> None:
    """Raise `InputInvalid` for a value of another type."""
    if not isinstance(value, kind):
        message = "is required" if value is None else "has the wrong type"
        problem = Problem(place, "type", message, word)
        raise InputInvalid(summary([problem], "the request"), problems=[problem])


def _all_must_be(kind: type, word: str, place: str, values: Iterable[Any]) -> None:
    """Raise `InputInvalid` for the items of another type, each at its place."""
    wrong = (number for number, value in enumerate(values) if not isinstance(value, kind))
    problems = [
        Problem(place.format(number), "type", "is not what it must be", word)
        for number in islice(wrong, MAX_WARNINGS)
    ]
    if problems:
        raise InputInvalid(summary(problems, "the request"), problems=problems)


def _ignored(given: Iterable[str], known: Iterable[str], where: str) -> list[str]:
    strange = (key for key in given if key not in known)
    return [
        f"`{short(key)}` in {where} is not known and was ignored."
        for key in islice(strange, MAX_WARNINGS)
    ]


def _or(value: Any, absent: Any) -> Any:
    return absent if value is None else value


def short(name: Any) -> str:
    """Return a stranger's word in at most 60 characters."""
    text = str(name)
    return text if len(text) <= 60 else f"{text[:57]}..."
