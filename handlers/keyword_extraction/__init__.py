"""Finds the words and phrases that say what a document is about."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from handlers.keyword_extraction.stop_words import stop_words as built_in
from handlers.keyword_extraction.yake_weights import yake
from handlers.text.candidates import Candidate, given, key, words
from handlers.text.documents import answer
from handlers.text.extraction import BEST, LANGUAGES, Extractor, Order
from handlers.text.noun_phrases import Kind
from handlers.text.rankings import RANKINGS, STEPS, Walk
from handlers.text.reading import sentences
from handlers.text.selection import Wish, choose, ignored, present, scores
from runner import Context, InputRejected, Service

EMBEDDED = ("keybert", "frekeybert")
"""LinTO's methods that compare embeddings, for which nothing is bundled."""
OVER_WORDS = ("textrank", "positionrank")
OVER_PHRASES = ("topicrank", "multipartiterank")
WALKING = {
    "damping": OVER_WORDS + OVER_PHRASES,
    "steps": OVER_WORDS + OVER_PHRASES,
    "window": OVER_WORDS,
}
"""The methods for which a parameter of the walk over a graph means something."""
SHORT = {"yake": 1, "frequencies": 1}
LONGEST = 5
"""The most words of a keyword where the caller says nothing: by method, and of the others."""


class Keywords(Service):
    """Ranks the words and phrases of each document by the statistics of that document."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.extractor = Extractor()
        self.stop_words = {language: built_in(language) for language in LANGUAGES}

    def __call__(
        self,
        ctx: Context,
        documents: list[str],
        language: str,
        method: str,
        top_n: int,
        min_words: int,
        threshold: float,
        max_words: int | None = None,
        stop_words: list[str] | None = None,
        add_stop_words: list[str] | None = None,
        damping: float | None = None,
        steps: int | None = None,
        window: int | None = None,
    ) -> dict[str, Any]:
        """Return the best `top_n` keywords of each document, the best one first."""
        if max_words and max_words < min_words:
            raise InputRejected(f"`min_words` is {min_words}, more than `max_words`, {max_words}.")
        order = Order(stop_words, add_stop_words)
        walk = Walk(damping or Walk().damping, steps or STEPS, window)

        def work(document: str, spoken: str) -> dict[str, Any]:
            used = BEST[spoken] if method in ("auto", *EMBEDDED) else method
            longest = max_words or max(min_words, SHORT.get(used, LONGEST))
            wish = Wish(top_n, min_words, longest, threshold)
            if used in RANKINGS:
                found = self.extractor.extract(ctx, document, spoken, used, wish, order, walk)
            elif used == "yake":
                found = self.yake(ctx, document, spoken, wish, order)
            else:
                found = self.frequencies(ctx, document, spoken, wish, order)
            return {"method": used, "keywords": found}

        walking = {"damping": damping, "steps": steps, "window": window}
        stated = [name for name, one in walking.items() if one is not None]
        return {
            "documents": answer(ctx, "extract", documents, language, LANGUAGES, work),
            "warnings": warnings(method, stated),
        }

    def yake(
        self, ctx: Context, document: str, language: str, wish: Wish, order: Order
    ) -> list[dict[str, Any]]:
        """Return the keywords by YAKE, which weighs case, position, frequency and company."""
        stem = self.extractor.stem[language]
        ignore = self.ignored(language, order)
        found = [
            (text, score, key(text, language, stem))
            for text, score in yake(ctx, document, language, ignore, wish.max_words)
        ]
        keys = [stems for _, _, stems in found if len(stems) >= wish.min_words]
        met = given(sentences(ctx, document, language), stem, keys).candidates
        # What yake cuts in another way than the tokenizer, such as a web address, is not found.
        placed = [
            (text, score, met.get(stems) or Candidate(stems, Kind.WHOLE, 0, count=1))
            for text, score, stems in found if len(stems) >= wish.min_words
        ]  # fmt: skip
        chosen = [one for one in placed if one[2].count > wish.threshold]
        return [present(*one) for one in chosen[: wish.top_n]]

    def frequencies(
        self, ctx: Context, document: str, language: str, wish: Wish, order: Order
    ) -> list[dict[str, Any]]:
        """Return the words by their share of all words that are no stop words."""
        ignore = self.ignored(language, order)
        stem = self.extractor.stem[language]
        pool = words(sentences(ctx, document, language), stem, ignore, wish.max_words)
        counted = list(pool.candidates.values())
        total = sum(one.count for one in counted if len(one.key) == 1)
        chosen = choose(counted, [float(one.count) for one in counted], wish)
        return [
            present(one.spelled(document), score, one)
            for (one, _), score in zip(chosen, scores(chosen, total), strict=True)
        ]

    def ignored(self, language: str, order: Order) -> frozenset[str]:
        """Return the stop words of the methods that know no parts of speech."""
        return ignored(self.stop_words[language], order.stop_words, order.add_stop_words)


def warnings(method: str, stated: Sequence[str]) -> list[str]:
    """Say what of a request was not done as it was asked."""
    told = []
    if method in EMBEDDED:
        told.append(
            f"The method `{method}` compares embeddings, and no model for them is bundled; each "
            "document tells the `method` that was used instead."
        )
    return told + [
        f"`{name}` has no effect with `{method}`: only on {', '.join(WALKING[name])}."
        for name in stated
        if method not in WALKING[name]
    ]
