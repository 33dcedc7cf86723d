"""The phrases of a document that may be its keyphrases, and where each stands."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from handlers.text.grammar import PARTS, Grammar
from handlers.text.lexicon import Lexicon
from handlers.text.noun_phrases import Kind, noun_phrases
from handlers.text.reading import Sentence
from handlers.text.tokens import Token, is_word, spell, tokenize

PLACES = 50
"""Occurrences whose places are kept; all are counted."""
COMMONEST = 8.0
"""On the Zipf scale; a word that common would have no rarity at all."""

NAME = {"PROPN"}

Key = tuple[str, ...]


@dataclass(slots=True)
class Candidate:
    """A phrase with all its forms, of one sequence of stems.

    `whole` counts where it is not a part of a longer phrase; `kind` is that of its first occurrence
    and `first` the tokens before that; `name` says whether all its words are names; `rarity` is the
    mean over its nouns and adjectives.
    `starts`, `ends` (code points) and `positions` (tokens) tell of the first `PLACES` occurrences.
    """

    key: Key
    kind: Kind
    first: int
    rarity: float = 0.0
    name: bool = False
    count: int = 0
    whole: int = 0
    starts: array[int] = field(default_factory=lambda: array("I"))
    ends: array[int] = field(default_factory=lambda: array("I"))
    positions: array[int] = field(default_factory=lambda: array("I"))

    def met(self, start: int, end: int, position: int, whole: bool) -> None:
        """Count an occurrence."""
        self.count += 1
        self.whole += whole
        if len(self.starts) < PLACES:
            self.starts.append(start)
            self.ends.append(end)
            self.positions.append(position)

    def spelled(self, document: str) -> str:
        """Return the form that the document uses most, the earlier one of equals."""
        forms = Counter(
            spell(document[start:end]) for start, end in zip(self.starts, self.ends, strict=True)
        )
        return max(forms, key=forms.__getitem__)


@dataclass(slots=True)
class Pool:
    """The candidates of a document in the order of their first occurrence.

    `stems` has every token of the document, None where it is no part of a noun phrase.
    """

    candidates: dict[Key, Candidate] = field(default_factory=dict)
    stems: list[str | None] = field(default_factory=list)

    def met(self, key: Key, kind: Kind, tokens: Sequence[Token], position: int) -> Candidate:
        """Count an occurrence of a candidate, known or not."""
        found = self.candidates.get(key)
        if found is None:
            found = self.candidates[key] = Candidate(key, kind, position)
        found.met(tokens[0].start, tokens[-1].end, position, kind is Kind.WHOLE)
        return found


def phrases(
    sentences: Iterable[Sentence], grammar: Grammar, lexicon: Lexicon,
    stem: Callable[[str], str], stop_words: Collection[str], longest: int,
) -> Pool:  # fmt: skip
    """Return the noun phrases of a document."""
    pool = Pool()
    for sentence in sentences:
        tokens, base = sentence.tokens, len(pool.stems)
        stems = [stem(token.form) for token in tokens]
        for phrase in noun_phrases(sentence, grammar, stop_words, longest):
            span = slice(phrase.start, phrase.end)
            place = base + phrase.start
            found = pool.met(tuple(stems[span]), phrase.kind, tokens[span], place)
            if found.count == 1:
                found.rarity = rarity(tokens[span], sentence.tags[span], lexicon)
                found.name = set(sentence.tags[span]) == NAME
        pool.stems += [
            one if tag in PARTS else None for one, tag in zip(stems, sentence.tags, strict=True)
        ]
    return pool


def words(
    sentences: Iterable[Sentence], stem: Callable[[str], str], stop_words: Collection[str],
    longest: int,
) -> Pool:  # fmt: skip
    """Return the words of a document that are no stop words, and their sequences."""
    pool = Pool()
    for sentence in sentences:
        tokens, base = sentence.tokens, len(pool.stems)
        stems = [content(token.form, stem, stop_words) for token in tokens]
        for left in range(len(tokens)):
            for right in range(left + 1, min(left + longest, len(tokens)) + 1):
                last = stems[right - 1]
                if last is None:
                    break
                here = tuple(one for one in stems[left:right] if one is not None)
                pool.met(here, Kind.WHOLE, tokens[left:right], base + left)
        pool.stems += stems
    return pool


def given(
    sentences: Iterable[Sentence], stem: Callable[[str], str], keys: Iterable[Key],
    lexicon: Lexicon | None = None,
) -> Pool:  # fmt: skip
    """Return where the wanted sequences of stems stand, in time linear in the document.

    Sentences without tags have only nouns; without a lexicon nothing is rare.
    """
    wanted = frozenset(keys)
    sizes: dict[str, set[int]] = {}
    for one in wanted:
        sizes.setdefault(one[0] if one else "", set()).add(len(one))
    pool = Pool()
    for sentence in sentences:
        tokens, base = sentence.tokens, len(pool.stems)
        tags = sentence.tags or ["NOUN"] * len(tokens)
        stems = [stem(token.form) for token in tokens]
        for left, first in enumerate(stems):
            for size in sizes.get(first, ()):
                here, right = tuple(stems[left : left + size]), left + size
                if here in wanted:
                    found = pool.met(here, Kind.WHOLE, tokens[left:right], base + left)
                    if lexicon and found.count == 1:
                        found.rarity = rarity(tokens[left:right], tags[left:right], lexicon)
        pool.stems += [one if tag in PARTS else None for one, tag in zip(stems, tags, strict=True)]
    return pool


def key(phrase: str, language: str, stem: Callable[[str], str]) -> Key:
    """Return the stems of a phrase that did not come out of a document."""
    return tuple(stem(token.form) for token in tokenize(phrase, 0, len(phrase), language))


def content(form: str, stem: Callable[[str], str], stop_words: Collection[str]) -> str | None:
    """Return the stem of a word that says something, or None."""
    if len(form) < 2 or not is_word(form) or form.lower() in stop_words:
        return None
    return stem(form)


def rarity(tokens: Sequence[Token], tags: Sequence[str], lexicon: Lexicon) -> float:
    """Return the mean rarity of the nouns and adjectives of a phrase, above 0."""
    rare = [
        max(0.1, COMMONEST - lexicon.common(token.form))
        for token, tag in zip(tokens, tags, strict=True)
        if tag not in ("ADP", "DET")
    ]
    return sum(rare) / len(rare) if rare else 0.1
