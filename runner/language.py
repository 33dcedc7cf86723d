"""Which offered language a request or a text means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

ANY = "*"
UNDETERMINED = "und"
SAMPLE = 3000
"""Characters of a text that are looked at: enough to be sure, about 4 ms of work."""

LONGEST_TAG = 255
TAG = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")

# The identifier was trained under the older or wider code of these languages.
TRAINED_AS = {"nb": "no", "fil": "tl", "cmn": "zh", "arb": "ar"}


def lookup(tag: str, offered: Sequence[str]) -> str | None:
    """Return the offered language that a BCP 47 tag asks for, spelled as it is offered.

    The tag is cut from its end until it matches (RFC 4647, section 3.4): `fr-FR` finds `fr`, but
    `fr` does not find `fr-CA`. An offered `*` accepts every well-formed tag and gives it back;
    an asked `*` stays `*`, which a handler reads as "detect it".
    """
    if tag == ANY:
        return ANY
    if len(tag) > LONGEST_TAG or not TAG.fullmatch(tag):
        return None
    spelled = {one.lower(): one for one in reversed(offered)}
    subtags = tag.lower().split("-")
    while subtags:
        found = spelled.get("-".join(subtags))
        if found is not None:
            return found
        subtags.pop()
        if subtags and len(subtags[-1]) == 1:  # a singleton means nothing without what follows
            subtags.pop()
    return tag if ANY in offered else None


def detect(text: str, offered: Sequence[str]) -> str:
    """Return the most probable of the offered languages for a text, spelled as it is offered.

    Looks at the first `SAMPLE` characters. The first offered language wins where the text tells
    nothing (it is empty, or has no words) and where several share a primary subtag (`fr-CA`,
    `fr-FR`). Among `*`, the answer is an ISO 639 code, or `und` where the text tells nothing.
    Raises `ValueError` when nothing is offered. Source: py3langid, Naive Bayes over byte n-grams.
    """
    if not offered:
        raise ValueError("`offered` names no language, expected one at least")
    named = [one for one in offered if one != ANY]
    if len(named) == len(offered) == 1:
        return named[0]
    silent = named[0] if named else UNDETERMINED
    scores = _scores(text.lstrip()[:SAMPLE])
    if not scores:
        return silent
    spelled = {_primary(one): one for one in reversed(named)}
    if ANY in offered:
        best = max(scores, key=scores.__getitem__)
        return spelled.get(best, best)
    known = [code for code in dict.fromkeys(map(_primary, named)) if code in scores]
    return spelled[max(known, key=scores.__getitem__)] if known else silent


def _primary(tag: str) -> str:
    """Return the identifier's code for a tag: `fr-CA` is `fr`."""
    code = tag.partition("-")[0].lower()
    return TRAINED_AS.get(code, code)


def _scores(text: str) -> dict[str, float]:
    """Return the log-probability of every language, or nothing when no feature was seen."""
    if not any(map(str.isalpha, text)):
        return {}
    scores = dict(_identifier().rank(text))
    scores.pop("zxx", None)  # "no linguistic content" is a class of the model, not a language
    return scores if len(set(scores.values())) > 1 else {}


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    """Load the model at first use: 0.8 s and 100 MB that most processes never need."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
