"""Gives every token what name, place, frequency and word class lists know about it."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy
import srsly
from spacy.language import Language
from spacy.strings import hash_string
from spacy.tokens import Doc
from spacy.util import registry
from thinc.api import (
    HashEmbed,
    Maxout,
    Model,
    chain,
    concatenate,
    list2ragged,
    ragged2list,
    with_array,
)

KEY = "lexicon"
COLUMNS = 7
LONGEST = 5
TIES = frozenset("-'’‐–")


class Lexicon:
    """Pipe that leaves one row of seven integers a token in `doc.user_data["lexicon"]`.

    The columns: list membership of the word, place phrase it stands in, three lengths of its Brown
    cluster path, frequency band in the two languages, and the word itself, 0 unless it is frequent.
    A rare word has no embedding of its own: what it would share with others is noise.
    """

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.places: dict[str, int] = {}
        self.clusters: dict[str, int] = {}
        self.bands: dict[str, int] = {}
        self._starts: frozenset[str] = frozenset()

    def fill(
        self,
        words: Mapping[str, int],
        places: Mapping[str, int],
        clusters: Mapping[str, int],
        bands: Mapping[str, int],
    ) -> None:
        """Takes the lists: words folded, places by `phrase_key`, bands lower, clusters by form."""
        self.words = dict(words)
        self.places = dict(places)
        self.clusters = dict(clusters)
        self.bands = dict(bands)
        self._starts = frozenset(key.split(" ", 1)[0] for key in self.places)

    def __call__(self, doc: Doc) -> Doc:
        """Adds the columns of one document."""
        doc.user_data[KEY] = self.columns(doc)
        return doc

    def columns(self, doc: Doc) -> numpy.ndarray:
        """Looks every token up and returns an array of shape (tokens, 7), unsigned 64-bit."""
        table = numpy.zeros((len(doc), COLUMNS), dtype="uint64")
        forms = [token.text for token in doc]
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
            table[:] = rows
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
            name: {"keys": "\n".join(sorted(table)), "values": [table[k] for k in sorted(table)]}
            for name, table in self._tables().items()
        }
        return zlib.compress(srsly.msgpack_dumps(tables), 9)

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> Lexicon:
        """Unpacks the lists."""
        tables = srsly.msgpack_loads(zlib.decompress(data))
        self.fill(
            **{
                name: dict(zip(table["keys"].split("\n"), table["values"], strict=True))
                for name, table in tables.items()
                if table["values"]
            }
        )
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
        }


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


def lexical_attributes(attributes: Sequence[str | int]) -> Model[list[Doc], list[numpy.ndarray]]:
    """Makes a layer that lays spaCy's token attributes and the lexicon's columns side by side."""
    model = Model("lexical_attributes", attributes_forward)
    model.attrs["attributes"] = list(attributes)
    return model


def attributes_forward(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[list[numpy.ndarray], Callable]:
    """Collects one array of shape (tokens, attributes + 7) a document; nothing flows back."""
    arrays = []
    count = len(model.attrs["attributes"])
    for doc in docs:
        own = doc.to_array(model.attrs["attributes"]).reshape((len(doc), count))
        arrays.append(numpy.hstack([own.astype("uint64"), doc.user_data[KEY]]))
    return arrays, lambda gradients: []


@registry.architectures("nlp_runner.LexicalHashEmbed.v1")
def lexical_hash_embed(
    width: int, attributes: list[str], rows: list[int], parts: int
) -> Model[list[Doc], list[numpy.ndarray]]:
    """Embeds token attributes and lexicon columns by hashing and mixes them to `width`.

    `rows` has one table size an attribute, then one a lexicon column; each table is `parts` wide.
    """
    if len(rows) != len(attributes) + COLUMNS:
        raise ValueError(f"expected {len(attributes) + COLUMNS} table sizes, found {len(rows)}")
    tables = [
        HashEmbed(parts, count, column=column, seed=7 + column, dropout=0.0)
        for column, count in enumerate(rows)
    ]
    mixer = Maxout(nI=parts * len(rows), nO=width, nP=3, dropout=0.0, normalize=True)
    return chain(
        lexical_attributes(attributes),
        list2ragged(),
        with_array(concatenate(*tables)),
        with_array(mixer),
        ragged2list(),
    )
