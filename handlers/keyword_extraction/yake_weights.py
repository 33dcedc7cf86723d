"""Weighs words and phrases by YAKE: their case, position, frequency and company.

Source: Campos et al., "YAKE! Keyword extraction from single documents", Information Sciences 509
(2020); the engine is the authors' package.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from math import inf, prod
from typing import TypeVar

from yake.data import ComposedWord, DataCore
from yake.data.utils import tokenize_sentences

from runner import Context

T = TypeVar("T")

BLOCK = 10_000
"""Characters read between two checkpoints: about a fifth of a second."""

# The French words that lose their last vowel before another: `l'` and `qu'` are no part of what
# follows them. Hiding `l'Europe` from `Europe` costs 2 to 5 points of F1 on French news.
ELISION = re.compile(r"\b([cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu)['’](?=\w)", re.IGNORECASE)

LONGEST_WORD = 50
"""Characters; what is longer is a key, a hash or a line of dashes that lost its spaces."""


def yake(
    ctx: Context, document: str, language: str, stop_words: Collection[str], longest: int
) -> list[tuple[str, float]]:
    """Return every keyword of at most `longest` words with its score in (0, 1], best first.

    Of the forms that differ in case or in a final `s`, the best one stays.
    """
    text = spell(document, language)
    words = Words(checked(ctx, blocks(text)), frozenset(stop_words), longest)
    ctx.check()
    words.build_single_terms_features()
    weighed = []
    for candidate in checked(ctx, words.candidates.values()):
        if candidate.is_valid() and len(max(candidate.kw.split(), key=len)) <= LONGEST_WORD:
            weighed.append((weigh(candidate), candidate))
    weighed.sort(key=lambda pair: pair[0])
    best: dict[tuple[str, ...], tuple[str, float]] = {}
    for weight, candidate in weighed:
        forms = tuple(term.unique_term for term in candidate.terms)
        best.setdefault(forms, (candidate.kw.replace("’ ", "'"), score(weight)))
    return list(best.values())


class Words(DataCore):
    """The words and candidates of a text that is read block by block.

    yake reads a text at once: it joins a title to the line below it, its sentence splitter is
    quadratic on some texts, and nothing can stop it. Whole blocks are worth 3 to 9 points of F1 on
    French news. `phrase` is the largest number of words in a candidate.
    """

    def __init__(self, blocks: Iterable[str], stopwords: frozenset[str], phrase: int) -> None:
        self._blocks = blocks
        super().__init__("", set(stopwords), {"windows_size": 1, "n": phrase})

    def _build(self, text: str, windows_size: int, n: int) -> None:
        context = {"windows_size": windows_size, "n": n}
        read = 0
        for block in self._blocks:
            for sentence in tokenize_sentences(block):
                read = self._process_sentence(sentence, self.number_of_sentences, read, context)
                self.number_of_sentences += 1
        self.number_of_words = read


def spell(document: str, language: str) -> str:
    """Return the text as yake's tokenizer understands it: one form of accents and apostrophes."""
    text = unicodedata.normalize("NFC", document).replace("\u00ad", "")
    if language == "fr":
        # The curly apostrophe stays on its word, a straight one would become a border of phrases.
        return ELISION.sub(r"\1’ ", text)
    return text.replace("’", "'")


def blocks(text: str) -> Iterator[str]:
    """Yield the pieces of a text that no phrase crosses, each of at most `BLOCK` characters.

    A line is a piece of its own unless it goes on in lower case, as lines of a fixed width do.
    """
    lines: list[str] = []
    size = 0
    for line in text.splitlines():
        for piece in pieces(line.strip()):
            first = next(filter(str.isalnum, piece), "")
            if lines and (not first.islower() or size + len(piece) >= BLOCK):
                yield " ".join(lines)
                lines, size = [], 0
            if piece:
                lines.append(piece)
                size += len(piece) + 1
    if lines:
        yield " ".join(lines)


def pieces(line: str) -> Iterator[str]:
    """Yield a line in pieces of at most `BLOCK` characters, cut after sentences or words."""
    start = 0
    while len(line) - start > BLOCK:
        end = start + BLOCK
        cut = max(line.rfind(". ", start, end), line.rfind("! ", start, end)) + 1
        cut = cut or line.rfind(" ", start, end) + 1 or end
        yield line[start:cut]
        start = cut
    yield line[start:]


def checked(ctx: Context, items: Iterable[T]) -> Iterator[T]:
    """Yield the items with a checkpoint before each."""
    for item in items:
        ctx.check()
        yield item


def weigh(candidate: ComposedWord) -> float:
    """Return yake's weight of a candidate: above 0, and the lower the better.

    Two stop words in a row (`ministre de la Justice`) can push yake's sum below zero, which would
    rank the phrase first of all; such a phrase is weighed by its other words.
    """
    candidate.update_h()
    weight = float(candidate.h)
    if 0 < weight < inf:
        return weight
    content = [float(term.h) for term in candidate.terms if not term.stopword]
    links = len(candidate.terms) - len(content)
    return 2**links * prod(content) / ((1 + sum(content)) * candidate.tf)


def score(weight: float) -> float:
    """Turn a weight (0 is best, without bound) into a score in (0, 1] that keeps the order."""
    return max(round(1 / (1 + weight), 4), 0.0001)
