"""Finds the phrases that say what a document is about, alike or diverse, and where they stand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from handlers.text.documents import answer
from handlers.text.extraction import BEST, LANGUAGES, Extractor, Order
from handlers.text.rankings import Walk
from handlers.text.selection import Wish
from runner import Context, InputRejected, Service


class Keyphrases(Service):
    """Ranks the noun phrases of each document, or the phrases that the caller names."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.extractor = Extractor()

    def __call__(
        self,
        ctx: Context,
        documents: list[str],
        language: str,
        method: str,
        top_n: int,
        min_words: int,
        max_words: int,
        threshold: float,
        diversity: float,
        candidates: list[str] | None = None,
        seed_keywords: list[str] | None = None,
        stop_words: list[str] | None = None,
        add_stop_words: list[str] | None = None,
    ) -> dict[str, Any]:
        """Return the best `top_n` keyphrases of each document, the first choice first."""
        if max_words < min_words:
            raise InputRejected(f"`min_words` is {min_words}, more than `max_words`, {max_words}.")
        order = Order(stop_words, add_stop_words, candidates, seed_keywords or ())
        wish = Wish(top_n, min_words, max_words, threshold, diversity)

        def work(document: str, spoken: str) -> dict[str, Any]:
            used = BEST[spoken] if method == "auto" else method
            found = self.extractor.extract(ctx, document, spoken, used, wish, order, Walk())
            return {"method": used, "keyphrases": found}

        return {"documents": answer(ctx, "extract", documents, language, LANGUAGES, work)}
