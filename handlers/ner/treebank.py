"""Reads French treebanks, typing the proper nouns that lists and context make plain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from spacy.language import Language

from handlers.ner.frsemcor import BEFORE_PLACE
from handlers.ner.passage import UNSURE, Passage, blocks, locate
from handlers.ner.teacher import names_of


class Lists(Protocol):
    """What a reader asks the name and place lists."""

    def is_place(self, name: str) -> bool:
        """Tells whether a name is a listed place of any size."""

    def is_known_place(self, name: str) -> bool:
        """Tells whether a name is a listed country, region or large city."""

    def is_given(self, word: str) -> bool:
        """Tells whether a word is a listed given name."""


def treebank(path: Path, lists: Lists, teacher: Language) -> Iterator[Passage]:
    """Reads a French UD file for its proper nouns, typing those that lists and context make plain.

    The others get the type a published pipeline gives them, if it finds them with the same borders;
    what it calls MISC is no name of ours. A name still in doubt is marked `?`; every other word is
    known to be no name.
    """
    for comments, lines in blocks(path):
        rows = [row for row in lines if row[0].isdigit()]
        text = comments.get("text", "")
        words = [(row[1], row[3]) for row in rows]
        places = locate(text, [form for form, _ in words])
        spans = typed(text, words, places, lists, names_of(teacher(text)))
        yield Passage(text, spans, "fr", "gsd", comments.get("sent_id", ""))


def debates(folder: Path, corpus: str, lists: Lists, teacher: Language) -> Iterator[Passage]:
    """Reads raw French texts line by line as `treebank` does; the teacher says what is a noun.

    The name of the speaker before a line is left out: it would be the same ones over and over.
    """
    for file in sorted(folder.glob("*.txt")):
        lines = []
        for line in file.read_text(encoding="utf-8").splitlines():
            line = SPEAKER.sub("", line.strip()).replace("\xad", "")
            if 40 <= len(line) <= 3000:
                lines.append(line)
        for doc in teacher.pipe(lines):
            tokens = [token for token in doc if not token.is_space]
            words = [(token.text, token.pos_) for token in tokens]
            places = [(token.idx, token.idx + len(token)) for token in tokens]
            spans = typed(doc.text, words, places, lists, names_of(doc))
            yield Passage(doc.text, spans, "fr", corpus, file.stem)


# The published pipeline takes these for places.
DOUBTFUL = frozenset(
    {"État", "Etat", "États", "Etats", "Cour", "République", "Nation", "Sud", "Nord"}
)
SPEAKER = re.compile(r"^[^:.?!]{1,40} : ")


def typed(
    text: str,
    words: Sequence[tuple[str, str]],
    places: Sequence[tuple[int, int] | None],
    lists: Lists,
    second: Mapping[tuple[int, int], str],
) -> tuple[tuple[int, int, str], ...]:
    """Types the chains of proper nouns among words, each a form and its UD part of speech."""
    spans: list[tuple[int, int, str]] = []
    index = 0
    while index < len(words):
        stop = name_end(words, index)
        ends = places[index], places[stop - 1] if stop > index else None
        if stop > index and ends[0] and ends[1]:
            plain = all(kind == "PROPN" for _, kind in words[index:stop])
            name = text[ends[0][0] : ends[1][1]]
            before = words[index - 1][0].lower() if index else ""
            label = kind_of_name(name, before, lists) if plain else UNSURE
            place = ends[0][0], ends[1][1]
            # The rule takes "France Télécom" for a person; places it knows are safe.
            if label != "LOC":
                label = second.get(place, label)
            if name in DOUBTFUL:
                label = UNSURE
            if label != "MISC":
                spans.append((*place, label))
        index = max(stop, index + 1)
    return tuple(spans)


def name_end(words: Sequence[tuple[str, str]], start: int) -> int:
    """Returns the token after the capitalised chain that begins at a token, or the token itself."""
    if not capital(words[start]) or (start == 0 and words[start][1] not in {"PROPN", "X"}):
        return start
    stop = start + 1
    while stop < len(words):
        after = stop
        while after < len(words) and after - stop < 3 and words[after][1] in {"ADP", "DET"}:
            after += 1
        if after < len(words) and capital(words[after]):
            # A preposition between two plain proper nouns parts them: "Dublin en Irlande".
            if after > stop and words[start][1] == "PROPN":
                break
            stop = after + 1
        elif words[start][1] != "PROPN" and words[stop][1] in {"ADJ", "NUM"}:
            stop += 1
        else:
            break
    return stop


def capital(word: tuple[str, str]) -> bool:
    """Tells whether a token is a proper noun, a foreign word or a capitalised noun or adjective."""
    form, kind = word
    if kind in {"PROPN", "X"}:
        return True
    return form[:1].isupper() and len(form) > 1 and kind in {"NOUN", "ADJ", "NUM"}


def kind_of_name(name: str, before: str, lists: Lists) -> str:
    """Types a proper noun by the lists and the word before it, or returns `?`."""
    words = name.split()
    if lists.is_place(name):
        sure = before in BEFORE_PLACE or lists.is_known_place(name)
        return "LOC" if sure and not lists.is_given(name) else UNSURE
    if len(words) in {2, 3} and lists.is_given(words[0]) and name.replace(" ", "").isalpha():
        return "PER"
    return UNSURE
