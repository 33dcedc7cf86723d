"""Reads the entity corpora of the training data as raw text with PER, LOC and ORG spans."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

LABELS = ("LOC", "ORG", "PER")
UNSURE = "?"


@dataclass(frozen=True)
class Passage:
    """One stretch of raw text with its gold spans, each `(start, end, label)` in code points.

    The label `?` marks a stretch of which nothing is known: training skips it.
    """

    text: str
    spans: tuple[tuple[int, int, str], ...]
    language: str
    corpus: str
    document: str


@dataclass
class Token:
    """One gold token: its form, its IOB2 tag and whether white space follows it."""

    form: str
    tag: str
    spaced: bool = True


def compose(tokens: Sequence[Token]) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    """Joins gold tokens into raw text and returns it with the spans their IOB2 tags describe."""
    text: list[str] = []
    length = 0
    spans: list[list] = []
    for token, tag in zip(tokens, legalise([token.tag for token in tokens]), strict=True):
        start, end = length, length + len(token.form)
        kind, _, label = tag.partition("-")
        if kind == "B":
            spans.append([start, end, label])
        elif kind == "I":
            spans[-1][1] = end
        text.append(token.form)
        length = end
        if token.spaced:
            text.append(" ")
            length += 1
    kept = tuple((start, end, label) for start, end, label in spans if label in LABELS)
    return "".join(text).rstrip(), kept


def legalise(tags: Sequence[str]) -> list[str]:
    """Turns any IOB tags into strict IOB2: an I- that continues nothing of its type becomes B-."""
    result = []
    previous = "O"
    for tag in tags:
        if tag.startswith("I-") and previous[2:] != tag[2:]:
            tag = "B-" + tag[2:]
        result.append(tag)
        previous = tag
    return result


def locate(text: str, forms: Iterable[str]) -> list[tuple[int, int] | None]:
    """Finds each form in the text after the one before it; None where the form is not there."""
    places: list[tuple[int, int] | None] = []
    cursor = 0
    slack = 3
    for form in forms:
        start = text.find(form, cursor, cursor + len(form) + slack)
        if start < 0:
            # Contracted words (French `du` is `de` and `le`) stand in the text under another form.
            slack += 3
            places.append(None)
            continue
        cursor, slack = start + len(form), 3
        places.append((start, cursor))
    return places


def project(
    text: str, forms: Sequence[str], tags: Sequence[str]
) -> tuple[tuple[int, int, str], ...]:
    """Lays IOB2 tags of tokens over the raw text the tokens came from."""
    spans: list[list] = []
    for place, tag in zip(locate(text, forms), tags, strict=True):
        if place is None or tag == "O":
            continue
        if tag.startswith("B-") or not spans:
            spans.append([*place, tag[2:]])
        else:
            spans[-1][1] = place[1]
    return tuple((start, end, label) for start, end, label in spans if label in LABELS)


def blocks(path: Path) -> Iterator[tuple[dict[str, str], list[list[str]]]]:
    """Yields each sentence of a tab-separated file: its `# key = value` comments and its rows."""
    comments: dict[str, str] = {}
    rows: list[list[str]] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("#") and not rows:
                key, _, value = line[1:].partition("=")
                comments[key.strip()] = value.strip()
            elif line:
                rows.append(line.split("\t"))
            elif rows:
                yield comments, rows
                comments, rows = {}, []
    if rows:
        yield comments, rows


def universal(path: Path, corpus: str) -> Iterator[Passage]:
    """Reads a Universal NER file: columns id, form, IOB2 tag, with the raw sentence in `# text`."""
    document = ""
    for comments, rows in blocks(path):
        document = comments.get("newdoc id", document)
        rows = [row for row in rows if row[0].isdigit()]
        tags = legalise([row[2] if row[2][2:] in LABELS else "O" for row in rows])
        text = comments["text"]
        spans = project(text, [row[1] for row in rows], tags)
        yield Passage(text, spans, "en", corpus, document)


CLOSING = re.compile(
    r"^(?:[.,;:!?%)\]}…»]+|'s|’s|n't|n’t|'(?:re|ve|ll|m|d)|’(?:re|ve|ll|m|d))$", re.I
)
OPENING = re.compile(r"^[(\[{«@$£€]$")
ELIDED = re.compile(r"^(?:[ldcjmtsn]|qu|jusqu|lorsqu|puisqu|quoiqu|aujourd)['’]$", re.I)


def close_up(forms: Sequence[str], tags: Sequence[str]) -> list[Token]:
    """Guesses where white space stood between tokens of a set that did not keep it."""
    tokens = [Token(form, tag) for form, tag in zip(forms, tags, strict=True)]
    for left, right in pairwise(tokens):
        tight = CLOSING.match(right.form) or OPENING.match(left.form) or ELIDED.match(left.form)
        left.spaced = not tight
    return tokens


def tweets(path: Path) -> Iterator[Passage]:
    """Reads one section of the Broad Twitter Corpus; a handle's `@` joins the name after it."""
    with path.open(encoding="utf-8") as lines:
        rows: list[list[str]] = []
        for number, line in enumerate([*lines, "\n"]):
            line = line.rstrip("\n")
            if line:
                rows.append(line.split("\t"))
                continue
            if rows:
                forms = [row[0] for row in rows]
                tags = legalise([row[1] for row in rows])
                text, spans = compose(close_up(forms, tags))
                # A handle names an account, which no other set annotates.
                spans = tuple(
                    s for s in spans if not {"@", "#"} & set(text[max(0, s[0] - 1) : s[1]])
                )
                yield Passage(text, spans, "en", "btc", f"{path.stem}-{number}")
            rows = []


