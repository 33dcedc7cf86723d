"""How well the topic service names topics: coherence and diversity of their first ten words.

Coherence is NPMI over the corpus itself, within windows of ten words, the mean over all pairs of
words of a topic (Lau, Newman and Baldwin, EACL 2014; gensim's `c_npmi`, which OCTIS uses, counts a
word that comes twice in a window a little differently). Diversity is the share of different words
among all topics' words (Dieng, Ruiz and Blei, TACL 2020). Both are means over several numbers of
topics. Plain NMF over the same words is measured beside.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quality.figure import Figure
from runner.testing import run

MANIFEST = Path(__file__).parent.parent / "manifests" / "topic-modeling.yaml"
MEASURES = ("NPMI", "diversity")
COUNTS = (10, 20, 30, 40, 50)
SMALLEST_TOPIC = 10
"""Documents to each topic of a number of topics that is tried."""

TOP = 10
WINDOW = 10
ALMOST_NOTHING = 1e-12
WORD = re.compile(r"[^\W\d_]{3,}")

# Smaller sets among the data for other services, by folder; the service was tuned on them.
OTHERS = {
    "keyphrases-fr-wikinews-dev": ("docs/*.txt", "fr"),
    "summaries-fr-fredsum-dev": ("transcript/*.txt", "fr"),
    "summaries-en-scitldr-dev": ("dev.jsonl", "en"),
}
PUBLISHED = {"20news": (0.166, 0.851), "bbc": (0.167, 0.794)}
"""BERTopic's coherence and diversity, by a part of a folder's name."""


def measure(service: str, data: Path) -> list[Figure]:
    """Return coherence and diversity on every set of the folder, beside those of NMF.

    Sets are folders `topics-<language>-…` with one text file per document, or CSV, TSV, JSON or
    JSON-lines files with one document per row (its `text`, or its longest field), and `OTHERS`.
    """
    figures: list[Figure] = []
    for name, language, documents in sets(data):
        corpus = Corpus(documents, language)
        counts = [one for one in COUNTS if one * SMALLEST_TOPIC <= len(documents)] or [5]
        ours = np.mean([corpus.score(ask(documents, language, one)) for one in counts], axis=0)
        title = f"{name} ({len(documents)} documents)"
        for measured, value, bar in zip(MEASURES, ours, bars(name, corpus, counts), strict=True):
            figures.append(Figure(service, title, measured, float(value), *bar, name in OTHERS))
    return figures


def bars(name: str, corpus: Corpus, counts: Sequence[int]) -> list[tuple[float | None, str]]:
    """Return coherence and diversity to beat, and what reached them."""
    for part, published in PUBLISHED.items():
        if part in name.lower():
            return [(one, "BERTopic, published") for one in published]
    if find_spec("sklearn") is None:
        return [(None, "scikit-learn is not installed")] * len(MEASURES)
    reached = np.mean([corpus.score(factorized(corpus, one)) for one in counts], axis=0)
    return [(round(one, 3), "NMF, same words") for one in reached.tolist()]


def ask(documents: Sequence[str], language: str, topics: int) -> list[list[str]]:
    """Return the words of the service's topics."""
    wish = {"documents": list(documents), "language": language, "scope": "request"}
    outcome = run(MANIFEST, {**wish, "topics": topics, "top_n_words": TOP}, timeout=3600)
    if outcome.error is not None:
        raise outcome.error
    return [[word["text"] for word in topic["words"]] for topic in outcome.output["topics"]]


def factorized(corpus: Corpus, topics: int) -> list[list[str]]:
    """Return the words of scikit-learn's NMF over TF-IDF."""
    from sklearn.decomposition import NMF
    from sklearn.feature_extraction.text import TfidfVectorizer

    rarest = 5 if len(corpus.documents) >= 500 else 2
    vectorizer = TfidfVectorizer(analyzer=lambda words: words, min_df=rarest, max_df=0.95)
    table = vectorizer.fit_transform(corpus.documents)
    names = vectorizer.get_feature_names_out()
    model = NMF(min(topics, *table.shape), init="nndsvd", random_state=0, max_iter=200).fit(table)
    return [[names[one] for one in row.argsort()[::-1][:TOP]] for row in model.components_]


