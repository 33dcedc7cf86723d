"""The topics of a table: how much of each topic a unit has, and how much of each word a topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from handlers.topic_modeling.table import Table, inverse, lengths, scaled

Matrix = NDArray[np.float64]
Tell = Callable[[float], None]

ROUNDS = 80
CHANGE = 1e-5
"""The share of the table's squared length that a round must still explain to be followed."""

NEARNESS = 0.5
"""How much the neighbourhoods of words count beside the units."""

SWEEPS = 20
"""Passes that find the topics of units, or the phrases of topics, while the others stand still."""

MOST_TOPICS = 50
"""Topics that are chosen when nobody says how many."""

POWERS = 4
OVERSAMPLES = 10


@dataclass(frozen=True, slots=True)
class Model:
    """`shares` (topics by units) and `words` (topics by columns, rows of length 1), all from 0 up.

    `fit` is the cosine (0 to 1) of each unit and of what its topics make of it.
    """

    shares: Matrix
    words: Matrix
    fit: NDArray[np.float64]


def factorize(
    table: Table,
    near: csr_matrix,
    topics: int,
    hints: Sequence[Sequence[int]],
    seed: int,
    tell: Tell,
) -> Model:
    """Return a model of `topics` topics; the first are drawn to the columns of the `hints`.

    Units and neighbourhoods of words are explained by the same topics, so words belong together
    when they share units and when they stand near each other. `tell` hears the finished share and
    may end the work. Sources: Lee and Seung, "Learning the parts of objects by non-negative matrix
    factorization", Nature 401 (1999); with neighbourhoods, Shi et al., "Short-Text Topic Modeling
    via Non-negative Matrix Factorization Enriched with Local Word-Context Correlations", WWW 2018;
    the updates, Cichocki and Phan, "Fast local algorithms for large scale nonnegative matrix and
    tensor factorizations", IEICE 2009; the start, Boutsidis and Gallopoulos, "SVD based
    initialization", Pattern Recognition 41 (2008).
    """
    size = len(table.forms)
    spoken = int((table.known > 0).sum())
    parts = [table.weights, near * (NEARNESS * np.sqrt(spoken / max(1, size)))]
    if hints:
        parts.append(wishes(hints, size, np.sqrt(spoken / topics)))
    rows = csr_matrix(vstack(parts))
    columns = csr_matrix(rows.T)
    shares, words = start(rows, topics, len(hints), seed, lambda: tell(0))
    if hints:
        for topic in range(len(hints)):
            words[topic] = rows[rows.shape[0] - len(hints) + topic].toarray()[0]
        shares[: len(hints)] = (rows @ words[: len(hints)].T).T
    whole = float(rows.multiply(rows).sum())
    last = np.inf
    for done in range(ROUNDS):
        sweep(words, np.ascontiguousarray((columns @ shares.T).T), shares @ shares.T)
        size_of = np.linalg.norm(words, axis=1)
        words *= inverse(size_of)[:, None]
        shares *= size_of[:, None]
        tell((done + 0.5) / ROUNDS)
        likeness, overlap = np.ascontiguousarray((rows @ words.T).T), words @ words.T
        sweep(shares, likeness, overlap)
        left = whole - 2 * np.sum(shares * likeness) + np.sum((shares @ shares.T) * overlap)
        tell((done + 1) / ROUNDS)
        if last - left < CHANGE * whole:
            break
        last = left
    return project(table, words)


def project(table: Table, words: Matrix) -> Model:
    """Return the model of a table's units over topics that are known."""
    likeness, overlap = np.ascontiguousarray((table.weights @ words.T).T), words @ words.T
    shares = solve(likeness, overlap)
    explained = np.sum(shares * likeness, axis=0)
    length = np.sqrt(np.maximum(0, np.sum(shares * (overlap @ shares), axis=0)))
    fit = np.divide(explained, length, out=np.zeros(len(length)), where=length > 1e-9)
    return Model(shares, words, np.clip(fit * table.known, 0, 1))


