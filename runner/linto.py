"""The LinTO contract as a pure translation: its words become our input, our output its results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.errors import InputInvalid, Problem, summary
from runner.expression import Expression
from runner.language import ANY, lookup
from runner.linto_requests import MAX_WARNINGS, Asked, read_articles, read_documents, short
from runner.schema import Schema, pointer

LONGEST = 500
"""Characters of one sentence of a warning."""

OURS = frozenset({"documents", "language"})
"""Properties of our input that are not parameters."""

UNTRANSLATED = "could not be put into LinTO's form and is given as it is."


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
        return read_articles(body, self.name) if self.form == "articles" else read_documents(body)

    def to_input(
        self, documents: Sequence[str], parameters: Mapping[str, Any], language: str | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """Return our input, and a sentence for every parameter that has no effect.

        A parameter that is None counts as absent, and one that says LinTO's default has its effect
        in any case. What the values are worth is for the manifest's `accept` to say. Raises
        `InputInvalid` for a language that the service has not.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        silent = {name: value for name, value in self.defaults.items() if name not in given}
        silent = {name: value for name, value in silent.items() if value is not None}
        values: dict[str, Any] = {}
        warnings: list[str] = []
        for name, value in silent.items():
            values |= self._translated(name, value)[0]
        said: dict[str, str] = {}
        for name, value in given.items():
            found, warning = self._translated(name, value)
            twice = sorted({said[key] for key in found if key in said})
            # Who says what would be so anyway gets it, also where that is nothing to tell us.
            warnings += [warning] if warning and value != self.defaults.get(name) else []
            warnings += [
                f"`{name}` counts, and not `{other}`, which says the same." for other in twice
            ]
            said |= dict.fromkeys(found, name)
            values |= found
        if language is not None:
            spoken = self._language(language)
            values |= {"language": spoken} if "language" in self.properties else {}
        return {**values, "documents": list(documents)}, _bounded(warnings)

    def _translated(self, name: str, value: Any) -> tuple[dict[str, Any], str | None]:
        """Return what a parameter sets, or why it sets nothing."""
        target = self.parameters.get(name, name)
        if target is None:
            return {}, f"The parameter `{name}` has no meaning here and was ignored."
        if isinstance(target, Mapping):
            found = {key: expression(value) for key, expression in target.items()}
            found = {key: one for key, one in found.items() if one is not None}
            unclear = f"The value of `{name}` was not understood and was ignored."
            return found, None if found else unclear
        if target in self.properties - OURS:
            return {target: value}, None
        known = ", ".join(self.known) or "none"
        return {}, f"There is no parameter `{short(name)}`; it was ignored. Known are: {known}."

    def _language(self, asked: str) -> str:
        tag = asked.strip().replace("_", "-")
        found = lookup(tag, self.languages or (ANY,))
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
        return [_moved(one, texts, parameters or usual, self.speaker) for one in problems]

    def speaker(self, key: str) -> str:
        """Return the parameter that speaks of a property of our input."""
        for name, target in self.parameters.items():
            if key == target or (isinstance(target, Mapping) and key in target):
                return name
        return key

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
            pairs = self.pairs(one)
            if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
                return one, UNTRANSLATED
            best: dict[str, Any] = {}
            for key, value in pairs:  # the first of two with one name is the better
                best.setdefault(key, value)
            return best, None
        result = self.document(one) if self.document else one
        if self.document and not isinstance(result, dict):
            return self._echoed(text, one), UNTRANSLATED
        return self._echoed(text, result), None

    def _echoed(self, text: str, result: Any) -> Any:
        """Put the text first, as LinTO's services do that take articles."""
        if self.form != "articles":
            return result
        whole = result if isinstance(result, dict) else {"result": result}
        return {"text": text, **{key: value for key, value in whole.items() if key != "text"}}


# --- the block of a manifest ---------------------------------------------------------------------


