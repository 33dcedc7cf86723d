"""Chooses keyphrases from weighed candidates, and says where each of them stands."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.text.candidates import Candidate, Key

POOLED = 1000
"""The best candidates, among which unlike ones are sought."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants of the keyphrases of a document.

    A keyphrase occurs more often than `threshold` says. `diversity` is 0 for the best ones and 1
    for unlike ones; `redundant` keeps what says nothing beyond a better and longer phrase.
    """

    top_n: int
    min_words: int = 1
    max_words: int = 5
    threshold: float = 0
    diversity: float = 0
    redundant: bool = False


def choose(
    candidates: Sequence[Candidate], weights: Sequence[float], wish: Wish
) -> list[tuple[Candidate, float]]:
    """Return the wanted number of candidates with their weights, the best one first.

    What occurs in a better and longer phrase alone says nothing beyond it.
    """
    rated = [
        (one, weight)
        for one, weight in zip(candidates, weights, strict=True)
        if weight > 0 and one.count > wish.threshold
        and wish.min_words <= len(one.key) <= wish.max_words
    ]  # fmt: skip
    # Rounded, so that the last bits of a sum, which differ between machines, decide nothing.
    rated.sort(key=lambda pair: (-float(f"{pair[1]:.9g}"), pair[0].first, len(pair[0].key)))
    if wish.diversity:
        return diverse(rated[:POOLED], wish)
    chosen: list[tuple[Candidate, float]] = []
    counts: dict[Key, int] = {}
    for one, weight in rated:
        if len(chosen) == wish.top_n:
            break
        if wish.redundant or counts.get(one.key, 0) < one.count:
            chosen.append((one, weight))
            for part in parts(one.key):
                counts[part] = max(one.count, counts.get(part, 0))
    return chosen


def parts(key: Key) -> list[Key]:
    """Return the shorter sequences inside a sequence of stems."""
    return [
        key[left:right]
        for left in range(len(key))
        for right in range(left + 1, len(key) + 1)
        if right - left < len(key)
    ]


def diverse(rated: Sequence[tuple[Candidate, float]], wish: Wish) -> list[tuple[Candidate, float]]:
    """Return candidates that are good and unlike the ones before, by maximal marginal relevance.

    Alike are phrases that share stems (Dice's coefficient). Source: Carbonell and Goldstein, "The
    Use of MMR", SIGIR 1998.
    """
    if not rated:
        return []
    best = rated[0][1]
    sets = [frozenset(one.key) for one, _ in rated]
    worth = [(1 - wish.diversity) * weight / best for _, weight in rated]
    likeness = [0.0] * len(rated)
    left = list(range(len(rated)))
    chosen = []
    while left and len(chosen) < wish.top_n:
        pick = max(left, key=lambda one: (worth[one] - wish.diversity * likeness[one], -one))
        left.remove(pick)
        chosen.append(rated[pick])
        for one in left:
            shared = len(sets[one] & sets[pick])
            if shared:
                dice = 2 * shared / (len(sets[one]) + len(sets[pick]))
                likeness[one] = max(likeness[one], dice)
    return chosen


def scores(chosen: Sequence[tuple[Candidate, float]], best: float = 0) -> list[float]:
    """Return the weights as scores in (0, 1]; the highest weight there is, or `best`, is 1."""
    best = best or max((weight for _, weight in chosen), default=1.0)
    return [max(round(weight / best, 4), 0.0001) for _, weight in chosen]


def present(text: str, score: float, one: Candidate) -> dict[str, Any]:
    """Return a keyphrase as callers see it."""
    offsets = [
        {"start": start, "end": end} for start, end in zip(one.starts, one.ends, strict=True)
    ]
    return {"text": text, "score": score, "count": one.count, "offsets": offsets}


def ignored(
    built_in: Collection[str], replaced: Collection[str] | None, added: Collection[str] | None
) -> frozenset[str]:
    """Return the stop words, in lower case: the caller's or the built-in ones, and more."""
    chosen = built_in if replaced is None else replaced
    return frozenset(word.lower() for word in (*chosen, *(added or ())))
