"""Keywords and keyphrases against what people chose: F1 of the first 5 and of the first 10.

A data set is a folder `keyphrases-<language>-<name>` with `docs/ID.txt` and `keys/ID.key`, one
keyphrase a line. Both are compared in lower case and stemmed word by word, exactly; the mean is
over documents (macro). Every such folder of the data is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snowballstemmer

from quality.figure import Figure
from runner.testing import run

MANIFESTS = Path(__file__).parents[1] / "manifests"
NAMES = {"en": "english", "fr": "french"}
CUTS = (5, 10)
SEEN = frozenset(["keyphrases-fr-wikinews-dev"])
"""The sets that the services were tuned on."""
BATCH = 500


@dataclass(frozen=True, slots=True)
class Bar:
    """A published F1 of the first 5 and 10 on a set whose name has `within`."""

    within: str
    f1: tuple[float, float]
    against: str


BARS = (
    Bar("wikinews", (34.9, 35.8), "TF-IDF over noun phrases, published, on the test part"),
    Bar("inspec", (28.5, 35.8), "TextRank over noun phrases, published"),
)


@dataclass(frozen=True, slots=True)
class Set:
    """Documents with the keyphrases that people gave them."""

    name: str
    language: str
    documents: list[str]
    keyphrases: list[list[str]]


def sets(data: Path) -> list[Set]:
    """Return the sets in a folder, or the folder itself where it is one."""
    folders = [data] if (data / "docs").is_dir() else sorted(data.glob("keyphrases-*"))
    found = []
    for folder in folders:
        keys = sorted((folder / "keys").glob("*.key"))
        texts = [(folder / "docs" / f"{key.stem}.txt").read_text("utf-8") for key in keys]
        chosen = [key.read_text("utf-8").splitlines() for key in keys]
        language = folder.name.removeprefix("keyphrases-").partition("-")[0]
        if keys and language in NAMES:
            stated = [[one.strip() for one in lines if one.strip()] for lines in chosen]
            found.append(Set(folder.name, language, texts, stated))
    return found


def measure(service: str, data: Path) -> list[Figure]:
    """Return F1 with the service's defaults and, on what is known, with each of its methods."""
    figures = []
    for one in sets(data):
        methods = ["auto"]
        if one.name in SEEN:
            methods += ["yake", "frequencies"] if service == "keyword-extraction" else []
            methods += ["textrank", "positionrank", "topicrank", "multipartiterank"]
        for method in methods:
            values = score(service, one, {"method": method} if method != "auto" else {})
            figures += report(service, one, method, values)
    return figures


def report(service: str, one: Set, method: str, values: Sequence[float]) -> list[Figure]:
    """Return the figures of a method on a set, against the bar of the set."""
    bar = next((bar for bar in BARS if bar.within in one.name and method == "auto"), None)
    label = f"{one.name} ({len(one.documents)})"
    suffix = "" if method == "auto" else f", {method}"
    return [
        Figure(
            service, label, f"F1@{cut}{suffix}", value,
            bar.f1[index] if bar else None, bar.against if bar else "", one.name in SEEN,
        )
        for index, (cut, value) in enumerate(zip(CUTS, values, strict=True))
    ]  # fmt: skip


def score(service: str, one: Set, parameters: dict[str, Any]) -> list[float]:
    """Return the mean F1 at each cut, in percent."""
    result = "keyphrases" if service == "keyphrase-extraction" else "keywords"
    found: list[list[str]] = []
    for start in range(0, len(one.documents), BATCH):
        request = {"documents": one.documents[start : start + BATCH], "language": one.language}
        outcome = run(MANIFESTS / f"{service}.yaml", {**request, **parameters})
        if outcome.error is not None:
            raise outcome.error
        found += [
            [each["text"] for each in answer.get(result, [])]
            for answer in outcome.output["documents"]
        ]
    stem = snowballstemmer.stemmer(NAMES[one.language]).stemWord
    totals = [0.0] * len(CUTS)
    for ours, theirs in zip(found, one.keyphrases, strict=True):
        said = list(dict.fromkeys(folded(each, stem) for each in ours))
        wanted = {folded(each, stem) for each in theirs}
        for index, cut in enumerate(CUTS):
            totals[index] += f1(said[:cut], wanted)
    return [round(100 * total / len(found), 1) for total in totals]


def folded(phrase: str, stem: Any) -> str:
    """Return the stems of a phrase's words."""
    return " ".join(stem(word) for word in phrase.lower().split())


def f1(said: Sequence[str], wanted: set[str]) -> float:
    """Return the harmonic mean of precision and recall."""
    both = sum(one in wanted for one in said)
    return 2 * both / (len(said) + len(wanted)) if both else 0.0
