"""The words of many units as arrays of numbers."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import snowballstemmer
from numpy.typing import NDArray

from handlers.topic_modeling.stopwords import STOPWORDS
from handlers.topic_modeling.units import Unit

Integers = NDArray[np.int64]

WORD = re.compile(r"[^\W_]+")
JOINTS = frozenset(["", "'", "’", "-", "\u2010", "\u2011"])
"""What may stand, besides white space, between two words of one phrase."""

SHORTEST_WORD, LONGEST_WORD = 3, 30
"""In letters; what is longer is a key, a hash or a line that lost its spaces."""

KNOWN_STEMS = 50_000
CHECK_EVERY = 1_000
STEMMERS = {"en": "english", "fr": "french"}


def plain(text: str) -> str:
    """Return the text in the one spelling in which words are compared and shown."""
    return unicodedata.normalize("NFC", text).replace("\u00ad", "")


@dataclass(frozen=True, slots=True)
class Corpus:
    """The units in order, and their words one behind the other.

    `forms` are the different words in lower case. `folds[form]` is equal for forms of one word, and
    -1 for what is no word of a topic: a stop word, a number, a code. For each word in the text
    `words` has its form, `starts` its place in the `plain` unit, and `joined` tells whether it
    continues a phrase with the word before it. The words of unit `i` lie from `bounds[i]` to
    `bounds[i + 1]`.
    """

    units: list[Unit]
    forms: list[str]
    folds: Integers
    words: Integers
    starts: Integers
    joined: NDArray[np.bool_]
    bounds: Integers

    @property
    def unit(self) -> Integers:
        """The unit of each word."""
        return np.repeat(np.arange(len(self.units)), np.diff(self.bounds))


class Stemmer:
    """Folds the forms of a word, language by language; what it has folded lives between requests.

    Source: Porter's Snowball stemmers.
    """

    def __init__(self) -> None:
        self._stem: dict[str, Callable[[str], str]] = {
            language: lru_cache(KNOWN_STEMS)(snowballstemmer.stemmer(name).stemWord)
            for language, name in STEMMERS.items()
        }

    def __call__(self, word: str, language: str) -> str | None:
        """Return the stem of a word in lower case, or None for one that belongs to no topic."""
        if not SHORTEST_WORD <= len(word) <= LONGEST_WORD or not word.isalpha():
            return None
        return None if word in STOPWORDS[language] else self._stem[language](word)


class Reader:
    """Collects units into a corpus."""

    def __init__(self, check: Callable[[], None], stem: Stemmer) -> None:
        self._check, self._fold = check, stem
        self._units: list[Unit] = []
        self._forms: dict[tuple[str, str], int] = {}
        self._stems: dict[str, int] = {}
        self._folds: list[int] = []
        self._words, self._starts, self._joined = array("i"), array("i"), array("b")
        self._ends = [0]

    def add(self, unit: Unit, text: str, language: str) -> None:
        """Read one unit; `text` is its own text, not the document's."""
        self._check()
        text, before = plain(text), 0
        for count, found in enumerate(WORD.finditer(text)):
            if count % CHECK_EVERY == 0:
                self._check()
            start, end = found.span()
            key = found.group().lower(), language
            form = self._forms.get(key)
            if form is None:
                form = self._forms[key] = len(self._forms)
                stem = self._fold(*key)
                self._folds.append(
                    -1 if stem is None else self._stems.setdefault(stem, len(self._stems))
                )
            self._words.append(form)
            self._starts.append(start)
            self._joined.append(count > 0 and text[before:start].strip(" \u00a0") in JOINTS)
            before = end
        self._units.append(unit)
        self._ends.append(len(self._words))

    def corpus(self) -> Corpus:
        """Return what was read."""
        return Corpus(
            units=self._units,
            forms=[form for form, _ in self._forms],
            folds=np.array(self._folds, np.int64),
            words=np.array(self._words, np.int64),
            starts=np.array(self._starts, np.int64),
            joined=np.array(self._joined, np.bool_),
            bounds=np.array(self._ends, np.int64),
        )


def known(corpus: Corpus, words: Iterable[str]) -> list[int]:
    """Return the forms of a corpus that words, or the words of phrases, have in lower case."""
    spelled = {one.lower() for word in words for one in WORD.findall(plain(word))}
    return [
        form for form, one in enumerate(corpus.forms) if corpus.folds[form] >= 0 and one in spelled
    ]
