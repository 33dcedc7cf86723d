"""Summarises a document by the sentences of its own that matter most."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from summa.preprocessing.snowball import SnowballStemmer
from summa.preprocessing.stopwords import get_stopwords_by_language

from handlers.extractive_summarization.budget import Budget
from handlers.extractive_summarization.genre import SPEECH, WRITING, spoken
from handlers.extractive_summarization.textrank import Bag, rank
from handlers.extractive_summarization.unit import Unit, units
from handlers.extractive_summarization.wording import english, french
from handlers.text.documents import answer
from runner import Context, Service

# The languages by the names that summa gives them. It has no stop words for French, and TextRank is
# better off without: adding spaCy's list costs 4 points of ROUGE-2 on French debates.
NAMES = {"en": "english", "fr": "french"}
KNOWN_STEMS = 50_000
"""Stems kept between documents, for each language: about 10 MB."""


class Summary(Service):
    """Ranks the sentences of each document and keeps the best that there is room for."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.wording = {"en": english(), "fr": french()}
        self.ignored = {
            language: frozenset(get_stopwords_by_language(name).split())
            for language, name in NAMES.items()
        }
        self.stem: dict[str, Callable[[str], str]] = {
            language: lru_cache(KNOWN_STEMS)(SnowballStemmer(name).stem)
            for language, name in NAMES.items()
        }

    def __call__(
        self,
        ctx: Context,
        documents: list[str],
        language: str,
        ratio: float,
        method: str,
        use_first: bool,
        sentences: int | None = None,
        words: int | None = None,
        separator: str | None = None,
    ) -> dict[str, Any]:
        """Return the summary of each document; `sentences` and `words` win over `ratio`."""
        budget = Budget(ratio, sentences, words, use_first)
        rate = {"auto": self.worth, "textrank": self.centrality}[method]

        def work(document: str, spoken: str) -> dict[str, Any]:
            found = units(ctx, document, spoken, separator)
            scores = rate(ctx, document, found, spoken) if found else []
            kept = [
                {
                    "index": place,
                    "start": found[place].start,
                    "end": found[place].end,
                    "text": found[place].text,
                    "score": scores[place],
                }
                for place in budget.choose(found, scores)
            ]
            return {"summary": " ".join(one["text"] for one in kept), "sentences": kept}

        return {"documents": answer(ctx, "summarize", documents, language, tuple(NAMES), work)}

    def worth(self, ctx: Context, document: str, found: list[Unit], language: str) -> list[float]:
        """Return how likely a reader takes each unit, as a share of the best one's odds."""
        wording = self.wording[language]
        genre = SPEECH if spoken(found, wording) else WRITING
        signs = genre.see(ctx, document, found, wording, self.stem[language])
        sums = np.zeros(len(found))
        for name, weight in genre.weights.items():
            sums += weight * signs[name]
        return [float(f"{share:.5g}") for share in np.exp(np.maximum(sums - sums.max(), -99.0))]

    def centrality(
        self, ctx: Context, document: str, found: list[Unit], language: str
    ) -> list[float]:
        """Return the TextRank of each unit in (0, 1], where the most central one has 1."""
        return rank(ctx, [self.bag(ctx, unit, language) for unit in found])

    def bag(self, ctx: Context, unit: Unit, language: str) -> Bag:
        """Return the stems of a unit's words, in order, without the ignored ones."""
        stem, ignored = self.stem[language], self.ignored[language]
        bag = []
        for word in unit.words:
            ctx.check()  # a transcript without punctuation may be one unit of 100,000 words
            if word not in ignored:
                bag.append(stem(word))
        return tuple(bag)
