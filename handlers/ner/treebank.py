"""Reads French treebanks, typing the proper nouns that lists and context make plain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from handlers.ner.frsemcor import BEFORE_PLACE
from handlers.ner.passage import UNSURE, Passage, blocks, locate


class Lists(Protocol):
    """What a reader asks the name and place lists."""

    def is_place(self, name: str) -> bool:
        """Tells whether a name is a listed place of any size."""

    def is_known_place(self, name: str) -> bool:
        """Tells whether a name is a listed country, region or large city."""

    def is_given(self, word: str) -> bool:
        """Tells whether a word is a listed given name."""


def treebank(path: Path, lists: Lists) -> Iterator[Passage]:
    """Reads a French UD file for its proper nouns, typing those that lists and context make plain.

    A capitalised word that stays in doubt is marked `?`; every other word is known to be no name.
    """
    for comments, lines in blocks(path):
        rows = [row for row in lines if row[0].isdigit()]
        text = comments.get("text", "")
        places = locate(text, [row[1] for row in rows])
        spans: list[tuple[int, int, str]] = []
        index = 0
        while index < len(rows):
            stop = name_end(rows, index)
            ends = places[index], places[stop - 1] if stop > index else None
            if stop > index and ends[0] and ends[1]:
                plain = all(row[3] == "PROPN" for row in rows[index:stop])
                name = text[ends[0][0] : ends[1][1]]
                before = rows[index - 1][1].lower() if index else ""
                label = kind_of_name(name, before, lists) if plain else UNSURE
                spans.append((ends[0][0], ends[1][1], label))
            index = max(stop, index + 1)
        yield Passage(text, tuple(spans), "fr", "gsd", comments.get("sent_id", ""))


def name_end(rows: Sequence[Sequence[str]], start: int) -> int:
    """Returns the token after the capitalised chain that begins at a token, or the token itself."""
    if not capital(rows[start]) or (start == 0 and rows[start][3] not in {"PROPN", "X"}):
        return start
    stop = start + 1
    while stop < len(rows):
        after = stop
        while after < len(rows) and after - stop < 3 and rows[after][3] in {"ADP", "DET"}:
            after += 1
        if after < len(rows) and capital(rows[after]):
            # A preposition between two plain proper nouns parts them: "Dublin en Irlande".
            if after > stop and rows[start][3] == "PROPN":
                break
            stop = after + 1
        elif rows[start][3] != "PROPN" and rows[stop][3] in {"ADJ", "NUM"}:
            stop += 1
        else:
            break
    return stop


def capital(row: Sequence[str]) -> bool:
    """Tells whether a token is a proper noun, a foreign word or a capitalised noun or adjective."""
    if row[3] in {"PROPN", "X"}:
        return True
    return row[1][:1].isupper() and len(row[1]) > 1 and row[3] in {"NOUN", "ADJ", "NUM"}


def kind_of_name(name: str, before: str, lists: Lists) -> str:
    """Types a proper noun by the lists and the word before it, or returns `?`."""
    words = name.split()
    if lists.is_place(name):
        sure = before in BEFORE_PLACE or lists.is_known_place(name)
        return "LOC" if sure and not lists.is_given(name) else UNSURE
    if len(words) in {2, 3} and lists.is_given(words[0]) and name.replace(" ", "").isalpha():
        return "PER"
    return UNSURE
