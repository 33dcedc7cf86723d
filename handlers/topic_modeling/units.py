"""The units of a document: the pieces of text that topics are assigned to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from handlers.text.sentences import LINE, split

BREAK = r"(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])"
BLANK_LINES = re.compile(rf"{BREAK}(?:[^\S\n\r]*+{BREAK})++")


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of a document, in code points: `documents[document][start:end]`."""

    document: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Cutting:
    """How documents are cut: `unit` is document, paragraph (blank lines end it), line or sentence.

    A `separator` wins over `unit` in every document that has it.
    """

    unit: str
    separator: str | None = None

    @property
    def whole(self) -> bool:
        """Whether a document is one unit."""
        return self.separator is None and self.unit == "document"

    def spans(self, text: str, language: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of each unit of a text, without the white space around it.

        A whole document is always one unit, even an empty one; other units are never blank.
        """
        if self.separator is not None and self.separator in text:
            yield from filled(text, between(text, re.compile(re.escape(self.separator))))
        elif self.unit == "document":
            yield 0, len(text)
        elif self.unit == "paragraph":
            yield from filled(text, between(text, BLANK_LINES))
        elif self.unit == "line":
            yield from filled(text, (line.span() for line in LINE.finditer(text)))
        else:
            yield from split(text, language)


def between(text: str, border: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Yield the spans before, between and after the borders."""
    start = 0
    for found in border.finditer(text):
        yield start, found.start()
        start = found.end()
    yield start, len(text)


def filled(text: str, spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the spans without the white space at their ends, if something is left."""
    for start, end in spans:
        piece = text[start:end]
        left = len(piece) - len(piece.lstrip())
        piece = piece.strip()
        if piece:
            yield start + left, start + left + len(piece)
