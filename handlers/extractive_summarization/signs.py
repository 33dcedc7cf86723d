"""What can be seen of each unit of a document that tells whether it belongs in a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from handlers.extractive_summarization.unit import Unit
from handlers.extractive_summarization.wording import ACRONYM, QUOTED, Wording
from runner import Context

Vector = NDArray[np.float64]
Signs = Mapping[str, Vector]
"""One number a unit for each sign, none of them much above 5."""

LONG_WORD = 6
"""Letters from which a word counts as one of content; a list of stop words does no better."""
SHORTEST = 5
"""Words from which a sentence is taken for one, and not for a date and a place or a caption."""
CLOSED = (".", "!", "?", "…", "»", '"', "”", "’", ")", "]", ":", ";")


def content(
    ctx: Context, units: Sequence[Unit], stem: Callable[[str], str]
) -> tuple[csr_matrix, Vector]:
    """Return how often each unit has each stem of a long word, and how many units have the stem."""
    vocabulary: dict[str, int] = {}
    columns: list[int] = []
    counts: list[int] = []
    ends = [0]
    for unit in units:
        bag: Counter[str] = Counter()
        for word in unit.words:
            ctx.check()  # a transcript without punctuation may be one unit of 100,000 words
            if len(word) >= LONG_WORD:
                bag[stem(word)] += 1
        columns += [vocabulary.setdefault(word, len(vocabulary)) for word in bag]
        counts += bag.values()
        ends.append(len(columns))
    shape = (len(units), max(1, len(vocabulary)))
    table = csr_matrix((np.array(counts, float), columns, ends), shape=shape)
    return table, np.bincount(table.indices, minlength=shape[1]).astype(float)


def shared(table: csr_matrix, spread: Vector) -> Vector:
    """Return how many long words of each unit come again elsewhere, and how often."""
    presence = csr_matrix((np.ones(table.nnz), table.indices, table.indptr), shape=table.shape)
    return np.log1p(presence @ np.log(np.maximum(1.0, spread)))


def typical(table: csr_matrix, spread: Vector) -> Vector:
    """Return the cosine of each unit and the whole document, rare words counting more."""
    rarity = np.log((1 + table.shape[0]) / (spread + 0.5))
    whole = np.asarray(table.sum(axis=0)).ravel() * rarity
    weighted = table.multiply(rarity).tocsr()
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    length *= np.linalg.norm(whole)
    return np.divide(weighted @ whole, length, out=np.zeros(len(length)), where=length > 1e-9)


def of_speech(
    ctx: Context, document: str, units: Sequence[Unit], wording: Wording,
    stem: Callable[[str], str],
) -> Signs:  # fmt: skip
    """Return the signs that count where people speak."""
    table, spread = content(ctx, units, stem)
    long = [sum(len(word) >= LONG_WORD for word in unit.words) for unit in units]
    demands, address, manners = [], [], []
    for unit in units:
        ctx.check()
        plain = unit.plain.lower()
        demands.append(len(wording.demands.findall(plain)))
        address.append(min(2, len(wording.address.findall(plain))))
        manners.append(min(2, len(wording.manners.findall(plain))))
    after = [*(unit.start for unit in units[1:]), len(document)]
    return {
        "length": np.log([unit.size for unit in units]),
        "typical": typical(table, spread),
        "density": np.array(long) / [max(1, len(unit.words)) for unit in units],
        "demands": np.log1p(demands),
        "address": np.array(address, float),
        "manners": np.array(manners, float),
        "closes": np.array(
            [float("\n" in document[u.end : start] or start == len(document))
             for u, start in zip(units, after, strict=True)]
        ),
    }  # fmt: skip


def of_writing(
    ctx: Context, document: str, units: Sequence[Unit], wording: Wording,
    stem: Callable[[str], str],
) -> Signs:  # fmt: skip
    """Return the signs that count in what was written to be read."""
    announces, proposes, authors, novelty = [], [], [], []
    for unit in units:
        ctx.check()
        plain = unit.plain.lower()
        own = QUOTED.search(plain) is None
        announces.append(own and wording.announces.search(plain) is not None)
        proposes.append(own and wording.proposes.search(plain) is not None)
        authors.append(own and wording.authors.search(plain) is not None)
        novelty.append(bool(wording.novelty.search(plain) or ACRONYM.search(unit.plain)))
    places = np.arange(len(units))
    announcing = np.flatnonzero(announces)
    whole = np.array([unit.size >= SHORTEST and unit.text.endswith(CLOSED) for unit in units])
    sentence = whole if whole.any() else np.ones(len(units), bool)
    # Authors who speak say where their point is; any other text begins with it.
    early = np.where(sentence, 1.0 / (1.0 + (np.cumsum(sentence) - 1) / 3.0), 0.0)
    return {
        "shared": shared(*content(ctx, units, stem)),
        "first": (places == 0).astype(float),
        "early": early * (not any(announces) and not any(authors)),
        "announces": np.array(announces, float),
        "announces_first": np.isin(places, announcing[:1]).astype(float),
        "proposes": np.array(proposes, float),
        "authors": np.array(authors, float),
        "novelty": np.array(novelty, float),
        "heading": 1.0 - sentence,
    }
