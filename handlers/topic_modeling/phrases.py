"""The words and phrases that can name a topic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

from handlers.topic_modeling.corpus import Corpus, Integers, plain
from handlers.topic_modeling.model import Matrix, Model, solve
from handlers.topic_modeling.table import Table, inverse, scaled, weigh

PHRASES = 50_000
"""Phrases of one length that are considered; the rarest above it are not."""


@dataclass(frozen=True, slots=True)
class Names:
    """What can name a topic: `weights` has a row per topic and a column per name.

    `word` and `length` say where in the corpus each name stands first, and its number of words.
    """

    weights: Matrix
    word: Integers
    length: Integers


def names(
    corpus: Corpus,
    table: Table,
    model: Model,
    shortest: int,
    longest: int,
    check: Callable[[], None],
) -> Names:
    """Return the names of `shortest` to `longest` words; a phrase may have stop words inside.

    How much of a phrase a topic has is what explains its units best, as with words.
    """
    parts = [Names(np.zeros((len(model.words), 0)), np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for length in range(shortest, longest + 1):
        check()
        if length == 1:
            _, first = np.unique(corpus.words, return_index=True)
            parts.append(Names(model.words, first[table.forms], np.ones_like(table.forms)))
        else:
            parts.append(phrases(corpus, table, model, length, check))
    return Names(
        np.hstack([part.weights for part in parts]),
        np.concatenate([part.word for part in parts]),
        np.concatenate([part.length for part in parts]),
    )


def phrases(
    corpus: Corpus, table: Table, model: Model, length: int, check: Callable[[], None]
) -> Names:
    """Return the names of so many words."""
    starts = candidates(corpus, length)
    groups, first = grouped(corpus, starts, length)
    counts = coo_matrix(
        (np.ones(len(starts)), (corpus.unit[starts], groups)),
        shape=(len(corpus.units), len(first)),
    ).tocsr()
    counts.sum_duplicates()
    found = np.bincount(counts.indices, minlength=len(first))
    check()
    kept = np.lexsort((np.arange(len(found)), -found))[:PHRASES]
    kept = np.sort(kept[found[kept] >= table.floor])
    rows = scaled(weigh(counts, found)[:, kept], inverse(table.known * table.norms))
    likeness = np.ascontiguousarray((csr_matrix(rows.T) @ model.shares.T).T)
    check()
    weights = solve(likeness, model.shares @ model.shares.T)
    return Names(weights, first[kept], np.full(len(kept), length))


def candidates(corpus: Corpus, length: int) -> Integers:
    """Return where the phrases of so many words begin: joined words, no stop word at an end."""
    last = max(0, len(corpus.words) - length + 1)
    content = corpus.folds[corpus.words] >= 0
    fit = content[:last] & content[length - 1 :][:last]
    for inside in range(1, length):
        fit = fit & corpus.joined[inside : inside + last]
    return np.flatnonzero(fit)


def grouped(corpus: Corpus, starts: Integers, length: int) -> tuple[Integers, Integers]:
    """Return the group of each phrase, equal if its words are, and where each group begins."""
    groups, first = np.zeros(len(starts), np.int64), np.zeros(0, np.int64)
    for inside in range(length):
        keys = groups * len(corpus.forms) + corpus.words[starts + inside]
        _, first, groups = np.unique(keys, return_index=True, return_inverse=True)
    return groups, starts[first]


def ranked(
    corpus: Corpus, names: Names, strengths: Matrix, count: int
) -> Iterator[list[tuple[int, float]]]:
    """Yield the best names of each topic with their scores, the best one with 1.

    A name is left out when it is another form of a better one, a part of it, or has it in it.
    """
    for row in strengths:
        best = float(row.max(initial=0))
        scores = np.round(row / best, 4) if best > 0 else np.zeros_like(row)
        chosen: list[tuple[int, float]] = []
        taken: list[frozenset[int]] = []
        for name in np.lexsort((np.arange(len(scores)), -scores)).tolist():
            if len(chosen) == count or scores[name] <= 0:
                break
            words = content(corpus, names, name)
            if not any(words <= other or words >= other for other in taken):
                chosen.append((name, float(scores[name])))
                taken.append(words)
        yield chosen


def content(corpus: Corpus, names: Names, name: int) -> frozenset[int]:
    """Return the folds of the words of a name, without stop words."""
    first = names.word[name]
    folds = corpus.folds[corpus.words[first : first + names.length[name]]]
    return frozenset(folds[folds >= 0].tolist())


def written(corpus: Corpus, names: Names, name: int, unit_text: Callable[[int], str]) -> str:
    """Return a name in lower case; `unit_text` gives the text of a unit."""
    first, length = int(names.word[name]), int(names.length[name])
    if length == 1:
        return corpus.forms[corpus.words[first]]
    unit = int(np.searchsorted(corpus.bounds, first, side="right")) - 1
    text = plain(unit_text(unit))
    start, end = int(corpus.starts[first]), int(corpus.starts[first + length - 1])
    # The end is looked for in the text: lower case may have another length.
    while end < len(text) and text[end].isalpha():
        end += 1
    return " ".join(text[start:end].lower().split())
