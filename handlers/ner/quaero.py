"""Brings French spans to one convention, that of Quaero, which modern French sets follow."""

from __future__ import annotations

import re
from dataclasses import replace

from handlers.ner.passage import Passage

FUNCTION = re.compile(
    r"^(?:(?:président|ministre|sénateur|député|préfet|citoyen|l['’]|les?|la|veuve|honorable|sieur|"
    r"femme|dame|fils|époux)\b ?)+",
    re.I,
)


def bare_names(passage: Passage) -> Passage:
    """Strips functions and ages from NewsEye persons, and drops those left without a name."""
    spans = []
    for start, end, label in passage.spans:
        if label == "PER":
            name = passage.text[start:end].split(",")[0]
            function = FUNCTION.match(name)
            start, end = start + (function.end() if function else 0), start + len(name)
            if end - start < 2 or not passage.text[start].isupper():
                continue
        spans.append((start, end, label))
    return replace(passage, spans=tuple(spans))


TITLE = re.compile(
    r"\b(?:(?:MM?|Mrs?|Mgr|Dr|Me|Pr|St)\.|Mmes?|Mlles?|Mgr|Dr|Me|[Mm]onsieur|[Mm]essieurs|[Mm]adame|"
    r"[Mm]ademoiselle|[Mm]aître|[Cc]ardinal|[Dd]uc de|[Dd]uc d['’]|[Cc]omte de|[Dd]uchesse de|"
    r"[Aa]bbé|[Pp]rince|[Pp]rincesse|[Rr]oi|[Rr]eine|[Gg]énéral|[Cc]olonel|[Cc]apitaine|[Mm]aréchal|"
    r"[Dd]octeur|[Ss]aint|[Ss]ainte|[Ss]œur|[Pp]ère|[Pp]ape) ?$"
)

KIND_OF_PLACE = re.compile(
    r"(?:\b\d+ ?(?:bis |ter )?,? ?)?\b(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Pp]lace|[Qq]uai|[Ss]quare|"
    r"[Ii]mpasse|[Pp]orte|[Pp]ont|[Gg]are|[Mm]usée|[Éé]glise|[Cc]athédrale|[Cc]hâteau|[Ll]ycée|"
    r"[Mm]onts?|[Ll]acs?|[ÎîIi]les?|[Vv]allée|[Ff]orêt|[Dd]épartement|[Aa]rrondissement|[Cc]anton|"
    r"[Rr]égion|[Pp]rovince|[Hh]ôtel|[Pp]alais|[Pp]arc|[Ss]tade|[Hh]ôpital|[Bb]asilique|[Cc]hapelle)"
    r"(?: (?:de la|de l['’]|du|des|de|d['’]))? ?$"
)

TEAM = re.compile(r"\b[ÉéEe]quipe d(?:e |u |['’])$")


def as_french(passage: Passage) -> Passage:
    """Widens spans to the French convention of Quaero, which modern French sets follow.

    A person's title (`M.`, `cardinal`) and the word that says what kind of place it is (`rue de`,
    `département de la`) belong to the name.
    """
    spans: list[tuple[int, int, str]] = []
    floor = 0
    for start, end, label in passage.spans:
        before = passage.text[max(floor, start - 40) : start]
        kind = KIND_OF_PLACE.search(before)
        team = TEAM.search(before)
        title = TITLE.search(before) if label == "PER" else None
        if kind and label != "ORG":
            start, label = start - len(before) + kind.start(), "LOC"
        elif team and label == "LOC":
            start, label = start - len(before) + team.start(), "ORG"
        elif title:
            start = start - len(before) + title.start()
        spans.append((start, end, label))
        floor = end
    return replace(passage, spans=tuple(spans))


PEOPLE = re.compile(
    r"\b(?:[Ll]es|[Dd]es|[Aa]ux|[Cc]es|[Nn]os|[Uu]ne?|[Cc]ertaine?s|[Pp]lusieurs|[Dd]eux|[Tt]rois|"
    r"(?:milliers|millions?|milliards?|majorité|nombre) (?:de|d['’])|[Dd]e nombreux|autres) ?"
    r"((?!(?:Palais|Relais|Marais|Bois|Rois|Lois|Républicain|Ancien|Fraises|Alain|Biens|Liens|Moyens|"
    r"Mains|Bains|Citoyen|Gardien|Européennes|Chiens|Terrains|Trains|Grains|Mois|Croix))"
    r"[A-ZÉÎ][a-zà-ÿ]+(?:ais|aises?|ois|oises?|[ié]ens?|[ié]ennes?|ains|aines|ards|ardes)|"
    r"Juifs?|Juives?|Musulmans?|Catholiques|Protestants|Arabes?|Russes?|Turcs?|Grecs?|Belges?|"
    r"Suisses|Kurdes?|Serbes?|Croates?|Espagnole?s?|Allemande?s?|Tchèques?|Basques?|Corses|"
    r"Bretons?|Bretonnes?|Slaves|Francs|Normands?|Berbères?|Perses|Afghane?s?|Roms?|Roumains?|"
    r"Africains?|Maures?|Bulgares?|Flamands?|Wallons?|Catalans?|Inuits?|Tziganes?|Étrusques|"
    r"Ottomans|Mongols|Goths|Wisigoths|Huns|Vikings?|Celtes|Saxons|Lombards|Hébreux)"
    r"(?!\w| [A-ZÉ]|-)"
)


def with_peoples(passage: Passage, sure: bool = True) -> Passage:
    """Counts the members of a people (`les Français`) among the persons, as Quaero does.

    A span that is there already keeps its label, unless the set is not `sure` of its own.
    """
    spans = {(start, end): label for start, end, label in passage.spans}
    for found in PEOPLE.finditer(passage.text):
        start, end = found.span(1)
        others = [(s, e) for s, e in spans if s < end and start < e]
        if not others or (not sure and others == [(start, end)]):
            spans[start, end] = "PER"
    return replace(passage, spans=tuple(sorted((s, e, label) for (s, e), label in spans.items())))


SITE = re.compile(r"^(?:https?:|www\.)", re.I)


def only_names(passage: Passage) -> Passage:
    """Drops telephone numbers and web addresses, which Quaero counts among the places."""
    spans = tuple(
        (start, end, label)
        for start, end, label in passage.spans
        if any(map(str.isalpha, passage.text[start:end]))
        and not SITE.match(passage.text[start:end])
    )
    return replace(passage, spans=spans)
