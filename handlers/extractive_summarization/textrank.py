"""TextRank: a sentence is central that shares words with other central ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from runner import Context

Bag = tuple[str, ...]
Vector = NDArray[np.float64]

DAMPING = 0.85
CHANGE = 1e-6
ROUNDS = 100


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
