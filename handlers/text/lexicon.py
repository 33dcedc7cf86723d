"""What is known of single words: which parts of speech they can be, and how common they are."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "model"
RAREST = 1.5
"""The commonness of a word that no list has: some 30 in a billion words."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The bundled word list of a language, in lower case.

    `classes` says what a word can be: n noun, N name, a adjective, v verb, r adverb, and the other
    parts of speech by one letter each; `commonness` is the decimal logarithm of its occurrences
    in a billion words (the Zipf scale: 7 for `the`, 3 for `turbine`).
    """

    classes: dict[str, str]
    commonness: dict[str, float]

    def common(self, word: str) -> float:
        """Return how common a word is, in whatever case; parts of a compound count apart."""
        word = word.lower()
        known = self.commonness.get(word)
        if known is not None:
            return known
        if "-" in word:
            return min(self.commonness.get(part, RAREST) for part in word.split("-"))
        return RAREST


def load(language: str) -> Lexicon:
    """Read the bundled word list of a language: some 100,000 words, 15 MB in memory."""
    classes: dict[str, str] = {}
    commonness: dict[str, float] = {}
    shared: dict[str, str] = {}
    with gzip.open(FOLDER / f"{language}.words.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            word, kinds, tenths = line.rstrip("\n").split("\t")
            if kinds:
                classes[word] = shared.setdefault(kinds, kinds)
            if tenths:
                commonness[word] = int(tenths) / 10
    return Lexicon(classes, commonness)
