"""Finds people, places and organisations in English and French texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from handlers.ner import lexicon  # noqa: F401  (registers what the bundled model is made of)
from handlers.ner.pieces import batches, cut
from runner import Context, Service
from runner.language import ANY, detect

LANGUAGES = ("en", "fr")
BUNDLED = Path(__file__).parent / "model"
LABELS = {
    "PER": "PER", "PERS": "PER", "PERSON": "PER",
    "LOC": "LOC", "LOCATION": "LOC", "GPE": "LOC", "FAC": "LOC", "FACILITY": "LOC",
    "ORG": "ORG", "ORGANIZATION": "ORG", "ORGANISATION": "ORG",
}  # fmt: skip


class NamedEntities(Service):
    """Runs the bundled model, or any installed spaCy pipeline, over the documents of a request."""

    def __init__(self, config: SimpleNamespace) -> None:
        """Loads the pipeline; raises `ValueError` when it has no part that finds entities."""
        super().__init__(config)
        self.nlp = load(config.model)

    def __call__(
        self, ctx: Context, documents: Sequence[str], language: str = ANY
    ) -> Mapping[str, Any]:
        """Returns each document's language and its entities in the order of the text."""
        results = []
        with ctx.step("tag") as step:
            found = self.entities(ctx, documents)
            for document, entities in step.track(
                zip(documents, found, strict=True), total=len(documents)
            ):
                spoken = detect(document, LANGUAGES) if language == ANY else language
                results.append({"language": spoken, "entities": entities})
        return {"documents": results}

    def entities(self, ctx: Context, documents: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Yields the entities of one document after the other; short documents share a batch."""
        pieces = (piece for number, text in enumerate(documents) for piece in cut(number, text))
        entities: list[dict[str, Any]] = []
        for group in batches(pieces):
            ctx.check()
            # Without the zone every new word would stay in the vocabulary for the process's life.
            with self.nlp.memory_zone():
                docs = self.nlp.pipe([piece.text for piece in group], batch_size=len(group))
                spans = [named(doc, piece.start) for piece, doc in zip(group, docs, strict=True)]
            for piece, more in zip(group, spans, strict=True):
                entities.extend(more)
                if piece.last:
                    yield entities
                    entities = []


def named(doc: Doc, offset: int) -> list[dict[str, Any]]:
    """Lists the entities of a doc that starts at `offset` (code points) in its document."""
    return [
        {
            "text": entity.text,
            "label": LABELS[entity.label_.upper()],
            "start": offset + entity.start_char,
            "end": offset + entity.end_char,
        }
        for entity in doc.ents
        if entity.label_.upper() in LABELS
    ]


def load(model: str) -> Language:
    """Loads `bundled`, or the installed package or folder of the name given."""
    nlp = spacy.load(BUNDLED if model == "bundled" else model)
    if not any("doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names):
        raise ValueError(
            f"the spaCy pipeline {model!r} finds no entities: none of its parts "
            f"({', '.join(nlp.pipe_names) or 'it has none'}) sets doc.ents"
        )
    return nlp
