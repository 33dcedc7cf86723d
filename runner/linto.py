"""The LinTO contract as a pure translation: its words become our input, our output its results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jmespath

from runner import language as languages_
from runner.errors import InputInvalid, Problem, summary
from runner.schema import Schema, pointer

MAX_WARNINGS = 100
"""Sentences that one answer holds; more would not be read."""

LONGEST = 500
"""Characters of a sentence that somebody else wrote."""

MAX_GROWTH, MAX_DEPTH, MAX_BRACKETS = 32, 40, 60
"""What an expression may do: repeat its input, nest, and open lists and objects."""

FUNCTIONS = frozenset(
    "abs ceil contains ends_with floor join keys length map max max_by merge min min_by "
    "not_null reverse sort sort_by starts_with type values".split()
)
"""What an expression may call: nothing that writes long texts or numbers that JSON has not."""

PRODUCTS = {"pipe", "subexpression", "index_expression", "projection", "value_projection"}
PRODUCTS |= {"filter_projection"}

Expression = Any
"""A compiled JMESPath expression."""


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
    _must_be(dict, "object", {place: config})
    for key, (kind_of, word) in wanted.items():
        _must_be(kind_of, word, {f"{place}/{key}": config.get(key)}, absent=True)
    warnings = [
        f"`{_short(key)}` of `{config_key(kind)}` is not known and was ignored."
        for key in config
        if key not in wanted
    ]
    parameters, more = _with_method(config.get("method"), config.get("methodConfig") or {})
    enabled = config.get(enable)
    return Choice(
        enabled is None or enabled, config.get("serviceName"), parameters, [*warnings, *more]
    )


@dataclass(frozen=True, slots=True)
class Linto:
    """How one service speaks LinTO."""

    type: str
    name: str
    form: str
    default: bool
    languages: tuple[str, ...]
    properties: frozenset[str]
    parameters: Mapping[str, str | Mapping[str, Expression] | None]
    defaults: Mapping[str, Any]
    document: Expression | None
    pairs: Expression | None

    @property
    def route(self) -> str:
        """The path of the standalone service."""
        return f"/{self.name}/{{lang}}" if self.form == "articles" else f"/{self.name}"

    @property
    def known(self) -> list[str]:
        """The names of the parameters that mean something here."""
        listed = [name for name, target in self.parameters.items() if target is not None]
        return [*listed, *sorted(self.properties - self.parameters.keys() - OURS)]

    # --- in --------------------------------------------------------------------------------------

    def read(self, body: Any) -> Asked:
        """Read the body of a request to the standalone service; raises `InputInvalid`."""
        _must_be(dict, "object", {"": body})
        return self._articles(body) if self.form == "articles" else self._documents(body)

    def _articles(self, body: dict[str, Any]) -> Asked:
        articles, config = body.get("articles"), body.get("component_cfg")
        _must_be(list, "array", {"/articles": articles}, absent=True)
        _must_be(dict, "object", {"/component_cfg": config}, absent=True)
        articles, config = articles or [], config or {}
        _must_be(dict, "object", {f"/articles/{i}": one for i, one in enumerate(articles)})
        texts = [one.get("text") for one in articles]
        _must_be(str, "string", {f"/articles/{i}/text": one for i, one in enumerate(texts)})
        own = config.get(self.name)
        _must_be(dict, "object", {f"/component_cfg/{self.name}": own}, absent=True)
        warnings = [
            *_ignored(body, ("articles", "component_cfg"), "the request"),
            *_ignored(config, (self.name,), "`component_cfg`"),
        ]
        return Asked(texts, own or {}, warnings)

    def _documents(self, body: dict[str, Any]) -> Asked:
        documents, config = body.get("documents"), body.get("config")
        _must_be(list, "array", {"/documents": documents})
        _must_be(str, "string", {f"/documents/{i}": one for i, one in enumerate(documents)})
        _must_be(dict, "object", {"/config": config}, absent=True)
        config = dict(config or {})
        method, inner = config.pop("method", None), config.pop("methodConfig", None)
        _must_be(dict, "object", {"/config/methodConfig": inner}, absent=True)
        parameters, warnings = _with_method(method, {**config, **(inner or {})})
        return Asked(
            documents, parameters, [*_ignored(body, ("documents", "config"), "the request"),
                                    *warnings]
        )  # fmt: skip

    def to_input(
        self, documents: Sequence[str], parameters: Mapping[str, Any], language: str | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """Return our input, and a sentence for every parameter that has no effect.

        A parameter that is None counts as absent. What the values are worth is for the manifest's
        `accept` to say. Raises `InputInvalid` for a language that the service has not.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        silent = {name: value for name, value in self.defaults.items() if name not in given}
        values: dict[str, Any] = {}
        warnings: list[str] = []
        for name, value in [*silent.items(), *given.items()]:
            found, warning = self._translated(name, value)
            values |= found
            warnings += [warning] if warning else []
        if language is not None:
            spoken = self._language(language)
            values |= {"language": spoken} if "language" in self.properties else {}
        return {**values, "documents": list(documents)}, _bounded(warnings)

    def _translated(self, name: str, value: Any) -> tuple[dict[str, Any], str | None]:
        target = self.parameters.get(name, name if name in self.properties - OURS else UNKNOWN)
        if isinstance(target, str) and target != UNKNOWN:
            return {target: value}, None
        if target is None:
            return {}, f"The parameter `{name}` has no meaning here and was ignored."
        if isinstance(target, str):
            known = ", ".join(self.known) or "none"
            return {}, f"There is no parameter `{_short(name)}`; it was ignored. Known are: {known}."
        found = {key: _search(expression, value) for key, expression in target.items()}
        found = {key: value for key, value in found.items() if value is not None}
        return found, None if found else f"The value of `{name}` was not understood and was ignored."

    def _language(self, asked: str) -> str:
        tag = asked.strip().replace("_", "-")
        found = languages_.lookup(tag, self.languages or (languages_.ANY,))
        if found is None:
            problem = Problem("/language", "language_unsupported",
                              "is not a language of this service", list(self.languages) or None,
                              asked[:60])  # fmt: skip
            raise InputInvalid(summary([problem], "the request"), problems=[problem])
        return found

    def located(self, problems: Iterable[Problem], parameters: str = "") -> list[Problem]:
        """Say problems of our input where its caller wrote what is wrong.

        `parameters` is where the parameters stand in a request that has `documents`, such as
        `/nlpConfig/keywordExtractionConfig/methodConfig`; without it, the request is a standalone.
        """
        texts = "/articles/{}/text" if self.form == "articles" and not parameters else ""
        usual = f"/component_cfg/{self.name}" if self.form == "articles" else "/config"
        return [_moved(one, texts, parameters or usual, self._names()) for one in problems]

    def _names(self) -> dict[str, str]:
        """Return the parameter that speaks of each property of our input."""
        names = {}
        for name, target in self.parameters.items():
            for key in [target] if isinstance(target, str) else target or ():
                names.setdefault(key, name)
        return names

    # --- out -------------------------------------------------------------------------------------

    def to_results(
        self, documents: Sequence[str], output: Mapping[str, Any]
    ) -> tuple[list[Any], list[str]]:
        """Return LinTO's result of each document, and what its reader should know.

        A document that failed gives `{"text", "error"}`, or nothing among pairs; a result that
        its expression cannot translate is given as it is, with a warning. Neither raises.
        """
        warnings = list(_sentences(output.get("warnings")))
        given = output.get("documents")
        given = given if isinstance(given, list) else []
        if len(given) != len(documents):
            warnings.append(f"There are {len(given)} results for {len(documents)} documents.")
        padded = [*given, *({} for _ in documents[len(given) :])]
        results = []
        for number, (text, one) in enumerate(zip(documents, padded, strict=False), 1):
            result, warning = self._result(text, one)
            results.append(result)
            warnings += [f"Document {number} {warning}"] if warning else []
        return results, _bounded(warnings)

    def _result(self, text: str, one: Any) -> tuple[Any, str | None]:
        error = one.get("error") if isinstance(one, dict) else None
        if error:
            failed = {} if self.pairs else self._echoed(text, {"error": error})
            return failed, f"has no result: {next(_sentences([error]), 'it failed.')}"
        if self.pairs:
            pairs = _search(self.pairs, one)
            if isinstance(pairs, list) and all(map(_is_pair, pairs)):
                return dict(reversed([(key, value) for key, value in reversed(pairs)])), None
            return one, UNTRANSLATED
        result = _search(self.document, one) if self.document else one
        if self.document and not isinstance(result, dict):
            return self._echoed(text, one), UNTRANSLATED
        return self._echoed(text, result), None

    def _echoed(self, text: str, result: Any) -> Any:
        """Put the text first, as LinTO's services do that take articles."""
        if self.form != "articles":
            return result
        whole = result if isinstance(result, dict) else {"result": result}
        return {"text": text, **{key: value for key, value in whole.items() if key != "text"}}


OURS = frozenset({"documents", "language"})
UNKNOWN = "?"
UNTRANSLATED = "could not be put into LinTO's form and is given as it is."
