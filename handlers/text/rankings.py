"""Weighs the candidates of a document by the field's methods: the higher, the better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from handlers.text.candidates import Candidate, Pool
from handlers.text.grammar import Grammar
from handlers.text.graphs import Vector, closeness, matrix_edges, pagerank, topics, word_graph
from handlers.text.noun_phrases import Kind
from runner import Context

COUNT_POWER, RARITY_POWER = 0.8, 0.75
REPEATED_LINK = 0.8
"""The weight of a phrase with a preposition that comes again: it is a term (`chef d'orchestre`)."""
CLUSTERED = 400
"""Candidates that are sorted into topics, the most frequent ones, because that takes cubic time."""
PROMOTED = 1.1
"""How much the first phrase of a topic gains, the alpha of MultipartiteRank."""
TEXTRANK_WINDOW, POSITIONRANK_WINDOW = 4, 10
STEPS = 50


@dataclass(frozen=True, slots=True)
class Walk:
    """The random walk of a graph method; the window is the method's own where it is None."""

    damping: float = 0.85
    steps: int = STEPS
    window: int | None = None


Ranking = Callable[[Context, Pool, Grammar, Walk], list[float]]


def tfidf(ctx: Context, pool: Pool, grammar: Grammar, walk: Walk) -> list[float]:
    """Weigh phrases by how often and how early they come, and by how rare their words are.

    TF-IDF whose inverse document frequency is that of the words in the language, times a weight for
    the place of the first occurrence as in Kea (Witten et al., "KEA: Practical Automatic Keyphrase
    Extraction", 1999) and one for the number of words.
    """
    return [
        one.count**COUNT_POWER
        * one.rarity**RARITY_POWER
        * standing(one, grammar)
        / log(one.first + grammar.early)
        for one in pool.candidates.values()
    ]


def standing(one: Candidate, grammar: Grammar) -> float:
    """Return the weight of a phrase for its length and for standing by itself."""
    weight = grammar.length(len(one.key), one.name)
    if one.whole:
        return weight
    if one.kind is Kind.LINK:
        return weight * (REPEATED_LINK if one.count > 1 else grammar.link)
    return weight * grammar.part


def textrank(ctx: Context, pool: Pool, grammar: Grammar, walk: Walk) -> list[float]:
    """Weigh phrases by the centrality of their words among the words of the document.

    Source: Mihalcea and Tarau, "TextRank: Bringing Order into Texts", EMNLP 2004. The mean over the
    words stands instead of their sum, with a weight for the number of words.
    """
    return centrality(ctx, pool, grammar, walk, TEXTRANK_WINDOW, early=False)


def positionrank(ctx: Context, pool: Pool, grammar: Grammar, walk: Walk) -> list[float]:
    """Weigh phrases as TextRank does, by a walk that prefers early and frequent words.

    Source: Florescu and Caragea, "PositionRank: An Unsupervised Approach to Keyphrase Extraction
    from Scholarly Documents", ACL 2017.
    """
    return centrality(ctx, pool, grammar, walk, POSITIONRANK_WINDOW, early=True)


def centrality(
    ctx: Context, pool: Pool, grammar: Grammar, walk: Walk, window: int, early: bool
) -> list[float]:
    """Weigh phrases by a walk over the words of the document."""
    nodes: dict[str, int] = {}
    places = [-1 if stem is None else nodes.setdefault(stem, len(nodes)) for stem in pool.stems]
    if not nodes:
        return [0.0] * len(pool.candidates)
    bias = np.ones(len(nodes))
    if early:
        met = np.asarray(places)
        bias = np.bincount(met[met >= 0], 1 / (1 + np.flatnonzero(met >= 0)), len(nodes))
    edges = word_graph(places, len(nodes), walk.window or window)
    rank = pagerank(ctx, edges, bias, walk.damping, walk.steps)
    weights = []
    for one in pool.candidates.values():
        known = [float(rank[nodes[stem]]) for stem in one.key if stem in nodes]
        weights.append(standing(one, grammar) * sum(known) / max(1, len(known)))
    return weights


def topicrank(ctx: Context, pool: Pool, grammar: Grammar, walk: Walk) -> list[float]:
    """Weigh topics by their closeness to others; a topic's first phrase stands for it.

    Source: Bougouin, Boudin and Daille, "TopicRank: Graph-Based Topic Ranking for Keyphrase
    Extraction", IJCNLP 2013.
    """
    chosen = frequent(pool)
    if not chosen:
        return [0.0] * len(pool.candidates)
    topic = topics(ctx, chosen)
    names = list(dict.fromkeys(topic))
    member = np.zeros((len(chosen), len(names)))
    member[range(len(chosen)), [names.index(one) for one in topic]] = 1.0
    near = member.T @ closeness(ctx, chosen) @ member
    np.fill_diagonal(near, 0.0)
    rank = pagerank(ctx, matrix_edges(near), np.ones(len(names)), walk.damping, walk.steps)
    heads = [min(group(topic, name), key=lambda index: chosen[index].first) for name in names]
    weights = {chosen[head].key: float(one) for head, one in zip(heads, rank, strict=True)}
    return [weights.get(key, 0.0) for key in pool.candidates]


def multipartiterank(ctx: Context, pool: Pool, grammar: Grammar, walk: Walk) -> list[float]:
    """Weigh phrases by their closeness to phrases of other topics; a topic's first one gains.

    Source: Boudin, "Unsupervised Keyphrase Extraction with Multipartite Graphs", NAACL 2018.
    """
    chosen = frequent(pool)
    if not chosen:
        return [0.0] * len(pool.candidates)
    topic = topics(ctx, chosen)
    near = closeness(ctx, chosen)
    same = np.equal.outer(np.array(topic), np.array(topic))
    near[same] = 0.0
    gains = promotions(near, chosen, topic)
    edges = matrix_edges(near + gains)
    rank = pagerank(ctx, edges, np.ones(len(chosen)), walk.damping, walk.steps)
    weights = {one.key: float(weight) for one, weight in zip(chosen, rank, strict=True)}
    return [weights.get(key, 0.0) for key in pool.candidates]


def promotions(near: Vector, chosen: Sequence[Candidate], topic: Sequence[int]) -> Vector:
    """Return what the edges to the first phrase of each topic gain from those to the others."""
    gains = np.zeros_like(near)
    for name in dict.fromkeys(topic):
        members = group(topic, name)
        head = min(members, key=lambda index: chosen[index].first)
        others = [index for index in members if index != head]
        bonus = PROMOTED * np.exp(1 / (1 + chosen[head].first))
        gains[:, head] = bonus * near[others].sum(axis=0)
    return gains


def group(topic: Sequence[int], name: int) -> list[int]:
    """Return the phrases of a topic."""
    return [index for index, one in enumerate(topic) if one == name]


def frequent(pool: Pool) -> list[Candidate]:
    """Return the most frequent phrases that stand by themselves, in order of appearance."""
    alone = [one for one in pool.candidates.values() if one.whole]
    best = sorted(alone, key=lambda one: (-one.count, one.first))[:CLUSTERED]
    return sorted(best, key=lambda one: one.first)


RANKINGS: dict[str, Ranking] = {
    "tfidf": tfidf,
    "textrank": textrank,
    "positionrank": positionrank,
    "topicrank": topicrank,
    "multipartiterank": multipartiterank,
}
