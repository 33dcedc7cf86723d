"""What the forms of one word share."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from sys import intern

import snowballstemmer

NAMES = {"en": "english", "fr": "french"}
KNOWN_STEMS = 50_000
"""Stems kept between documents, for each language: about 10 MB."""


def stemmer(language: str) -> Callable[[str], str]:
    """Return a function from a word, in any case, to its stem. Source: Porter, "Snowball", 2001."""
    stem = snowballstemmer.stemmer(NAMES[language]).stemWord
    return lru_cache(KNOWN_STEMS)(lambda word: intern(stem(word.lower())))
