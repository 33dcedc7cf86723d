"""Gives every token what name, place and frequency lists, clusters and vectors know about it."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy
import srsly
from spacy.language import Language
from spacy.strings import hash_string
from spacy.tokens import Doc

KEY = "lexicon"
VECTORS = "lexicon_vectors"
COLUMNS = 8
# A stored step of a vector is 1/32: its values have a deviation of about 1.
STEP = 32.0
LONGEST = 5
WIDTHLESS = "\u200b\u200e\u200f\ufeff"
TIES = frozenset("-'’‐–")


class Lexicon:
    """Pipe that leaves eight integers and a vector a token in `doc.user_data`.

    The columns: list membership of the word, place phrase it stands in, three lengths of its Brown
    cluster path, frequency band in the two languages, the word itself, 0 unless it is frequent, and
    the language of the document (1 English, 2 French, 0 undecided). A rare word has no embedding of
    its own: what it would share with others is noise. It has a vector, though, if the tables do.
    """

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.places: dict[str, int] = {}
        self.clusters: dict[str, int] = {}
        self.bands: dict[str, int] = {}
        self.rows: dict[str, dict[str, int]] = {"en": {}, "fr": {}}
        self.table = numpy.zeros((0, 0), dtype="int8")
        self._starts: frozenset[str] = frozenset()

    def fill(
        self,
        words: Mapping[str, int],
        places: Mapping[str, int],
        clusters: Mapping[str, int],
        bands: Mapping[str, int],
        rows: Mapping[str, Mapping[str, int]],
        table: numpy.ndarray,
    ) -> None:
        """Takes the lists: words folded, places by `phrase_key`, bands lower, clusters by form.

        `rows` has the row of each word in `table`, by language; English words are lower case there.
        """
        self.words = dict(words)
        self.places = dict(places)
        self.clusters = dict(clusters)
        self.bands = dict(bands)
        self.rows = {language: dict(words) for language, words in rows.items()}
        self.table = table
        self._starts = frozenset(key.split(" ", 1)[0] for key in self.places)

    def __call__(self, doc: Doc) -> Doc:
        """Adds the columns of one document."""
        columns = self.columns(doc)
        doc.user_data[KEY] = columns
        order = ("en", "fr") if len(doc) and columns[0, -1] == 1 else ("fr", "en")
        found = [self.row(composed(token.text), order) for token in doc]
        vectors = numpy.zeros((len(doc), self.table.shape[1]), dtype="float32")
        known = [index for index, row in enumerate(found) if row >= 0]
        vectors[known] = self.table[[found[index] for index in known]] / numpy.float32(STEP)
        doc.user_data[VECTORS] = vectors
        return doc

    def row(self, form: str, order: Sequence[str]) -> int:
        """Returns the vector row of a word, of the first language that has one, or -1."""
        lower = form.lower()
        for language in order:
            words = self.rows[language]
            if language == "en":
                row = words.get(lower, -1)
            elif form.isupper():
                row = words.get(form.title(), words.get(lower, -1))
            else:
                row = words.get(form, -1)
                row = words.get(lower, -1) if row < 0 else row
            if row >= 0:
                return row
        return -1

    def columns(self, doc: Doc) -> numpy.ndarray:
        """Looks every token up and returns an array of shape (tokens, 8), unsigned 64-bit."""
        table = numpy.zeros((len(doc), COLUMNS), dtype="uint64")
        forms = [composed(token.text) for token in doc]
        folded = [fold(form) for form in forms]
        tags = self._phrases(forms, folded)
        rows = []
        for form, plain, tag in zip(forms, folded, tags, strict=True):
            lower = form.lower()
            cluster = self.clusters.get(form)
            if cluster is None:
                cluster = self.clusters.get(form.title() if form.isupper() else lower, 0)
            words = self.words.get(plain, 0) * 2 + (form == lower)
            band = self.bands.get(lower, 0)
            known = hash_string(lower) if band or not lower[0].isalpha() else 0
            rows.append((words, tag, cluster & 15, cluster & 127, cluster, band, known))
        if rows:
            table[:, :-1] = rows
            english = sum(row[5] & 15 for row in rows)
            french = sum(row[5] >> 4 for row in rows)
            table[:, -1] = 1 if english > french else 2 if french > english else 0
        return table

    def _phrases(self, forms: Sequence[str], folded: Sequence[str]) -> list[int]:
        """Tags the longest place names: kind times eight, plus the part of the name, plus case."""
        tags = [0] * len(forms)
        index = 0
        while index < len(forms):
            if folded[index] not in self._starts:
                index += 1
                continue
            stop, kind = self._longest(folded, index)
            if not kind:
                index += 1
                continue
            upper = forms[index] != forms[index].lower()
            for position in range(index, stop):
                part = 1 if stop - index == 1 else 2 if position == index else 3
                tags[position] = kind * 8 + part * 2 + upper
            index = stop
        return tags

    def _longest(self, folded: Sequence[str], start: int) -> tuple[int, int]:
        """Returns where the longest listed place from a token ends, and its kind; 0 for none."""
        words: list[str] = []
        best = (start + 1, 0)
        for position in range(start, min(len(folded), start + 2 * LONGEST)):
            word = folded[position]
            if word in TIES:
                continue
            words.append(word.rstrip("'’"))
            if len(words) > LONGEST:
                break
            kind = self.places.get(" ".join(words), 0)
            if kind:
                best = (position + 1, kind)
        return best

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Packs the lists."""
        tables = {
            name: {
                "keys": "\n".join(sorted(table)),
                "values": [table[k] for k in sorted(table)],
            }
            for name, table in self._tables().items()
        }
        tables["vectors"] = {
            "size": self.table.shape[1],
            "values": self.table.tobytes(),
        }
        return zlib.compress(srsly.msgpack_dumps(tables), 9)

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> Lexicon:
        """Unpacks the lists."""
        packed = srsly.msgpack_loads(zlib.decompress(data))
        vectors = packed.pop("vectors")
        tables = {
            name: dict(zip(table["keys"].split("\n"), table["values"], strict=True))
            if table["values"]
            else {}
            for name, table in packed.items()
        }
        table = numpy.frombuffer(vectors["values"], dtype="int8").reshape((-1, vectors["size"]))
        rows = {language: tables.pop(f"rows_{language}") for language in ("en", "fr")}
        self.fill(**tables, rows=rows, table=table)
        return self

    def to_disk(self, path: Path, *, exclude: Iterable[str] = ()) -> None:
        """Writes the packed lists to one file."""
        Path(path).write_bytes(self.to_bytes())

    def from_disk(self, path: Path, *, exclude: Iterable[str] = ()) -> Lexicon:
        """Reads the packed lists from one file."""
        return self.from_bytes(Path(path).read_bytes())

    def _tables(self) -> dict[str, dict[str, int]]:
        return {
            "words": self.words,
            "places": self.places,
            "clusters": self.clusters,
            "bands": self.bands,
            "rows_en": self.rows["en"],
            "rows_fr": self.rows["fr"],
        }


def composed(form: str) -> str:
    """Returns a form as the lists have it: accents on their letters, no sign without width."""
    return form if form.isascii() else unicodedata.normalize("NFC", form).strip(WIDTHLESS) or form


def fold(word: str) -> str:
    """Returns a word in lower case without accents, which French capitals often lack."""
    word = word.lower()
    if word.isascii():
        return word
    split = unicodedata.normalize("NFKD", word.replace("œ", "oe").replace("æ", "ae"))
    return "".join(letter for letter in split if not unicodedata.combining(letter))


def phrase_key(name: str) -> str:
    """Normalises a name as `Lexicon` compares it: folded, without hyphens or apostrophes."""
    for tie in TIES:
        name = name.replace(tie, " ")
    return " ".join(fold(name).split())


@Language.factory("nlp_runner_lexicon")
def make_lexicon(nlp: Language, name: str) -> Lexicon:
    """Makes the pipe for a spaCy pipeline."""
    return Lexicon()
