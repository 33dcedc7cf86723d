"""Finds people, places and organisations in English and French texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from handlers.ner.pieces import Piece, batches, cut
from handlers.ner.pipelines import choose
from handlers.text.documents import problem
from runner import Context, Service
from runner.errors import TransientFailure
from runner.language import ANY, detect

LANGUAGES = ("en", "fr")
LABELS = {
    "PER": "PER", "PERS": "PER", "PERSON": "PER",
    "LOC": "LOC", "LOCATION": "LOC", "GPE": "LOC", "FAC": "LOC", "FACILITY": "LOC",
    "ORG": "ORG", "ORGANIZATION": "ORG", "ORGANISATION": "ORG",
}  # fmt: skip

Entities = list[dict[str, Any]]


class NamedEntities(Service):
    """Runs the bundled model, or installed spaCy pipelines, over the documents of a request."""

    def __init__(self, config: SimpleNamespace) -> None:
        """Loads a pipeline for each language; raises as `pipelines.choose` does."""
        super().__init__(config)
        self.pipelines = choose(config.model, config.expected, LANGUAGES)
        self.warnings = list(self.pipelines.warnings)

    def __call__(
        self, ctx: Context, documents: Sequence[str], language: str = ANY
    ) -> Mapping[str, Any]:
        """Returns each document's language and its entities in the order of the text.

        A document on which a pipeline fails has an `error` in the place of its entities; when all
        of them fail, the first failure is raised.
        """
        spoken = [detect(text, LANGUAGES) if language == ANY else language for text in documents]
        results = []
        failures: list[Exception] = []
        with ctx.step("tag") as step:
            found = self.entities(ctx, documents, spoken)
            for tongue, outcome in step.track(
                zip(spoken, found, strict=True), total=len(documents)
            ):
                if isinstance(outcome, Exception):
                    ctx.log.warning("document %d: %s", len(results), type(outcome).__name__)
                    failures.append(outcome)
                    results.append({"language": tongue, "error": problem(outcome)})
                else:
                    results.append({"language": tongue, "entities": outcome})
        if failures and len(failures) == len(documents):
            raise failures[0]
        names = self.pipelines.names
        return {
            "documents": results,
            "models": {one: names[one] for one in sorted({*spoken})},
        }

    def entities(
        self, ctx: Context, documents: Sequence[str], languages: Sequence[str]
    ) -> Iterator[Entities | Exception]:
        """Yields what was found in one document after the other, or what went wrong with it.

        Short documents share a batch with their neighbours of the same language.
        """
        pieces = (piece for number, text in enumerate(documents) for piece in cut(number, text))
        held: Entities | Exception = []
        for group in batches(pieces):
            outcomes: list[Entities | Exception] = [[] for _ in group]
            for language in sorted({languages[piece.document] for piece in group}):
                ctx.check()
                places = [i for i, p in enumerate(group) if languages[p.document] == language]
                nlp = self.pipelines.loaded[language]
                for place, outcome in zip(
                    places, read(nlp, [group[place] for place in places]), strict=True
                ):
                    outcomes[place] = outcome
            for piece, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Exception) or isinstance(held, Exception):
                    held = held if isinstance(held, Exception) else outcome
                else:
                    held.extend(outcome)
                if piece.last:
                    yield held
                    held = []


def read(nlp: Language, pieces: Sequence[Piece]) -> list[Entities | Exception]:
    """Runs a pipeline over pieces at once, or one by one when that fails."""
    # Without the zone every new word would stay in the vocabulary for the process's life.
    with nlp.memory_zone():
        try:
            docs = nlp.pipe([piece.text for piece in pieces], batch_size=len(pieces))
            return [named(doc, piece) for piece, doc in zip(pieces, docs, strict=True)]
        except (MemoryError, TransientFailure):
            raise
        except Exception as error:
            if len(pieces) == 1:
                return [error]
    return [outcome for piece in pieces for outcome in read(nlp, [piece])]


def named(doc: Doc, piece: Piece) -> Entities:
    """Lists the entities of a piece by their places in its document, in code points.

    Raises `ValueError` when a place does not hold the entity's text, which no caller could repair.
    """
    entities = []
    for entity in doc.ents:
        label = LABELS.get(entity.label_.upper())
        if label is None:
            continue
        if piece.text[entity.start_char : entity.end_char] != entity.text:
            raise ValueError(f"an entity is not at its place {entity.start_char} of the text")
        start, end = piece.start + entity.start_char, piece.start + entity.end_char
        entities.append({"text": entity.text, "label": label, "start": start, "end": end})
    return entities
