"""A piece of a document that a summary takes whole or not at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from handlers.text.sentences import split
from runner import Context

WORD = re.compile(r"[^\W\d_]{2,}")
TOKEN = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, or what a caller split off; `text` is `document[start:end]`.

    `plain` is the text in one Unicode form and without soft hyphens, `words` its words of two
    letters or more in lower case. Units of one `key` say the same. `size` counts the words as a
    caller counts them, by the white space between.
    """

    start: int
    end: int
    text: str
    plain: str
    words: tuple[str, ...]
    key: str
    size: int


def units(ctx: Context, document: str, language: str, separator: str | None) -> list[Unit]:
    """Return what stands between the separators of a document, or its sentences if it has none.

    Those without a letter or a digit are left out.
    """
    cut = pieces(document, separator) if separator and separator in document else None
    found = []
    for start, end in cut or split(document, language):
        ctx.check()
        text = document[start:end]
        if any(map(str.isalnum, text)):
            plain = unicodedata.normalize("NFC", text).replace("\u00ad", "")
            low = plain.lower()
            words, key = tuple(WORD.findall(low)), " ".join(TOKEN.findall(low))
            found.append(Unit(start, end, text, plain, words, key, len(text.split())))
    return found


def pieces(document: str, separator: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of what stands between separators, without the white space around it."""
    start = 0
    while start <= len(document):
        end = document.find(separator, start)
        end = len(document) if end < 0 else end
        piece = document[start:end]
        if piece.strip():
            lead = len(piece) - len(piece.lstrip())
            yield start + lead, start + len(piece.rstrip())
        start = end + len(separator)
