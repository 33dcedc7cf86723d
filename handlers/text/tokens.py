"""The words and marks of English and French sentences, each with its place in the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

# Letters, digits, and what belongs to the letter before it: accents written apart, soft hyphens,
# joiners. The possessive `++` keeps every text linear.
LETTER = r"[\w\u00ad\u0300-\u036f\u200c\u200d]"
WORD = rf"{LETTER}++(?:[-‐‑.&’'/](?=\w){LETTER}++)*+"
NUMBER = r"\d++(?:[.,]\d++)*+(?![\w\u00ad\u0300-\u036f])"
DOTTED = r"(?:[^\W\d_]\.){2,8}"  # U.S., e.g.
ELISION = r"(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu)['’](?=\w)"
CLITIC = re.compile(r"['’](?:s|d|ll|re|ve|m)$", re.IGNORECASE)
TOKEN = {
    "en": re.compile(rf"{DOTTED}|{NUMBER}|{WORD}|\S"),
    "fr": re.compile(rf"{ELISION}|{DOTTED}|{NUMBER}|{WORD}|\S", re.IGNORECASE),
}
SEPARATOR = re.compile(r"[./](?=\w)")
INVISIBLE = dict.fromkeys([0xAD, 0x200C, 0x200D])
TYPED = str.maketrans("’‑‐", "'--")
LONGEST = 60
"""Characters of a token that are looked at."""
LONGEST_WORD = 50
"""Characters; what is longer is a key, a hash or a line of dashes that lost its spaces."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a number or a mark.

    `start` and `end` count code points of the text. `form` is what stands there as one would type
    it: composed accents, straight apostrophes, nothing invisible, at most `LONGEST` characters.
    """

    form: str
    start: int
    end: int


def tokenize(text: str, start: int, end: int, language: str) -> Iterator[Token]:
    """Yield the tokens between two places of a text in order, in linear time.

    Compounds with hyphens are one token. What loses its vowel (`l'`, `qu'`) and the English
    genitive (`'s`) are tokens of their own; so are the parts of `and/or` and of `one.Two`.
    """
    for found in TOKEN[language].finditer(text, start, end):
        for left, right in pieces(found.group(), language):
            first, last = found.start() + left, found.start() + right
            if form := plain(text[first:last]):  # a stray soft hyphen is no token
                yield Token(form, first, last)


def pieces(word: str, language: str) -> Iterator[tuple[int, int]]:
    """Yield the places inside a match where its tokens begin and end."""
    start, end = 0, len(word)
    if end < 3 or end > LONGEST:
        yield start, end
        return
    if not (word[0].isdigit() or word.endswith(".")):
        for mark in SEPARATOR.finditer(word):
            if mark.start() > start:
                yield start, mark.start()
            yield mark.start(), mark.end()
            start = mark.end()
    clitic = CLITIC.search(word, start) if language == "en" else None
    if clitic and clitic.start() > start:
        yield start, clitic.start()
        start = clitic.start()
    if start < end:
        yield start, end


def is_word(form: str) -> bool:
    """Tell whether a token can say something: no mark, no number, no key, not `l'` and not `'s`."""
    if len(form) > LONGEST_WORD or form[0] == "'" or form[-1] == "'":
        return False
    return any(map(str.isalpha, form))


def plain(word: str) -> str:
    """Return a word as one would type it."""
    return spell(word[:LONGEST])


def spell(phrase: str) -> str:
    """Return a phrase as one would type it, with one space between two words."""
    if not phrase.isascii():
        phrase = unicodedata.normalize("NFC", phrase.translate(INVISIBLE)).translate(TYPED)
    return " ".join(phrase.split())
