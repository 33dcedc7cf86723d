"""Cuts long texts at paragraph or sentence borders, so that work and memory stay bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LIMIT = 10_000
BATCH = 40_000
BORDERS = ("\n\n", "\n", ". ", "! ", "? ", "… ", "; ", ", ", " ")
WORD = 128
# spaCy's tokenizer takes quadratic time in a run without white space: 60 kB of it took minutes.
ENDLESS = re.compile(rf"(?<!\S)\S{{{WORD + 1},}}")


@dataclass(frozen=True)
class Piece:
    """A stretch of one document: the document's number, where it starts (code points), its text."""

    document: int
    start: int
    text: str
    last: bool


def cut(number: int, text: str, limit: int = LIMIT) -> Iterator[Piece]:
    """Yields a document in pieces of at most `limit` code points, in time linear in the text.

    An empty document is one empty piece.
    """
    start = 0
    for stop in stops(text, limit):
        yield Piece(number, start, text[start:stop], stop == len(text))
        start = stop


def stops(text: str, limit: int) -> Iterator[int]:
    """Yields where each piece ends: at good borders, and inside runs without any white space."""
    start = 0
    for run in ENDLESS.finditer(text):
        yield from borders(text, start, run.start(), limit)
        yield from range(run.start() + WORD, run.end(), WORD)
        yield run.end()
        start = run.end()
    if start < len(text) or not text:
        yield from borders(text, start, len(text), limit) if text else (0,)


def borders(text: str, start: int, end: int, limit: int) -> Iterator[int]:
    """Yields borders that leave no more than `limit` code points between them, the last at `end`.

    A border is looked for in the second half of a piece alone, which keeps the search linear.
    """
    while end - start > limit:
        start = border(text, start + limit // 2, start + limit)
        yield start
    if end > start:
        yield end


def border(text: str, least: int, most: int) -> int:
    """Returns where to cut between two offsets: after the last border of the best kind found."""
    for mark in BORDERS:
        found = text.rfind(mark, least, most)
        if found >= 0:
            return found + len(mark)
    return most


def batches(pieces: Iterable[Piece], size: int = BATCH) -> Iterator[list[Piece]]:
    """Groups pieces in order until a group holds `size` code points or 256 pieces."""
    group: list[Piece] = []
    held = 0
    for piece in pieces:
        group.append(piece)
        held += len(piece.text)
        if held >= size or len(group) >= 256:
            yield group
            group, held = [], 0
    if group:
        yield group