# --- the scorer ----------------------------------------------------------------------------------


class Corpus:
    """The words of all documents and where they stand."""

    def __init__(self, documents: Iterable[str], language: str) -> None:
        from handlers.topic_modeling.stopwords import STOPWORDS

        ignored = STOPWORDS[language]
        self.documents = [
            [word for word in WORD.findall(text.lower()) if word not in ignored]
            for text in documents
        ]
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.windows = 0
        for words in self.documents:
            last = max(0, len(words) - WINDOW)
            for place, word in enumerate(words):
                start = self.windows + max(0, place - WINDOW + 1)
                self._places[word].append(
                    (min(start, self.windows + last), self.windows + min(place, last))
                )
            self.windows += last + 1

    def score(self, topics: Sequence[Sequence[str]]) -> tuple[float, float]:
        """Return coherence and diversity of topics."""
        found = {word: self.holding(word) for topic in topics for word in topic}
        values = [
            [self.likeness(found[a], found[b]) for a, b in combinations(topic, 2)]
            for topic in topics
        ]
        coherence = np.mean([np.mean(one) for one in values if one]) if any(values) else 0.0
        return float(coherence), len(found) / max(1, sum(map(len, topics)))

    def holding(self, word: str) -> NDArray[np.int64]:
        """Return the windows that hold a word."""
        spans = [np.arange(start, end + 1) for start, end in self._places.get(word, ())]
        return np.unique(np.concatenate(spans)) if spans else np.zeros(0, np.int64)

    def likeness(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
        """Return the NPMI of two words from the windows that hold them: -1 to 1."""
        if not len(one) or not len(other):
            return 0.0
        together = len(np.intersect1d(one, other, assume_unique=True)) / self.windows
        chance = len(one) * len(other) / self.windows**2
        together += ALMOST_NOTHING
        return math.log(together / chance) / -math.log(together)


# --- the data ------------------------------------------------------------------------------------


def sets(data: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, language and documents of each set."""
    for folder in sorted(data.glob("topics-*")):
        language = "fr" if "-fr" in folder.name else "en"
        files = sorted(one for one in folder.rglob("*") if one.is_file())
        yield folder.name, language, kept(text for file in files for text in texts(file))
    for name, (pattern, language) in OTHERS.items():
        files = sorted((data / name).glob(pattern))
        if files:
            yield name, language, kept(text for file in files for text in texts(file))


def kept(documents: Iterable[str]) -> list[str]:
    """Return the documents that say something, each once."""
    return list(dict.fromkeys(text for text in documents if len(text) > 100))


def texts(file: Path) -> Iterator[str]:
    """Yield the documents of a file."""
    if file.name.upper().startswith(("SOURCE", "LICENSE", "README")):
        return
    content = file.read_text("utf-8", "replace")
    if file.suffix in (".csv", ".tsv"):
        csv.field_size_limit(10**8)
        rows = csv.DictReader(
            io.StringIO(content), delimiter="\t" if file.suffix == ".tsv" else ","
        )
        yield from map(text_of, rows)
    elif file.suffix == ".jsonl":
        yield from map(text_of, map(json.loads, content.splitlines()))
    elif file.suffix == ".json":
        whole = json.loads(content)
        yield from map(text_of, whole if isinstance(whole, list) else [whole])
    elif file.suffix in ("", ".txt"):
        yield content


def text_of(row: object) -> str:
    """Return the text of one row: a string, a list of sentences, or an object with a text."""
    if isinstance(row, dict):
        if row.get("text"):
            return text_of(row["text"])
        return max((text_of(value) for value in row.values()), key=len, default="")
    if isinstance(row, list):
        return " ".join(text_of(one) for one in row)
    return row if isinstance(row, str) else ""
