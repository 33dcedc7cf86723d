"""Keyphrases of documents: noun phrases, ranked by one of the field's methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from handlers.text.candidates import Pool, given, key, phrases
from handlers.text.grammar import GRAMMARS, Grammar
from handlers.text.rankings import RANKINGS, Walk
from handlers.text.reading import Reader
from handlers.text.selection import Wish, choose, ignored, present, scores
from handlers.text.stems import stemmer
from runner import Context

LANGUAGES = tuple(GRAMMARS)
BEST = {"en": "tfidf", "fr": "tfidf"}
"""The method that `auto` means, for each language."""
ENDLESS = 1_000_000


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller says of the words: stop words in place of the built-in ones or beside them,
    the only phrases that may be keyphrases, and words that tell what he looks for.
    """

    stop_words: Sequence[str] | None = None
    add_stop_words: Sequence[str] | None = None
    candidates: Sequence[str] | None = None
    seeds: Sequence[str] = ()


class Extractor:
    """The bundled models of all languages, loaded once."""

    def __init__(self) -> None:
        self.reader = Reader(LANGUAGES)
        self.stem: dict[str, Callable[[str], str]] = {one: stemmer(one) for one in LANGUAGES}

    def extract(
        self, ctx: Context, document: str, language: str, method: str, wish: Wish, order: Order,
        walk: Walk,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Return the keyphrases of a document as callers see them, the best one first."""
        grammar = GRAMMARS[language]
        if order.candidates is not None:
            wish = replace(wish, min_words=1, max_words=ENDLESS, redundant=True)
        pool = self.pool(ctx, document, language, grammar, wish, order)
        weights = RANKINGS[method](ctx, pool, grammar, walk)
        weights = self.seeded(pool, weights, language, order.seeds)
        chosen = choose(list(pool.candidates.values()), weights, wish)
        return [
            present(one.spelled(document), score, one)
            for (one, _), score in zip(chosen, scores(chosen), strict=True)
        ]

    def pool(
        self, ctx: Context, document: str, language: str, grammar: Grammar, wish: Wish,
        order: Order,
    ) -> Pool:  # fmt: skip
        """Return the phrases of a document that may be keyphrases."""
        stem, lexicon = self.stem[language], self.reader.lexicons[language]
        sentences = self.reader.tagged(ctx, document, language)
        if order.candidates is not None:
            keys = [key(one, language, stem) for one in order.candidates]
            return given(sentences, stem, keys, lexicon)
        stop_words = ignored(grammar.stop_words, order.stop_words, order.add_stop_words)
        return phrases(sentences, grammar, lexicon, stem, stop_words, wish.max_words)

    def seeded(
        self, pool: Pool, weights: list[float], language: str, seeds: Sequence[str]
    ) -> list[float]:
        """Raise the weights of phrases by their share of words that are seeds, to the double."""
        wanted = {stem for seed in seeds for stem in key(seed, language, self.stem[language])}
        if not wanted:
            return weights
        return [
            weight * (1 + len(wanted.intersection(one.key)) / len(set(one.key)))
            for one, weight in zip(pool.candidates.values(), weights, strict=True)
        ]
