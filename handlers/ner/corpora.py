"""Reads the entity corpora of the training data as raw text with PER, LOC and ORG spans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from handlers.ner.frsemcor import frsemcor
from handlers.ner.gum import gum
from handlers.ner.passage import (
    LABELS,
    Passage,
    Token,
    blocks,
    close_up,
    compose,
    legalise,
    project,
)
from handlers.ner.quaero import as_french, bare_names, with_peoples
from handlers.ner.teacher import french_teacher
from handlers.ner.treebank import Lists, debates, treebank


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


RAW = {
    "wikinews": "keyphrases-fr-wikinews-dev/docs",
    "fredsum": "summaries-fr-fredsum-dev/transcript",
}


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
        corpora[name] = [with_peoples(as_french(passage)) for passage in corpora[name]]
    corpora["fenec"] = [
        p for f in sorted((data / "ner-fr-fenec-dev").glob("*.txt")) for p in fenec(f)
    ]
    teacher = french_teacher()
    # One FENEC document is drawn from the same treebank.
    seen = "\n".join(passage.text for passage in corpora["fenec"])
    corpora["gsd"] = [
        passage
        for file in sorted((data / "pos-fr-gsd-devtest").glob("*.conllu"))
        for passage in map(as_french, treebank(file, lists, teacher))
        if passage.text not in seen
    ]
    for name, folder in RAW.items():
        corpora[name] = list(map(as_french, debates(data / folder, name, lists, teacher)))
    for name in ("gsd", *RAW):
        corpora[name] = [with_peoples(passage, sure=False) for passage in corpora[name]]
    return corpora
