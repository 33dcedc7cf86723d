"""Reads the GUM corpus, whose mentions are whole noun phrases, for the names in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from handlers.ner.passage import Passage, blocks, locate

TITLES = frozenset({
    "mr", "mr.", "mrs", "mrs.", "ms", "ms.", "miss", "dr", "dr.", "prof", "prof.", "professor",
    "president", "senator", "sen", "sen.", "sir", "lord", "lady", "judge", "justice", "governor",
    "gov", "gov.", "general", "gen", "gen.", "captain", "capt", "capt.", "minister", "secretary",
    "mayor", "king", "queen", "prince", "princess", "pope", "saint", "st", "st.", "rev", "rev.",
    "reverend", "chairman", "director", "representative", "rep", "rep.", "congressman",
    "congresswoman", "ambassador", "chief", "coach", "officer",
})  # fmt: skip

GUM_TYPES = {"person": "PER", "place": "LOC", "organization": "ORG"}


@dataclass
class Mention:
    """One GUM mention: its identity, its type and the first and last token it covers."""

    identity: str
    kind: str
    first: int
    last: int = -1


def gum_mentions(rows: Sequence[Sequence[str]]) -> list[Mention]:
    """Reads the bracketed `Entity=` values of one sentence's MISC column."""
    opened: list[Mention] = []
    closed: list[Mention] = []
    for index, row in enumerate(rows):
        value = next((part[7:] for part in row[9].split("|") if part.startswith("Entity=")), "")
        for match in re.finditer(r"\((\d+)-([a-z]+)-[^()]*(\)?)|(\d+)\)", value):
            if match.group(1):
                mention = Mention(match.group(1), match.group(2), index)
                if match.group(3):
                    mention.last = index
                    closed.append(mention)
                else:
                    opened.append(mention)
            else:
                for mention in reversed(opened):
                    if mention.identity == match.group(4):
                        mention.last = index
                        opened.remove(mention)
                        closed.append(mention)
                        break
    return closed


def proper(row: Sequence[str]) -> bool:
    """Tells whether a token is a capitalised proper noun."""
    return row[3] == "PROPN" and row[1][:1].isupper()


def gum_name(rows: Sequence[Sequence[str]], mention: Mention) -> tuple[int, int, str] | None:
    """Trims a mention to the name at its head, or returns None when its head is no name.

    GUM marks every noun phrase whole; PER, LOC and ORG sets mark the proper noun alone, without
    determiner, title or clause. The result is `(first token, last token, label)`.
    """
    first, last = mention.first, mention.last
    inside = {rows[index][0] for index in range(first, last + 1)}
    heads = [i for i in range(first, last + 1) if rows[i][6] not in inside]
    label = GUM_TYPES.get(mention.kind)
    if not label or len(heads) != 1 or not proper(rows[heads[0]]):
        return None
    head = heads[0]
    if label == "PER" and rows[head][4] == "NNPS":
        return None
    begin = end = head
    while begin > first and (proper(rows[begin - 1]) or joined(rows, begin - 1, first)):
        begin -= 1
    while end < last:
        if proper(rows[end + 1]) or rows[end + 1][3] == "NUM":
            end += 1
        elif label != "PER" and end + 2 <= last and linked(rows, end + 1, last):
            end = linked(rows, end + 1, last)
        else:
            break
    while label == "PER" and begin < end and rows[begin][1].lower() in TITLES:
        begin += 1
    while begin < end and not rows[begin][1][:1].isalnum():
        begin += 1
    if rows[begin][1].lower() in TITLES and begin == end and label == "PER":
        return None
    return begin, end, label


def joined(rows: Sequence[Sequence[str]], index: int, first: int) -> bool:
    """Tells whether a hyphen, an ampersand or a capitalised adjective ties two parts of a name."""
    row = rows[index]
    if row[1] in {"-", "&", "–"}:
        return index - 1 >= first and proper(rows[index - 1])
    return row[3] == "ADJ" and row[1][:1].isupper() and row[2] not in {"Mr.", "Mrs."}


def linked(rows: Sequence[Sequence[str]], index: int, last: int) -> int:
    """Returns the last token of an `of ...` tail of a name, or 0 when there is none."""
    if rows[index][1] not in {"of", "for", "-", "&", "de", "du", "'s"}:
        return 0
    after = index + 1
    if after <= last and rows[after][1] == "the":
        after += 1
    if after > last or not (proper(rows[after]) or rows[after][1][:1].isupper()):
        return 0
    return after


def gum(path: Path) -> Iterator[Passage]:
    """Reads one GUM document, keeping the named persons, places and organisations, outermost."""
    for comments, lines in blocks(path):
        rows = [row for row in lines if row[0].isdigit()]
        text = comments.get("text", "")
        places = locate(text, [row[1] for row in rows])
        names = [gum_name(rows, mention) for mention in gum_mentions(rows)]
        chosen: list[tuple[int, int, str]] = []
        for name in sorted((n for n in names if n), key=lambda name: (name[0] - name[1], name[0])):
            if all(name[1] < other[0] or name[0] > other[1] for other in chosen):
                chosen.append(name)
        spans = tuple(
            sorted(
                (places[begin][0], places[end][1], label)
                for begin, end, label in chosen
                if places[begin] and places[end]
            )
        )
        yield Passage(text, spans, "en", "gum", path.stem)
