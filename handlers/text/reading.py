"""Reads documents: their sentences, words and parts of speech."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from handlers.text.lexicon import Lexicon, load
from handlers.text.lines import unwrap
from handlers.text.sentences import split
from handlers.text.tagger import Tagger
from handlers.text.tokens import Token, tokenize
from runner import Context

LONGEST_SENTENCE = 150
"""Tokens read together; a sentence with more is cut, which bounds memory and the time to a stop."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """The tokens of a sentence with their parts of speech, or without."""

    tokens: list[Token]
    tags: list[str]


class Reader:
    """The bundled models of some languages: 0.5 s and 60 MB for each, loaded once."""

    def __init__(self, languages: Iterable[str]) -> None:
        self.lexicons: dict[str, Lexicon] = {one: load(one) for one in languages}
        self._taggers = {one: Tagger(one, lexicon) for one, lexicon in self.lexicons.items()}

    def tagged(self, ctx: Context, document: str, language: str) -> Iterator[Sentence]:
        """Yield the sentences of a document with their tags, with a checkpoint before each."""
        tagger = self._taggers[language]
        for sentence in sentences(ctx, document, language):
            yield Sentence(sentence.tokens, tagger.tag(sentence.tokens))


def sentences(ctx: Context, document: str, language: str) -> Iterator[Sentence]:
    """Yield the sentences of a document without tags, with a checkpoint before each."""
    text = unwrap(document)
    for start, end in split(text, language):
        tokens = tokenize(text, start, end, language)
        while part := list(islice(tokens, LONGEST_SENTENCE)):
            ctx.check()
            yield Sentence(part, [])
