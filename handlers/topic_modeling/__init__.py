"""Finds the topics of documents: groups of units that are about the same, and their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from threadpoolctl import threadpool_limits

from handlers.text.documents import Apart
from handlers.topic_modeling.corpus import Corpus, Reader, Stemmer
from handlers.topic_modeling.table import Table
from handlers.topic_modeling.topics import Found, Wish, assignments, describe, find
from handlers.topic_modeling.units import Cutting, Unit
from runner import Context, InputRejected, Service
from runner.language import ANY, detect

LANGUAGES = ("en", "fr")
UNITS = {"document": "sentence", "request": "document"}
"""What a unit is when the caller does not say, by scope."""

RARE = 0.05
"""Of documents with common topics, a language with less of the text is taken for a mistake."""

Known = tuple[Corpus, Table, Found]


class Topics(Service):
    """Factorizes the words of units into topics, for each document or for all of them together."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.stem = Stemmer()

    def __call__(
        self,
        ctx: Context,
        documents: list[str],
        language: str,
        scope: str,
        min_topic_size: int,
        min_fit: float,
        top_n_words: int,
        min_words: int,
        max_words: int,
        seed_topics: list[list[str]],
        seed: int,
        unit: str | None = None,
        separator: str | None = None,
        topics: int | None = None,
    ) -> dict[str, Any]:
        """Return the units of each document with their topics, and the topics with their words."""
        if min_words > max_words:
            raise InputRejected(f"`min_words` is {min_words}, more than `max_words`, {max_words}.")
        wish = Wish(
            Cutting(unit or UNITS[scope], separator),
            topics, min_topic_size, min_fit, top_n_words, min_words, max_words, seed_topics, seed,
        )  # fmt: skip
        # The number of threads changes the last digits of sums, and from there on any other.
        with threadpool_limits(limits=1):
            work = self.together if scope == "request" else self.apart
            return work(ctx, documents, language, wish)

    def together(
        self, ctx: Context, documents: list[str], language: str, wish: Wish
    ) -> dict[str, Any]:
        """Return one set of topics for all documents."""
        with ctx.step("read") as step:
            spoken = languages(ctx, documents, language)
            reader = Reader(ctx.check, self.stem)
            for number, document in enumerate(step.track(documents)):
                read(reader, number, document, spoken[number], wish.cutting)
            corpus = reader.corpus()
        with ctx.step("model") as step:
            known = find(corpus, wish, lambda done: step.progress(done, 1))
        answers: list[dict[str, Any]] = [{"language": one, "units": []} for one in spoken]
        with ctx.step("describe"):
            topics, units = tell(ctx, documents, (corpus, *known), wish)
            for piece, told in zip(corpus.units, units, strict=True):
                answers[piece.document]["units"].append(told)
        return {"topics": topics, "documents": answers}

    def apart(
        self, ctx: Context, documents: list[str], language: str, wish: Wish
    ) -> dict[str, Any]:
        """Return topics for each document; one that fails has an error, its neighbours have not."""
        spoken = [language] * len(documents)

        def reading(number: int, document: str) -> Corpus:
            if language == ANY:
                spoken[number] = detect(document, LANGUAGES)
            reader = Reader(ctx.check, self.stem)
            read(reader, number, document, spoken[number], wish.cutting)
            return reader.corpus()

        def modeling(number: int, corpus: Corpus) -> Known:
            return corpus, *find(corpus, wish, lambda done: ctx.check())

        def describing(number: int, known: Known) -> dict[str, Any]:
            topics, units = tell(ctx, documents, known, wish)
            return {"topics": topics, "units": units}

        work = Apart(ctx)
        corpora = work.run("read", dict(enumerate(documents)), reading)
        models = work.run("model", corpora, modeling)
        results = work.run("describe", models, describing) | work.errors()
        return {
            "documents": [{"language": one, **results[number]} for number, one in enumerate(spoken)]
        }


def languages(ctx: Context, documents: Sequence[str], language: str) -> list[str]:
    """Return the language of each document; the few in a rare one are short and were mistaken."""
    if language != ANY:
        return [language] * len(documents)
    found, sizes = [], Counter[str]()
    for document in documents:
        ctx.check()
        found.append(detect(document, LANGUAGES))
        sizes[found[-1]] += len(document)
    main = max(LANGUAGES, key=lambda one: sizes[one])
    return [one if sizes[one] >= RARE * sizes.total() else main for one in found]


def read(reader: Reader, number: int, document: str, language: str, cutting: Cutting) -> None:
    """Read the units of one document."""
    for start, end in cutting.spans(document, language):
        reader.add(Unit(number, start, end), document[start:end], language)


def tell(
    ctx: Context, documents: Sequence[str], known: Known, wish: Wish
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the topics and the units of a corpus as the caller sees them."""
    corpus, table, found = known

    def text(number: int) -> str:
        piece = corpus.units[number]
        return documents[piece.document][piece.start : piece.end]

    topics = describe(corpus, table, found, wish, text, ctx.check)
    units = []
    for number, (piece, told) in enumerate(zip(corpus.units, assignments(found), strict=True)):
        place: dict[str, Any] = {"start": piece.start, "end": piece.end}
        if not wish.cutting.whole:
            place["text"] = text(number)
        units.append({**place, **told})
    return topics, units
