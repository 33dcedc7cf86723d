"""Summarises a document by its own most central sentences."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from summa.preprocessing.snowball import SnowballStemmer
from summa.preprocessing.stopwords import get_stopwords_by_language

from handlers.text.documents import answer
from handlers.text.sentences import split
from runner import Context, Service

Bag = tuple[str, ...]
Vector = NDArray[np.float64]

# The languages by the names that summa gives them. It has no stop words for French, and TextRank is
# better off without: adding spaCy's list costs 4 points of ROUGE-2 on French debates.
NAMES = {"en": "english", "fr": "french"}
WORD = re.compile(r"[^\W\d_]{2,}")
KNOWN_STEMS = 50_000
"""Stems kept between documents, for each language: about 10 MB."""

DAMPING = 0.85
CHANGE = 1e-6
ROUNDS = 100


class Summary(Service):
    """Ranks the sentences of each document by TextRank and keeps the first of the ranking."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.ignored = {
            language: frozenset(get_stopwords_by_language(name).split())
            for language, name in NAMES.items()
        }
        self.stem: dict[str, Callable[[str], str]] = {
            language: lru_cache(KNOWN_STEMS)(SnowballStemmer(name).stem)
            for language, name in NAMES.items()
        }

    def __call__(
        self,
        ctx: Context,
        documents: list[str],
        language: str,
        ratio: float,
        sentences: int | None = None,
    ) -> dict[str, Any]:
        """Return the summary of each document; `sentences`, where given, wins over `ratio`."""

        def work(document: str, spoken: str) -> dict[str, Any]:
            kept = self.summarize(ctx, document, spoken, ratio, sentences)
            return {"summary": " ".join(one["text"] for one in kept), "sentences": kept}

        return {"documents": answer(ctx, "summarize", documents, language, tuple(NAMES), work)}

    def summarize(
        self, ctx: Context, document: str, language: str, ratio: float, sentences: int | None
    ) -> list[dict[str, Any]]:
        """Return the kept sentences in document order, none of them twice."""
        spans, bags = [], []
        for start, end in split(document, language):
            ctx.check()
            if any(map(str.isalnum, document[start:end])):
                spans.append((start, end))
                bags.append(self.bag(ctx, document[start:end], language))
        if not spans:
            return []
        scores = rank(ctx, bags)
        wanted = max(1, round(ratio * len(spans))) if sentences is None else sentences
        kept: dict[Bag, int] = {}
        for index in sorted(range(len(spans)), key=lambda index: (-scores[index], index)):
            if len(kept) == wanted:
                break
            start, end = spans[index]
            kept.setdefault(bags[index] or (document[start:end],), index)
        return [
            {
                "index": index,
                "start": spans[index][0],
                "end": spans[index][1],
                "text": document[slice(*spans[index])],
                "score": scores[index],
            }
            for index in sorted(kept.values())
        ]

    def bag(self, ctx: Context, sentence: str, language: str) -> Bag:
        """Return the stems of a sentence's words, in order, without the ignored ones."""
        plain = unicodedata.normalize("NFC", sentence).replace("\u00ad", "").lower()
        stem, ignored = self.stem[language], self.ignored[language]
        bag = []
        for word in WORD.findall(plain):
            ctx.check()  # a transcript without punctuation may be one sentence of 100,000 words
            if word not in ignored:
                bag.append(stem(word))
        return tuple(bag)


# --- the ranking ---------------------------------------------------------------------------------


def rank(ctx: Context, bags: Sequence[Bag]) -> list[float]:
    """Return the TextRank score of each sentence in (0, 1], where 1 is the most central one.

    Sentences with equal bags are one node, as in summa. Nodes that share no word with any other get
    the lowest score, and all get 1 when no two nodes share a word. Source: Mihalcea and Tarau,
    "TextRank: Bringing Order into Texts", EMNLP 2004.
    """
    nodes: dict[Bag, int] = {}
    node = [nodes.setdefault(bag, len(nodes)) for bag in bags]
    likeness = Likeness(list(nodes))
    degrees = likeness.times(np.ones(len(nodes)))
    # Similarities are 0 or above 0.05, so anything smaller is what rounding left of a 0.
    linked = degrees > 1e-6
    share = np.divide(1.0, degrees, out=np.zeros(len(nodes)), where=linked)
    weights = np.full(len(nodes), 1 / len(nodes))
    for _ in range(ROUNDS):
        ctx.check()
        known = weights
        weights = DAMPING * likeness.times(known * share) + (1 - DAMPING) / len(nodes)
        if np.abs(weights - known).sum() < CHANGE:
            break
    scores = np.maximum(np.round(weights / weights.max(), 4), 0.0001).tolist()
    return [scores[index] for index in node]


class Likeness:
    """The similarities of all pairs of sentences, as a matrix that is never written down.

    The similarity of two different sentences is the number of words they share over the sum of the
    logarithms of their lengths. A megabyte of text has ten thousand sentences, so a hundred million
    pairs, but only some hundred different lengths: for the rows of one length, a product with the
    matrix is two products with the sparse table of sentences and words. Time grows with words times
    lengths, memory with words.
    """

    def __init__(self, bags: Sequence[Bag]) -> None:
        vocabulary: dict[str, int] = {}
        columns: list[int] = []
        ends = [0]
        for bag in bags:
            columns += {vocabulary.setdefault(word, len(vocabulary)) for word in bag}
            ends.append(len(columns))
        shape = (len(bags), max(1, len(vocabulary)))
        table = csr_matrix((np.ones(len(columns)), columns, ends), shape=shape)
        self._words = table.T.tocsr()
        self._lengths = np.log10([max(1, len(bag)) for bag in bags])
        self._own = self._over(np.diff(ends), 2 * self._lengths)
        rows = [np.flatnonzero(self._lengths == length) for length in np.unique(self._lengths)]
        self._groups = [(group, self._lengths[group[0]], table[group]) for group in rows]

    def times(self, vector: Vector) -> Vector:
        """Return the product of the matrix and a vector with one number a sentence."""
        product = np.empty_like(vector)
        for group, length, table in self._groups:
            product[group] = table @ (self._words @ self._over(vector, self._lengths + length))
        return np.maximum(product - self._own * vector, 0.0)

    @staticmethod
    def _over(counts: Vector, lengths: Vector) -> Vector:
        """Divide; two sentences of one word, whose logarithms are 0, are not similar at all."""
        return np.divide(counts, lengths, out=np.zeros(len(lengths)), where=lengths > 0)
