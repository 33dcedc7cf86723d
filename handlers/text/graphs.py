"""Graphs of words and of phrases, and which of their nodes are central."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from handlers.text.candidates import Candidate
from runner import Context

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

CHANGE = 1e-6
SAME_TOPIC = 0.25
"""The least mean share of stems that two groups of phrases have in common to be one topic."""
POSITIONS = 8
"""Occurrences of a phrase that count for its distance to others."""


def word_graph(nodes: Sequence[int], size: int, window: int) -> tuple[Vector, Vector, Vector]:
    """Return from, to and weight of the edges between words at most `window` tokens apart.

    `nodes` holds a node, or -1, for each token of the document. Time and memory are linear in
    their number times the window.
    """
    places = np.asarray(nodes, dtype=np.int64)
    pairs = []
    for distance in range(1, window):
        left, right = places[:-distance], places[distance:]
        both = (left >= 0) & (right >= 0) & (left != right)
        low, high = np.minimum(left, right)[both], np.maximum(left, right)[both]
        pairs.append(low * size + high)
    edges, counts = np.unique(np.concatenate(pairs), return_counts=True)
    one, other = edges // size, edges % size
    return np.concatenate([one, other]), np.concatenate([other, one]), np.tile(counts, 2) * 1.0


def pagerank(
    ctx: Context, edges: tuple[Vector, Vector, Vector], bias: Vector, damping: float, steps: int
) -> Vector:
    """Return how central each node is; the sum is 1 unless nodes without edges lose their share.

    Stops when the weights no longer change, or after `steps` rounds. `bias` says where the walk
    starts anew. Source: Brin and Page, "The Anatomy of a Large-Scale Hypertextual Web Search
    Engine", 1998.
    """
    sources, targets, weights = edges
    size = len(bias)
    degrees = np.bincount(sources, weights, size)
    share = weights / degrees[sources]
    start = bias / bias.sum()
    rank = start
    for _ in range(steps):
        ctx.check()
        known = rank
        rank = (1 - damping) * start + damping * np.bincount(targets, share * known[sources], size)
        if np.abs(rank - known).sum() < CHANGE:
            break
    return rank


def matrix_edges(matrix: Matrix) -> tuple[Vector, Vector, Vector]:
    """Return from, to and weight of the edges of a matrix."""
    sources, targets = np.nonzero(matrix)
    return sources, targets, matrix[sources, targets]


def closeness(ctx: Context, candidates: Sequence[Candidate]) -> Matrix:
    """Return for each two phrases the sum over their occurrences of 1 / the tokens between."""
    positions = [np.array(one.positions[:POSITIONS], dtype=float) for one in candidates]
    everything = np.concatenate(positions)
    starts = np.cumsum([0, *map(len, positions[:-1])])
    rows = np.zeros((len(candidates), len(candidates)))
    for row, places in enumerate(positions):
        ctx.check()
        gaps = np.maximum(np.abs(everything[None, :] - places[:, None]), 1.0)
        rows[row] = np.add.reduceat((1 / gaps).sum(axis=0), starts)
    np.fill_diagonal(rows, 0.0)
    return rows


def topics(ctx: Context, candidates: Sequence[Candidate]) -> list[int]:
    """Return the topic of each phrase: phrases that share enough stems are of one topic.

    Clusters from single phrases up by average linkage of the Jaccard similarity; cubic in the
    number of phrases, for which callers bound it.
    """
    size = len(candidates)
    sets = [frozenset(one.key) for one in candidates]
    alike = np.zeros((size, size))
    for row, one in enumerate(sets):
        alike[row] = [len(one & other) / len(one | other) for other in sets]
    np.fill_diagonal(alike, -1.0)
    members, topic = np.ones(size), list(range(size))
    while size > 1:
        ctx.check()
        kept, gone = map(int, divmod(int(alike.argmax()), size))
        if alike[kept, gone] < SAME_TOPIC:
            break
        kept, gone = min(kept, gone), max(kept, gone)
        total = members[kept] + members[gone]
        merged = (members[kept] * alike[kept] + members[gone] * alike[gone]) / total
        alike[kept], alike[:, kept] = merged, merged
        alike[gone], alike[:, gone] = -1.0, -1.0
        alike[kept, kept] = -1.0
        members[kept] = total
        topic = [kept if one == gone else one for one in topic]
    return topic