HYPHENATED = re.compile(r"[¬\-\xad]$")
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
    r"[Mm]ademoiselle|[Mm]aître|[Cc]ardinal|[Dd]uc de|[Dd]uc d['’]|[Cc]omte de|[Dd]uchesse de|[Aa]bbé|"
    r"[Pp]rince|[Pp]rincesse|[Rr]oi|[Rr]eine|[Gg]énéral|[Cc]olonel|[Cc]apitaine|[Mm]aréchal|"
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


def newspapers(path: Path) -> Iterator[Passage]:
    """Reads a NewsEye file (HIPE format) sentence by sentence, mending words cut at line ends."""
    document = ""
    ending = False
    for comments, rows in blocks(path):
        document = comments.get("hipe2022:document_id", document)
        rows = [row for row in rows if len(row) >= 10 and row[0] != "TOKEN"]
        sentence: list[Token] = []
        tags = legalise([row[1] if row[1][2:] in LABELS else "O" for row in rows])
        for row, tag in zip(rows, tags, strict=True):
            notes = row[9].split("|")
            mended = sentence and HYPHENATED.search(sentence[-1].form) and ending
            ending = "EndOfLine" in notes
            if mended:
                sentence[-1].form = HYPHENATED.sub("", sentence[-1].form) + row[0]
                sentence[-1].spaced = "NoSpaceAfter" not in notes
            else:
                spaced = "NoSpaceAfter" not in notes or (ending and not HYPHENATED.search(row[0]))
                # Many line ends are not marked, which would glue two words together.
                if sentence and sentence[-1].form[-1:].isalnum() and row[0][:1].isalnum():
                    sentence[-1].spaced = True
                sentence.append(Token(row[0].replace("###", ""), tag, spaced))
            if "EndOfSentence" in notes:
                yield bare_names(Passage(*compose(sentence), "fr", "newseye", document))
                sentence = []
        if sentence:
            yield bare_names(Passage(*compose(sentence), "fr", "newseye", document))


def europeana(path: Path, length: int = 60) -> Iterator[Passage]:
    """Reads the French Europeana newspapers, cut after a full stop once a passage is long enough.

    The file has neither sentence nor document breaks: `length` is the least tokens of a passage.
    """
    forms: list[str] = []
    tags: list[str] = []
    part = 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            form, _, tag = line.rstrip("\n").rpartition(" ")
            if not form:
                continue
            forms.append(form)
            tags.append(tag if tag[2:] in LABELS else "O")
            if len(forms) >= length and form == "." and len(forms[-2]) > 2:
                yield europeana_passage(forms, tags, part)
                forms, tags, part = [], [], part + 1
    if forms:
        yield europeana_passage(forms, tags, part)


def europeana_passage(forms: list[str], tags: list[str], part: int) -> Passage:
    """Makes one passage; fifty in a row count as one document, since the file marks none."""
    text, spans = compose(close_up(forms, legalise(tags)))
    return Passage(text, spans, "fr", "europeana", f"europeana-{part // 50}")


