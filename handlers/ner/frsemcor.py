"""Reads FrSemCor, whose institutions are places and organisations alike, and tells them apart."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from handlers.ner.passage import Passage, blocks, locate

ORGANISATION = re.compile(
    r"\b(?:associations?|conseil|commission|unions? nationale|union (?:européenne|française)|"
    r"parlement|ministère|société|groupe|clubs?|université|parti|comité|banque|bank|compagnie|"
    r"fédération|confédération|fondation|ligue|cour|tribunal|agence|office|institut|éditions?|"
    r"école|lycée|collège|mairie|ville de|hôpital|centre|syndicat|union des|assemblée|chambre|"
    r"laboratoire|gouvernement|crédit|croix-rouge|djihad|limited|ltd|gmbh|générale|lyonnaise|"
    r"loge|amicale|mjc|cabinet|boulangerie|laiterie|harmonie|forges|chemins de fer|chasseurs|"
    r"jardiniers|génération|brasseries|météo|thomson|milan|lazio|rapides|effort|force|alliance|"
    r"organisation|le (?:monde|point|figaro|canard)|du monde|au monde|verts|nations unies)\b",
    re.I,
)

LOCATION = re.compile(
    r"^(?:rue|place|avenue|boulevard|quai|république|royaume|île|mont|vallée|côte|pays|territoire|"
    r"grand duché|arrondissement|\d+e arrondissements?|hôtel|indochine|europe|chine|balkans)\b",
    re.I,
)

# Names the lists miss, or hold as the name of a place that is not meant in these sentences.
KNOWN_PLACES = frozenset({
    "Alkirch", "Cesano", "Cousances", "Evreux", "Himalaya", "Immermannstraße", "Joeuf", "Koweit",
    "Koweït", "Laneuville", "Montsec", "Occident", "Ogaden", "Ornain", "RDA", "Sarrelouis",
    "SOLEUVRE", "Soleuvre", "Souain", "Taïpeh", "Thiaucourt", "Timisoara", "Vacquerie", "Viêtnam",
    "Villacoublay", "Mitrovica", "Rabodeau", "Bourget", "Clichois", "Poto-Poto", "Le Chefresne",
    "Vaux des Fossés", "Marches de l'Est", "Jeand'Heurs",
})  # fmt: skip

KNOWN_BODIES = frozenset({
    "Bundestag", "EU", "Eurodac", "Union", "Mercure", "Otis", "Suez", "Thomson",
    "Spie-Batignolles", "Vert", "Monde", "Elysée", "Élysée", "Trésor", "Eiffage", "Canard", "Cora",
    "Stock", "Pocket", "Baume", "Union européenne", "Europe des Quinze", "Saint-Siège",
    "Nouvel Observateur", "Hôtel Murat",
})  # fmt: skip

NO_NAMES = re.compile(
    r"^(?:états? membres?|.*série [ab]|troisième république|conférence des présidents|"
    r"conseil de ministres|conseil \".*)$",
    re.I,
)

BEFORE_PLACE = frozenset({
    "à", "en", "au", "aux", "vers", "près",
})  # fmt: skip

ACRONYM = re.compile(r"^(?:[A-ZÉ]\.?){2,7}(?:-[A-ZÉ]+)*$|^[A-Z]{2,}-?[A-Z0-9]*$")


def institution(name: str, previous: str, is_place: Callable[[str], bool]) -> str:
    """Splits a FrSemCor Institution into LOC or ORG by list, shape and the word before it."""
    bare = re.sub(r"^(?:l['’] ?|les? |la |du |aux? )", "", name, flags=re.I)
    if bare in KNOWN_BODIES:
        return "ORG"
    if bare in KNOWN_PLACES or is_place(name) or is_place(bare):
        return "LOC"
    if LOCATION.search(bare):
        return "LOC"
    if ORGANISATION.search(name):
        return "ORG"
    if ACRONYM.match(bare) and bare not in {"RDA", "USA", "RFA"}:
        return "ORG"
    if previous.lower() in BEFORE_PLACE or "-" in bare:
        return "LOC"
    return "ORG"


def frsemcor(path: Path, is_place: Callable[[str], bool]) -> Iterator[Passage]:
    """Reads the Sequoia sentences whose nouns FrSemCor types, keeping the named persons and bodies.

    `is_place` tells whether a name is in the territory lists; it decides LOC or ORG first.
    """
    for comments, lines in blocks(path):
        rows = [row for row in lines if row[0].isdigit()]
        text = comments["text"]
        places = locate(text, [row[1] for row in rows])
        groups: OrderedDict[str, tuple[list[int], list[str]]] = OrderedDict()
        for index, row in enumerate(rows):
            parts = row[5].split(";")
            for part in parts:
                match = re.match(r"^(\d+)(?::(.+))?$", part)
                if match:
                    members, senses = groups.setdefault(match.group(1), ([], []))
                    members.append(index)
                    if match.group(2):
                        senses.append(match.group(2))
                elif len(parts) == 1 and row[3] == "NPP":
                    groups[f"single {index}"] = ([index], [part])
        found: list[tuple[int, int, str]] = []
        for members, senses in groups.values():
            sense = senses[0] if senses else ""
            span = frsemcor_span(text, rows, places, members, sense, is_place)
            if span:
                found.append(span)
        spans: list[tuple[int, int, str]] = []
        for span in sorted(found, key=lambda span: (span[0], -span[1])):
            if not spans or span[0] >= spans[-1][1]:
                spans.append(span)
        section = comments.get("sent_id", "").split(".")[0].split("_")[0]
        # The medicine notices repeat drug names and hold hardly any entity.
        if section != "emea" or spans:
            yield Passage(text, tuple(spans), "fr", "frsemcor", comments.get("sent_id", ""))


def frsemcor_span(
    text: str,
    rows: Sequence[Sequence[str]],
    places: Sequence[tuple[int, int] | None],
    members: Sequence[int],
    sense: str,
    is_place: Callable[[str], bool],
) -> tuple[int, int, str] | None:
    """Turns one sense-tagged group of tokens into a span, or None when it is no name."""
    if sense not in {"Person", "Institution"}:
        return None
    first, last = members[0], members[-1]
    if rows[first][3] in {"DET", "P+D", "P"} and not rows[first][1][:1].isupper():
        first += 1
    if first > last or places[first] is None or places[last] is None:
        return None
    named = any(rows[index][3] == "NPP" for index in range(first, last + 1))
    if not named and not (last > first and rows[first][1][:1].isupper()):
        return None
    start, end = places[first][0], places[last][1]
    if text[start] in '"«©':
        start += 1
    if NO_NAMES.match(text[start:end]):
        return None
    if sense == "Person":
        return (start, end, "PER") if rows[first][1][:1].isupper() else None
    previous = rows[first - 1][1] if first else ""
    return start, end, institution(text[start:end], previous, is_place)
