"""Fresh variants of the training passages: other names, other case, other neighbours."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from handlers.ner.datasets import WEIGHTS
from handlers.ner.gazetteer import CITY, METROPOLIS, REGION, TERRITORY, TOWN, Gazetteer
from handlers.ner.passage import LABELS, Passage

# What bears the name of a person or a town, after each article.
SITES = {
    "la ": ("rue", "place", "avenue", "gare", "cathédrale", "bibliothèque", "salle", "forêt"),
    "le ": ("boulevard", "quai", "lycée", "square", "musée", "château", "stade", "parc", "pont"),
    "du ": ("boulevard", "quai", "collège", "square", "musée", "château", "stade", "parc", "lac"),
    "au ": ("lycée", "stade", "musée", "théâtre", "château", "parc", "cimetière", "port"),
    "l'": ("avenue", "église", "hôpital", "espace", "île", "abbaye", "hôtel"),
}  # fmt: skip


def sentences(passage: Passage) -> list[Passage]:
    """Cuts a passage at its line breaks; a span across a break is left out."""
    parts = []
    cursor = 0
    for line in passage.text.split("\n"):
        spans = tuple(
            (start - cursor, end - cursor, label)
            for start, end, label in passage.spans
            if start >= cursor and end <= cursor + len(line)
        )
        if line.strip():
            parts.append(replace(passage, text=line, spans=spans))
        cursor += len(line) + 1
    return parts


def join(passages: Sequence[Passage], separator: str) -> Passage:
    """Runs passages together into one text, moving their spans along."""
    text: list[str] = []
    spans: list[tuple[int, int, str]] = []
    cursor = 0
    for passage in passages:
        spans.extend((s + cursor, e + cursor, label) for s, e, label in passage.spans)
        text.extend([passage.text, separator])
        cursor += len(passage.text) + len(separator)
    return replace(passages[0], text="".join(text).rstrip(), spans=tuple(spans))


def organisations(sets: dict[str, list[Passage]]) -> dict[str, list[str]]:
    """Lists the organisations that modern sets name, each once, by language."""
    found: dict[str, set[str]] = {}
    for name, passages in sets.items():
        if name in {"newseye", "europeana", "btc"}:
            continue
        for passage in passages:
            for start, end, label in passage.spans:
                if label == "ORG" and passage.text[start].isupper():
                    found.setdefault(passage.language, set()).add(passage.text[start:end])
    return {language: sorted(names) for language, names in found.items()}


def rewrite(passage: Passage, names: Iterable[str]) -> Passage:
    """Puts other names in the place of a passage's spans, in order."""
    text: list[str] = []
    spans: list[tuple[int, int, str]] = []
    cursor = length = 0
    for (start, end, label), name in zip(passage.spans, names, strict=True):
        between = passage.text[cursor:start]
        begin = length + len(between)
        text.extend([between, name])
        length = begin + len(name)
        spans.append((begin, length, label))
        cursor = end
    text.append(passage.text[cursor:])
    return replace(passage, text="".join(text), spans=tuple(spans))


@dataclass
class Variation:
    """Makes a fresh variant of a passage: other names, other case, other neighbours."""

    lists: Gazetteer
    chance: random.Random
    organisations: dict[str, list[str]]
    swap: float = 0.4
    places: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {
            "common": self.lists.spelled(TERRITORY, METROPOLIS),
            "rare": self.lists.spelled(REGION, CITY, TOWN),
        }

    def person(self, language: str, like: str) -> str:
        """Makes a person up with as many words as the one replaced."""
        given, surnames = self.lists.people[language]
        words = len(like.split())
        if words == 1:
            return self.chance.choice(given if self.chance.random() < 0.5 else surnames)
        return f"{self.chance.choice(given)} {self.chance.choice(surnames)}"

    def site(self, before: str) -> str:
        """Makes up a French place that bears a name, to go after an article; else nothing."""
        for article, kinds in SITES.items():
            if before.endswith(article):
                kind = self.chance.choice(kinds)
                if self.chance.random() < 0.7:
                    return f"{kind} {self.person('fr', self.chance.choice(('a b', 'a b', 'a')))}"
                return f"{kind} de {self.chance.choice(self.places['rare'])}"
        return ""

    def name(self, passage: Passage, span: tuple[int, int, str]) -> str:
        """Returns another name for a span, or its own."""
        start, end, label = span
        own = passage.text[start:end]
        if label not in LABELS:
            return own
        plain = own[:1].isupper() and len(own.split()) <= 2 and own.replace(" ", "").isalpha()
        if self.chance.random() < 0.05 and len(own.upper()) == len(own):
            return own.upper()
        article = passage.text[max(0, start - 2) : start].lower() in {"l'", "d'", "l’", "d’"}
        if label == "ORG":
            pool = self.organisations.get(passage.language)
            return (
                self.chance.choice(pool)
                if pool and not article and self.chance.random() < 0.3
                else own
            )
        if label == "LOC" and passage.language == "fr" and self.chance.random() < 0.15:
            return self.site(passage.text[max(0, start - 3) : start].lower()) or own
        if not plain or self.chance.random() > self.swap:
            return own
        if label == "PER":
            return self.person(passage.language, own)
        if passage.language == "fr" and passage.text[max(0, start - 2) : start] in {
            "l'",
            "d'",
        }:
            return own
        kind = "common" if self.chance.random() < 0.5 else "rare"
        return self.chance.choice(self.places[kind])

    def vary(self, passage: Passage) -> Passage:
        """Swaps names and now and then the case of the whole passage."""
        names = [self.name(passage, span) for span in passage.spans]
        passage = rewrite(passage, names)
        roll = self.chance.random()
        if roll < 0.03 and len(passage.text.lower()) == len(passage.text):
            return replace(passage, text=passage.text.lower())
        if roll < 0.06 and len(passage.text.upper()) == len(passage.text):
            return replace(passage, text=passage.text.upper())
        if roll < 0.12:
            return replace(passage, text=passage.text.replace("'", "’"))
        return passage

    def epoch(self, sets: dict[str, list[Passage]]) -> list[Passage]:
        """Draws every set by its weight, one to four sentences of a document at a time."""
        drawn: list[Passage] = []
        for name, passages in sets.items():
            index = 0
            whole: list[Passage] = []
            while index < len(passages):
                count = self.chance.choice((1, 1, 2, 3, 4)) if name != "europeana" else 1
                group = [passages[index]]
                while (
                    len(group) < count
                    and index + len(group) < len(passages)
                    and passages[index + len(group)].document == group[0].document
                    and name != "btc"
                ):
                    group.append(passages[index + len(group)])
                index += len(group)
                whole.append(join(group, self.chance.choice((" ", " ", "\n"))))
            weight = WEIGHTS[name]
            while weight > 0:
                drawn.extend(p for p in whole if weight >= 1 or self.chance.random() < weight)
                weight -= 1
        self.chance.shuffle(drawn)
        return [self.vary(passage) for passage in drawn]