def solve(likeness: Matrix, overlap: Matrix) -> Matrix:
    """Return the non-negative least squares solution for each column of `likeness`."""
    found = np.zeros_like(likeness)
    for _ in range(SWEEPS):
        sweep(found, likeness, overlap)
    return found


def sweep(rows: Matrix, likeness: Matrix, overlap: Matrix) -> None:
    """Improve each row in place to the best one beside the others; all stay at or above 0."""
    for one in range(len(rows)):
        if overlap[one, one] > 1e-12:
            step = (likeness[one] - overlap[one] @ rows) / overlap[one, one]
            np.maximum(rows[one] + step, 0, out=rows[one])


def wishes(hints: Sequence[Sequence[int]], size: int, weight: float) -> csr_matrix:
    """Return a row of length `weight` for each hint, with its columns in equal parts."""
    columns = [column for hint in hints for column in hint]
    ends = np.cumsum([0, *map(len, hints)])
    rows = csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(hints), size))
    return scaled(rows, inverse(lengths(rows)) * weight)


def start(
    rows: csr_matrix, topics: int, skipped: int, seed: int, check: Callable[[], None]
) -> tuple[Matrix, Matrix]:
    """Return first shares and words: the positive halves of the leading singular vectors.

    The first `skipped` topics are left at 0.
    """
    shares, words = np.zeros((topics, rows.shape[0])), np.zeros((topics, rows.shape[1]))
    left, values, right = spectrum(rows, topics - skipped, seed, check)
    for index, value in enumerate(values):
        pairs = [
            (np.maximum(sign * left[:, index], 0), np.maximum(sign * right[index], 0))
            for sign in (1, -1)
        ]
        strengths = [float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]
        best = int(strengths[1] > strengths[0])
        a, b = pairs[best]
        if strengths[best] > 0:
            root = np.sqrt(value * strengths[best])
            shares[skipped + index] = root * a / np.linalg.norm(a)
            words[skipped + index] = root * b / np.linalg.norm(b)
    return shares, words


def spectrum(
    rows: csr_matrix, count: int, seed: int, check: Callable[[], None]
) -> tuple[Matrix, NDArray[np.float64], Matrix]:
    """Return the leading singular vectors and values, at most `count`, the largest first.

    Source: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53 (2011).
    """
    columns = csr_matrix(rows.T)
    wide = min(count + OVERSAMPLES, *rows.shape)
    base = np.random.default_rng(seed).standard_normal((rows.shape[1], wide))
    for _ in range(POWERS):
        check()
        base, _ = np.linalg.qr(rows @ base)
        check()
        base, _ = np.linalg.qr(columns @ base)
    base, _ = np.linalg.qr(rows @ base)
    small, values, right = np.linalg.svd((columns @ base).T, full_matrices=False)
    check()
    count = min(count, len(values))
    return (base @ small)[:, :count], values[:count], right[:count]


def estimate(table: Table, least: int, seed: int, check: Callable[[], None]) -> int:
    """Return how many topics a table has: its factors that are stronger than those of chance.

    Chance is the same table with the units of its words shuffled. `least` is the smallest size of a
    topic. Source: Horn, "A rationale and test for the number of factors in factor analysis",
    Psychometrika 30 (1965).
    """
    spoken = int((table.known > 0).sum())
    most = min(MOST_TOPICS, int(np.sqrt(2 * spoken)), spoken // least, table.weights.shape[1])
    if most <= 1:
        return most
    _, values, _ = spectrum(table.weights, most, seed, check)
    cells = table.weights.tocoo()
    units = np.random.default_rng(seed).permutation(cells.row)
    chance = csr_matrix((cells.data, (units, cells.col)), shape=cells.shape)
    _, noise, _ = spectrum(scaled(chance, inverse(lengths(chance))), most, seed, check)
    count = min(len(values), len(noise))
    return max(1, int((values[:count] > noise[:count]).sum()))
