"""The topics of a corpus: from its words to what a caller sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handlers.topic_modeling.corpus import Corpus, Integers, known
from handlers.topic_modeling.model import Matrix, Model, Tell, estimate, factorize, project
from handlers.topic_modeling.phrases import names, ranked, written
from handlers.topic_modeling.table import Table, neighbours, tabulate
from handlers.topic_modeling.units import Cutting

EXCLUSIVE = 0.35
"""How much it counts that a word is one topic's alone: 0 not at all, 1 as much as its weight."""

LONGER = 0.25
"""How much more each further word of a phrase tells a reader than the word it stands with."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller asked for; `topics` is None where the service is to choose."""

    cutting: Cutting
    topics: int | None
    min_topic_size: int
    min_fit: float
    top_n_words: int
    min_words: int
    max_words: int
    seed_topics: Sequence[Sequence[str]]
    seed: int


@dataclass(frozen=True, slots=True)
class Found:
    """A model without small topics, the largest first, and the topic or -1 of each unit."""

    model: Model
    labels: Integers


def find(corpus: Corpus, wish: Wish, tell: Tell) -> tuple[Table, Found]:
    """Return the table of a corpus and the topics found in it."""
    asked = [forms for words in wish.seed_topics if (forms := known(corpus, words))]
    table = tabulate(corpus, [form for forms in asked for form in forms])
    hints = [table.column[forms].tolist() for forms in asked]
    tell(0)
    spoken = int((table.known > 0).sum())
    if wish.topics is None:
        count = max(estimate(table, wish.min_topic_size, wish.seed, lambda: tell(0)), len(hints))
    else:
        count = wish.topics
    count = min(count, spoken // wish.min_topic_size, len(table.forms), different(table))
    if count == 0:
        nothing = Model(
            np.zeros((0, len(corpus.units))), np.zeros((0, len(table.forms))), table.known * 0
        )
        return table, Found(nothing, np.full(len(corpus.units), -1))
    near = neighbours(corpus, table, lambda: tell(0))
    model = factorize(table, near, count, hints[:count], wish.seed, tell)
    return table, settle(table, model, wish, lambda: tell(1))


def different(table: Table) -> int:
    """Return how many units are not a repetition of another one; so many topics there may be."""
    rows = table.weights
    ends = zip(rows.indptr[:-1].tolist(), rows.indptr[1:].tolist(), strict=True)
    return len({rows.indices[start:end].tobytes() for start, end in ends if start < end})


def settle(table: Table, model: Model, wish: Wish, check: Callable[[], None]) -> Found:
    """Give up topics that are too small, their units to others, and sort the rest by size."""
    while True:
        check()
        labels = assign(model, wish.min_fit)
        sizes = np.bincount(labels[labels >= 0], minlength=len(model.words))
        small = int((sizes < wish.min_topic_size).sum())
        order = np.lexsort((np.arange(len(sizes)), -sizes))
        if not small:
            break
        model = project(table, model.words[np.sort(order[: len(order) - (small + 1) // 2])])
    ranks = np.append(np.argsort(order), -1)
    ordered = replace(model, shares=model.shares[order], words=model.words[order])
    return Found(ordered, ranks[labels])


def assign(model: Model, min_fit: float) -> Integers:
    """Return the strongest topic of each unit, or -1 for one that the topics do not fit."""
    if not len(model.shares):
        return np.full(len(model.fit), -1)
    fits = (model.shares.max(axis=0) > 0) & (model.fit >= max(min_fit, 1e-6))
    return np.where(fits, model.shares.argmax(axis=0), -1)


def describe(
    corpus: Corpus, table: Table, found: Found, wish: Wish,
    unit_text: Callable[[int], str], check: Callable[[], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return each topic with the number of its units and its words.

    A word ranks by its weight in the topic and by the share of its weights that lies in the topic,
    so that topics differ. Source: Bischof and Airoldi, "Summarizing topical content with word
    frequency and exclusivity", ICML 2012.
    """
    if not len(found.model.words):
        return []
    titles = names(corpus, table, found.model, wish.min_words, wish.max_words, check)
    strengths = exclusive(titles.weights) * (1 + LONGER * (titles.length - 1))
    sizes = np.bincount(found.labels[found.labels >= 0], minlength=len(found.model.words))
    topics = []
    for number, chosen in enumerate(ranked(corpus, titles, strengths, wish.top_n_words)):
        check()
        words = [
            {"text": written(corpus, titles, name, unit_text), "score": score}
            for name, score in chosen
        ]
        topics.append({"id": number, "count": int(sizes[number]), "words": words})
    return topics


def exclusive(weights: Matrix) -> Matrix:
    """Return the weights of words in topics, raised where a word is one topic's alone."""
    total = weights.sum(axis=0)
    share = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return weights * share**EXCLUSIVE


def assignments(found: Found) -> list[dict[str, Any]]:
    """Return topic, fit and probabilities of each unit; those of a unit without topics are 0."""
    shares = found.model.shares
    total = shares.sum(axis=0)
    probable = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    rows = np.round(probable.T, 4).tolist()
    fits = np.round(found.model.fit, 4).tolist()
    return [
        {"topic": topic, "fit": fit, "probabilities": row}
        for topic, fit, row in zip(found.labels.tolist(), fits, rows, strict=True)
    ]
