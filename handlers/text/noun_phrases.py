"""Finds the noun phrases of a tagged sentence, and the shorter ones inside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from handlers.text.grammar import NOUNS, PARTS, Grammar
from handlers.text.reading import Sentence
from handlers.text.tokens import is_word

BORDER = ""


class Kind(Enum):
    """How a phrase stands in its sentence."""

    WHOLE = "by itself"
    PART = "inside a longer noun phrase"
    LINK = "two noun phrases and the preposition between them"
    ADJECTIVE = "the adjective of a noun phrase"


@dataclass(frozen=True, slots=True)
class Phrase:
    """Tokens `start` to `end` of a sentence."""

    start: int
    end: int
    kind: Kind


def runs(tags: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where the runs of nouns, names and adjectives with a noun begin and end."""
    start = 0
    while start < len(tags):
        if tags[start] not in PARTS:
            start += 1
            continue
        end = start + 1
        while end < len(tags) and tags[end] in PARTS:
            end += 1
        if any(tag in NOUNS for tag in tags[start:end]):
            yield start, end
        start = end


def noun_phrases(
    sentence: Sentence, grammar: Grammar, stop_words: Collection[str], longest: int
) -> Iterator[Phrase]:
    """Yield the noun phrases of at most `longest` words, none twice, in linear time.

    A phrase has no article in front; adjectives that go with every noun are left out there too.
    Stop words are borders. The number behind a name belongs to it (`Falcon 9`).
    """
    forms = [token.form.lower() for token in sentence.tokens]
    tags = [
        role(token.form, low, tag, stop_words)
        for token, low, tag in zip(sentence.tokens, forms, sentence.tags, strict=True)
    ]
    for index in range(1, len(tags)):
        if sentence.tags[index] == "NUM" and tags[index - 1] == "PROPN" and forms[index].isalnum():
            tags[index] = "PROPN"
    for start, end in runs(tags):
        while start < end and tags[start] == "ADJ" and forms[start] in grammar.empty:
            start += 1
        yield from inside(tags, forms, start, end, grammar, longest)
        yield from linked(tags, forms, start, end, grammar, longest)


def role(form: str, low: str, tag: str, stop_words: Collection[str]) -> str:
    """Return the tag of a word, or a border where it has no part in a noun phrase."""
    if tag not in PARTS:
        return tag
    if low in stop_words or not is_word(form):
        return BORDER
    return BORDER if len(form) == 1 and not form.isupper() else tag


def inside(
    tags: Sequence[str], forms: Sequence[str], start: int, end: int, grammar: Grammar, longest: int
) -> Iterator[Phrase]:
    """Yield a run and what is inside it. Of a run that is too long, the longest parts are whole."""
    stop = end
    if not grammar.adjective_last:
        while stop > start and tags[stop - 1] == "ADJ":
            stop -= 1
    for left in range(start, end):
        if tags[left] == "ADJ" and grammar.adjective_alone:
            yield Phrase(left, left + 1, Kind.ADJECTIVE)
        if tags[left] == "ADJ" and forms[left] in grammar.empty:
            continue
        nouns = False
        for right in range(left + 1, min(left + longest, end) + 1):
            nouns = nouns or tags[right - 1] in NOUNS
            if not nouns or (tags[right - 1] == "ADJ" and not grammar.adjective_last):
                continue
            if right - left == 1 and forms[left] in grammar.hollow:
                continue
            if (left, right) == (start, stop) or right - left == longest < stop - start:
                yield Phrase(left, right, Kind.WHOLE)
            elif not cuts_name(tags, left, right):
                yield Phrase(left, right, Kind.PART)


def cuts_name(tags: Sequence[str], left: int, right: int) -> bool:
    """Tell whether a phrase begins or ends inside a name of several words."""
    before = left > 0 and tags[left - 1] == tags[left] == "PROPN"
    return before or (right < len(tags) and tags[right - 1] == tags[right] == "PROPN")


def linked(
    tags: Sequence[str], forms: Sequence[str], start: int, end: int, grammar: Grammar, longest: int
) -> Iterator[Phrase]:
    """Yield the run with a preposition and (the beginning of) the run behind that."""
    if start >= end or end >= len(tags) or forms[end] not in grammar.links:
        return
    left = end + 1
    if left < len(tags) and tags[left] == "DET":
        left += 1
    nouns = False
    for right in range(left + 1, min(start + longest, len(tags)) + 1):
        if tags[right - 1] not in PARTS:
            return
        nouns = nouns or tags[right - 1] in NOUNS
        if nouns and (grammar.adjective_last or tags[right - 1] != "ADJ"):
            yield Phrase(start, right, Kind.LINK)