def of(document: Mapping[str, Any], languages: Sequence[str]) -> Linto | None:
    """Return how the service of a sound manifest speaks LinTO, or None if it has no such form.

    `document` is the parsed manifest and `languages` what the service takes. Without an `x-linto`
    block a service speaks it with the defaults if it takes a list of texts as `documents`.
    """
    if not _takes_texts(document):
        return None
    block = document.get("x-linto", {})
    kind = _kind(document)
    return Linto(
        type=kind,
        name=block.get("name", kind),
        form=block.get("form", "articles"),
        default=block.get("default", False),
        languages=tuple(languages),
        properties=frozenset(document["input"]["properties"]),
        parameters={
            name: {key: Expression(text) for key, text in target.items()}
            if isinstance(target, dict) else target
            for name, target in block.get("parameters", {}).items()
        },
        defaults=block.get("defaults", {}),
        document=Expression(block["document"]) if "document" in block else None,
        pairs=Expression(block["pairs"]) if "pairs" in block else None,
    )  # fmt: skip


def block_problems(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what is wrong with the `x-linto` block of a manifest whose shape is right."""
    if "x-linto" not in document:
        return
    block = document["x-linto"]
    if not _takes_texts(document):
        yield _problem([], "needs an array `documents` in input (of strings) and output")
        return
    if "document" in block and "pairs" in block:
        yield _problem(["pairs"], "stands beside `document`", "one of the two")
    if block.get("form") == "documents" and block.get("name", _kind(document)) == "run":
        yield _problem([], "would take the address of `/run`", "another `name`")
    found = list(_target_problems(block, document["input"]["properties"]))
    for key in ("document", "pairs"):
        if key in block:
            found += _expression_problems([key], block[key])
    yield from found
    if not found:
        yield from _default_problems(of(document, ()), document["input"])


def _default_problems(linto: Linto | None, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Validate LinTO's defaults as what they become: nobody else does before a request."""
    assert linto is not None
    for name in linto.defaults:
        if name not in linto.known:
            yield _problem(["defaults", name], "is not a parameter", linto.known)
    inputs, _ = linto.to_input([], {})
    del inputs["documents"]
    for one in Schema({**schema, "required": []}).problems(inputs):
        key = one.pointer.split("/")[1] if one.pointer else ""
        yield replace(one, pointer=pointer(["x-linto", "defaults", linto.speaker(key)]))


def _target_problems(block: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Problem]:
    names = sorted(known.keys() - OURS)
    for name, target in block.get("parameters", {}).items():
        path = ["parameters", name]
        if isinstance(target, str) and target not in names:
            yield _problem(path, "is not a parameter of the input", names, target)
        for key, text in target.items() if isinstance(target, dict) else ():
            if key not in names:
                yield _problem([*path, key], "is not a parameter of the input", names, key)
            yield from _expression_problems([*path, key], text)


def _expression_problems(path: list[str], text: str) -> Iterator[Problem]:
    try:
        Expression(text)
    except ValueError as error:
        yield _problem(path, str(error), "a JMESPath expression", text[:60])


def _problem(path: list[str], message: str, expected: Any = None, got: Any = None) -> Problem:
    return Problem(pointer(["x-linto", *path]), "linto", message, expected, got)


def _kind(document: Mapping[str, Any]) -> str:
    kind: str = document.get("type", document["name"].replace("-", "_"))
    return kind


def _takes_texts(document: Mapping[str, Any]) -> bool:
    texts = document["input"]["properties"].get("documents")
    results = document["output"].get("properties", {}).get("documents")
    match texts, results:
        case {"type": "array", "items": {"type": "string"}}, {"type": "array"}:
            return True
    return False


# --- small words ---------------------------------------------------------------------------------


def _moved(problem: Problem, texts: str, place: str, speaker: Callable[[str], str]) -> Problem:
    """Put a problem of our input to where the caller wrote what is wrong."""
    match problem.pointer.split("/"):
        case ["", "documents", *rest] if texts:
            where = texts.format(rest[0]) if rest else "/articles"
        case ["", "documents" | "language", *_] | [""]:
            where = problem.pointer
        case ["", key, *rest]:
            where = place + pointer([speaker(key), *rest])
    return replace(problem, pointer=where)


def _sentences(said: Any) -> Iterator[str]:
    """Find the sentences among what a handler calls warnings or errors."""
    for one in said if isinstance(said, list) else ():
        text = one.get("detail", one.get("message")) if isinstance(one, dict) else one
        if isinstance(text, str) and text:
            yield text


def _bounded(warnings: list[str]) -> list[str]:
    more = len(warnings) - MAX_WARNINGS
    told = [warning[:LONGEST] for warning in warnings[:MAX_WARNINGS]]
    return [*told, f"… and {more} more."] if more > 0 else told


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
