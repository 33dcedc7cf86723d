"""What kind of text a document is, and what its signs weigh there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from handlers.extractive_summarization.signs import Signs, of_speech, of_writing
from handlers.extractive_summarization.unit import Unit
from handlers.extractive_summarization.wording import SPEAKER, Wording


@dataclass(frozen=True, slots=True)
class Genre:
    """A way to see signs, and the weight of each: first the fitted ones, then those set by hand."""

    name: str
    see: Callable[..., Signs]
    fitted: Mapping[str, float]
    given: Mapping[str, float]

    @property
    def weights(self) -> Mapping[str, float]:
        """Return the weights of all signs that count."""
        return {**self.fitted, **self.given}


# `fit.py` makes these of the development sets of FREDSum (115 French debates; LINAGORA, CC BY-SA
# 4.0) and SciTLDR-A (619 English abstracts; Cachola et al. 2020, Apache-2.0). On documents that
# they were not fitted on they reach ROUGE-2 54.8 and 20.1. In debates, a fine for saying again what
# a chosen sentence says (MMR) costs up to 1 point; weights for a thousand single words bring 0.5.
SPEECH = Genre(
    name="speech",
    see=of_speech,
    fitted={
        "length": 0.88,
        "typical": 3.2,
        "density": 1.27,
        "demands": 0.76,
        "address": -0.2,
        "manners": -0.33,
        "closes": -0.34,
    },
    given={},
)
# No set with human extracts of news is at hand. `early` is set so that the first sentences of
# WikiNews win, which hold more of the articles' keyphrases than any other choice.
WRITING = Genre(
    name="writing",
    see=of_writing,
    fitted={
        "shared": 0.96,
        "first": 0.23,
        "announces": 0.22,
        "announces_first": 0.78,
        "proposes": 0.46,
        "authors": 0.22,
        "novelty": 0.37,
    },
    given={"early": 3.0, "heading": -2.0},
)


def spoken(units: Sequence[Unit], wording: Wording) -> bool:
    """Tell whether people speak: their names stand before what they say, or it is all I and you.

    A hundred words of the debates in FREDSum have at least 1.9 such pronouns, those of 95 abstracts
    in 100 less than 1.5, those of 49 articles in 50 of the French WikiNews less than 1.6.
    """
    words = sum(unit.size for unit in units)
    named = sum(SPEAKER.match(unit.plain) is not None for unit in units)
    voices = sum(len(wording.voices.findall(unit.plain.lower())) for unit in units)
    if words >= 100 and voices >= 0.018 * words:
        return True
    return named >= 2 and (voices >= 0.01 * words or named * 2 >= len(units))