def fenec(path: Path) -> Iterator[Passage]:
    """Reads one FENEC document whole, with the outermost PERS, LOC and ORG of its `.ann`."""
    text = path.read_text(encoding="utf-8")
    found = []
    with path.with_suffix(".ann").open(encoding="utf-8") as lines:
        for line in lines:
            kind, start, end = line.split("\t")[:3]
            label = {"PERS": "PER", "LOC": "LOC", "ORG": "ORG"}.get(kind)
            if label:
                found.append((int(start), int(end), label))
    spans: list[tuple[int, int, str]] = []
    for span in sorted(found, key=lambda span: (span[0], -span[1])):
        if not spans or span[0] >= spans[-1][1]:
            spans.append(span)
    yield Passage(text, tuple(spans), "fr", "fenec", path.stem)


TITLES = frozenset(
    "mr mr. mrs mrs. ms ms. miss dr dr. prof prof. professor president senator sen sen. sir lord "
    "lady judge justice governor gov gov. general gen gen. captain capt capt. minister secretary "
    "mayor king queen prince princess pope saint st st. rev rev. reverend chairman director "
    "representative rep rep. congressman congresswoman ambassador chief coach officer".split()
)
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
KNOWN_PLACES = frozenset(
    "Alkirch Cesano Cousances Evreux Himalaya Immermannstraße Joeuf Koweit Koweït Laneuville Montsec "
    "Occident Ogaden Ornain RDA Sarrelouis SOLEUVRE Soleuvre Souain Taïpeh Thiaucourt Timisoara "
    "Vacquerie Viêtnam Villacoublay Mitrovica Rabodeau Bourget Clichois Poto-Poto".split()
) | {"Le Chefresne", "Vaux des Fossés", "Marches de l'Est", "Jeand'Heurs"}
KNOWN_BODIES = frozenset(
    "Bundestag EU Eurodac Union Mercure Otis Suez Thomson Spie-Batignolles Vert Monde Elysée Élysée "
    "Trésor Eiffage Canard Cora Stock Pocket Baume".split()
) | {"Union européenne", "Europe des Quinze", "Saint-Siège", "Nouvel Observateur", "Hôtel Murat"}
NO_NAMES = re.compile(
    r"^(?:états? membres?|.*série [ab]|troisième république|conférence des présidents|"
    r"conseil de ministres|conseil \".*)$",
    re.I,
)
BEFORE_PLACE = frozenset("à en au aux vers près".split())
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


def read(data: Path, lists: Lists) -> dict[str, list[Passage]]:
    """Reads every entity corpus of the data folder, keyed by corpus name, in a fixed order."""
    folders = {
        "ewt": data / "ner-en-uner-ewt-dev" / "en_ewt-ud-dev.iob2",
        "pud": data / "ner-en-uner-pud" / "en_pud-ud-test.iob2",
    }
    corpora = {name: list(universal(path, name)) for name, path in folders.items()}
    corpora["btc"] = [p for f in sorted((data / "ner-en-btc").glob("*.conll")) for p in tweets(f)]
    corpora["gum"] = [
        passage
        for file in sorted((data / "ner-en-gum" / "dep").glob("*.conllu"))
        for passage in gum(file)
    ]
    corpora["newseye"] = [
        passage
        for file in sorted((data / "ner-fr-newseye").glob("*.tsv"))
        for passage in newspapers(file)
    ]
    corpora["europeana"] = list(europeana(data / "ner-fr-europeana-bnf" / "enp_FR.bnf.bio"))
    corpora["frsemcor"] = list(
        frsemcor(data / "ner-fr-frsemcor" / "sequoia-9.1.frsemcor", lists.is_place)
    )
    for name in ("newseye", "europeana", "frsemcor"):
        corpora[name] = [as_french(passage) for passage in corpora[name]]
    corpora["fenec"] = [
        p for f in sorted((data / "ner-fr-fenec-dev").glob("*.txt")) for p in fenec(f)
    ]
    # One FENEC document is drawn from the same treebank.
    seen = "\n".join(passage.text for passage in corpora["fenec"])
    corpora["gsd"] = [
        passage
        for file in sorted((data / "pos-fr-gsd-devtest").glob("*.conllu"))
        for passage in treebank(file, lists)
        if passage.text not in seen
    ]
    return corpora
