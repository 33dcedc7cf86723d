"""Which words the units have and which words stand near each other, as sparse matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags_array

from handlers.topic_modeling.corpus import Corpus, Integers

Vector = NDArray[np.float64]

WINDOW = 10
"""Words, without stop words, within which two words count as neighbours."""

VOCABULARY = 30_000
"""Words that a model knows; the rarest above it are left out."""

COMMON = 0.5
"""A word in a larger share of the units tells none of them apart."""

MANY_UNITS = 50
"""From here on `COMMON` is applied; among fewer units it would hit the words that matter."""


@dataclass(frozen=True, slots=True)
class Table:
    """The units by the words that topics are made of.

    `weights` has a row of length 1 for each unit with known words, and `known` says how much of
    the unit's whole length these words are (0 to 1). `column[form]` is the column of a form or -1,
    `forms` the form of each column. `floor` is the number of units a word or phrase must occur in.
    """

    weights: csr_matrix
    known: Vector
    norms: Vector
    column: Integers
    forms: Integers
    floor: int


def floor(units: int) -> int:
    """Return how many of so many units a word must occur in to be one of a topic's."""
    return 2 if units < 500 else 5 if units < 10_000 else 10


def tabulate(corpus: Corpus, wanted: Sequence[int] = ()) -> Table:
    """Return the TF-IDF table of a corpus; the `wanted` forms stay however rare."""
    units = len(corpus.units)
    kept = corpus.folds[corpus.words] >= 0
    counts = coo_matrix(
        (np.ones(int(kept.sum())), (corpus.unit[kept], corpus.words[kept])),
        shape=(units, max(1, len(corpus.forms))),
    ).tocsr()
    counts.sum_duplicates()
    found = np.bincount(counts.indices, minlength=counts.shape[1])
    weighted = weigh(counts, found)
    norms = lengths(weighted)
    lowest = floor(units)
    fit = found >= lowest
    if units >= MANY_UNITS and (fit & (found <= COMMON * units)).any():
        fit &= found <= COMMON * units
    rank = np.lexsort((np.arange(len(found)), -found))
    forms = np.union1d(rank[fit[rank]][:VOCABULARY], np.array(wanted, np.int64))
    column = np.full(counts.shape[1], -1, np.int64)
    column[forms] = np.arange(len(forms))
    weights = weighted[:, forms].tocsr()
    own = lengths(weights)
    known = np.divide(own, norms, out=np.zeros(units), where=norms > 0)
    return Table(scaled(weights, inverse(own)), known, norms, column, forms, lowest)


def weigh(counts: csr_matrix, found: Integers) -> csr_matrix:
    """Return the root of each count times the rarity of the word, found in so many units."""
    weights = counts.copy()
    idf = np.log((1 + counts.shape[0]) / (1 + found)) + 1
    weights.data = np.sqrt(counts.data) * idf[counts.indices]
    return weights


def neighbours(corpus: Corpus, table: Table, check: Callable[[], None]) -> csr_matrix:
    """Return a row of length 1 for each word: the words it stands near more often than by chance.

    A weight is the positive pointwise mutual information of two words within `WINDOW`, with
    smoothed contexts; a pair that is met once says nothing. Source: Levy, Goldberg and Dagan,
    "Improving Distributional Similarity with Lessons Learned from Word Embeddings", TACL 2015.
    """
    size = len(table.forms)
    kept = corpus.folds[corpus.words] >= 0
    column, unit = table.column[corpus.words[kept]].astype(np.int32), corpus.unit[kept]
    counts = csr_matrix((size, size), dtype=np.int32)
    for distance in range(1, WINDOW):
        check()
        left, right = column[:-distance], column[distance:]
        met = (unit[:-distance] == unit[distance:]) & (left >= 0) & (right >= 0) & (left != right)
        low, high = np.minimum(left, right)[met], np.maximum(left, right)[met]
        ones = np.ones(len(low), np.int32)
        counts += coo_matrix((ones, (low, high)), shape=(size, size)).tocsr()
    counts.data[counts.data < 2] = 0
    counts.eliminate_zeros()
    check()
    pairs = (counts + counts.T).tocoo()
    total = np.bincount(pairs.row, weights=pairs.data, minlength=size)
    context = total**0.75
    context /= max(1.0, context.sum())
    value = np.log(pairs.data / (total[pairs.row] * context[pairs.col]))
    near = value > 0
    shape = (size, size)
    rows = csr_matrix((value[near], (pairs.row[near], pairs.col[near])), shape=shape)
    return scaled(rows, inverse(lengths(rows)))


def lengths(rows: csr_matrix) -> Vector:
    """Return the Euclidean length of each row."""
    return np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())


def inverse(values: Vector) -> Vector:
    """Return 1 / value, and 0 for 0."""
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)


def scaled(rows: csr_matrix, factors: Vector) -> csr_matrix:
    """Return the rows, each multiplied by its factor."""
    return csr_matrix(diags_array(factors) @ rows)
