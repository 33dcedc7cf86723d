"""Tells what part of speech each word of an English or French text is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import pycrfsuite

from handlers.text.lexicon import FOLDER, Lexicon
from handlers.text.tokens import Token

KNOWN_WORDS = 50_000
"""Words whose features are kept between sentences: some 50 MB when full."""
EDGE = ("edge",)

Words = tuple[str, ...]


class Tagger:
    """A linear-chain conditional random field over words, endings, shapes and a word list.

    The tags are those of Universal Dependencies (NOUN, PROPN, ADJ, VERB, ...), with one exception:
    an English participle before its noun (`distributed systems`) is ADJ. Source: Lafferty, McCallum
    and Pereira, "Conditional Random Fields", ICML 2001; the engine is CRFsuite (Okazaki, 2007).
    """

    def __init__(self, language: str, lexicon: Lexicon) -> None:
        self._crf = pycrfsuite.Tagger()
        self._crf.open(str(FOLDER / f"{language}.pos.crfsuite"))
        self._features = Features(lexicon)

    def tag(self, tokens: Sequence[Token]) -> list[str]:
        """Return the tag of each token of a sentence, in time linear in their number."""
        return list(self._crf.tag(list(self._features.of([token.form for token in tokens]))))


class Features:
    """What the model sees of a token: the word itself and its neighbours."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._word = lru_cache(KNOWN_WORDS)(self._word_features)

    def of(self, forms: Sequence[str]) -> Iterator[list[str]]:
        """Yield the features of each token of a sentence."""
        shouted = not any(map(str.islower, forms)) and len(forms) > 1
        words = [self._word(form.lower() if shouted else form) for form in forms]
        last = len(forms) - 1
        titled = sum(form[:1].isupper() for form in forms) * 2 > len(forms) > 3
        style = "S" if shouted else "T" if titled else "n"
        for index, (own, _, shape) in enumerate(words):
            before = words[index - 1][1] if index else EDGE
            after = words[index + 1][1] if index < last else EDGE
            features = [*own, f"{style}{shape}{index == 0:d}"]
            features += [f"-1{one}" for one in before]
            features += [f"+1{one}" for one in after]
            features.append(f"-2{words[index - 2][1][-1] if index > 1 else 'edge'}")
            features.append(f"+2{words[index + 2][1][-1] if index < last - 1 else 'edge'}")
            features.append(f"<{before[0]}|{own[0]}")
            features.append(f">{own[0]}|{after[0]}")
            features.append(f"<>{before[-1]}|{after[-1]}")
            features.append(f"<c{before[-1]}|{own[-1]}")
            features.append(f"c>{own[-1]}|{after[-1]}")
            yield features

    def _word_features(self, form: str) -> tuple[Words, Words, str]:
        """Return what a word says of itself, what it says to its neighbours, and its shape."""
        low = form.lower()
        if form[0].isdigit():
            low = "".join("0" if letter.isdigit() else letter for letter in low)
        shape = outline(form)
        kinds = self._lexicon.classes.get(low) or self._lexicon.classes.get(stem(low))
        kinds = kinds or f"?{shape}{low[-2:]}"
        own = [f"w{low}"]
        own += [f"e{low[-size:]}" for size in (1, 2, 3, 4, 5) if len(low) > size]
        own += [f"b{low[:size]}" for size in (1, 2, 3) if len(low) > size]
        if "-" in low:
            tail = low.rpartition("-")[2]
            own.append(f"h{tail}")
            own.append(f"hk{self._lexicon.classes.get(tail, '?')}")
        own += [f"s{shape}", f"s{shape}{low[-3:]}", f"k{kinds}", f"k{kinds}{shape}"]
        own.append(f"K{kinds}")
        return tuple(own), (f"w{low}", f"e{low[-3:]}", f"s{shape}", f"k{kinds}"), shape


def stem(word: str) -> str:
    """Return a word without its regular plural."""
    return word[:-1] if len(word) > 3 and word[-1] in "sx" else word


def outline(form: str) -> str:
    """Return the case and the kind of a token in a letter or two."""
    if form.isalpha():
        if form.islower():
            return "x"
        if form.isupper():
            return "XX" if len(form) > 1 else "X"
        return "Xx" if form[0].isupper() and form[1:].islower() else "xX"
    if form[0].isdigit():
        return "0" if not any(map(str.isalpha, form)) else "0x"
    if not any(map(str.isalnum, form)):
        return "."
    return "X-" if form[0].isupper() else "x-"
