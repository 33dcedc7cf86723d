"""Raw text with gold entity spans, and the ways to get there from annotated tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

LABELS = ("LOC", "ORG", "PER")

UNSURE = "?"


@dataclass(frozen=True)
class Passage:
    """One stretch of raw text with its gold spans, each `(start, end, label)` in code points.

    The label `?` marks a stretch of which nothing is known: training skips it.
    """

    text: str
    spans: tuple[tuple[int, int, str], ...]
    language: str
    corpus: str
    document: str


@dataclass
class Token:
    """One gold token: its form, its IOB2 tag and whether white space follows it."""

    form: str
    tag: str
    spaced: bool = True


def compose(tokens: Sequence[Token]) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    """Joins gold tokens into raw text and returns it with the spans their IOB2 tags describe."""
    text: list[str] = []
    length = 0
    spans: list[list] = []
    for token, tag in zip(tokens, legalise([token.tag for token in tokens]), strict=True):
        start, end = length, length + len(token.form)
        kind, _, label = tag.partition("-")
        if kind == "B":
            spans.append([start, end, label])
        elif kind == "I":
            spans[-1][1] = end
        text.append(token.form)
        length = end
        if token.spaced:
            text.append(" ")
            length += 1
    kept = tuple((start, end, label) for start, end, label in spans if label in LABELS)
    return "".join(text).rstrip(), kept


def legalise(tags: Sequence[str]) -> list[str]:
    """Turns any IOB tags into strict IOB2: an I- that continues nothing of its type becomes B-."""
    result = []
    previous = "O"
    for tag in tags:
        if tag.startswith("I-") and previous[2:] != tag[2:]:
            tag = "B-" + tag[2:]
        result.append(tag)
        previous = tag
    return result


def locate(text: str, forms: Iterable[str]) -> list[tuple[int, int] | None]:
    """Finds each form in the text after the one before it; None where the form is not there."""
    places: list[tuple[int, int] | None] = []
    cursor = 0
    slack = 3
    for form in forms:
        start = text.find(form, cursor, cursor + len(form) + slack)
        if start < 0:
            # Contracted words (French `du` is `de` and `le`) stand in the text under another form.
            slack += 3
            places.append(None)
            continue
        cursor, slack = start + len(form), 3
        places.append((start, cursor))
    return places


def project(
    text: str, forms: Sequence[str], tags: Sequence[str]
) -> tuple[tuple[int, int, str], ...]:
    """Lays IOB2 tags of tokens over the raw text the tokens came from."""
    spans: list[list] = []
    for place, tag in zip(locate(text, forms), tags, strict=True):
        if place is None or tag == "O":
            continue
        if tag.startswith("B-") or not spans:
            spans.append([*place, tag[2:]])
        else:
            spans[-1][1] = place[1]
    return tuple((start, end, label) for start, end, label in spans if label in LABELS)


def blocks(path: Path) -> Iterator[tuple[dict[str, str], list[list[str]]]]:
    """Yields each sentence of a tab-separated file: its `# key = value` comments and its rows."""
    comments: dict[str, str] = {}
    rows: list[list[str]] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("#") and not rows:
                key, _, value = line[1:].partition("=")
                comments[key.strip()] = value.strip()
            elif line:
                rows.append(line.split("\t"))
            elif rows:
                yield comments, rows
                comments, rows = {}, []
    if rows:
        yield comments, rows


CLOSING = re.compile(
    r"^(?:[.,;:!?%)\]}…»]+|'s|’s|n't|n’t|'(?:re|ve|ll|m|d)|’(?:re|ve|ll|m|d))$", re.I
)

OPENING = re.compile(r"^[(\[{«@$£€]$")

ELIDED = re.compile(r"^(?:[ldcjmtsn]|qu|jusqu|lorsqu|puisqu|quoiqu|aujourd)['’]$", re.I)


def close_up(forms: Sequence[str], tags: Sequence[str]) -> list[Token]:
    """Guesses where white space stood between tokens of a set that did not keep it."""
    tokens = [Token(form, tag) for form, tag in zip(forms, tags, strict=True)]
    for left, right in pairwise(tokens):
        tight = CLOSING.match(right.form) or OPENING.match(left.form) or ELIDED.match(left.form)
        left.spaced = not tight
    return tokens
