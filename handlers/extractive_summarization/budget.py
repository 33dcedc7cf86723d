"""How much of a document a summary may take, and which of its units that gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handlers.extractive_summarization.unit import Unit


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `sentences` units or `words` words; a `ratio` of the units where neither is given.

    `use_first` takes the first unit before any other.
    """

    ratio: float
    sentences: int | None = None
    words: int | None = None
    use_first: bool = False

    def choose(self, units: Sequence[Unit], scores: Sequence[float]) -> list[int]:
        """Return the places of the chosen units in document order, no two of which say the same.

        Units are taken from the best on. One for which the words do not suffice is passed over,
        and the next ones are tried until less than a tenth of the words is left.
        """
        order = sorted(range(len(units)), key=lambda place: (-scores[place], place))
        if self.use_first and units:
            order.remove(0)
            order.insert(0, 0)
        most = self.sentences
        if most is None:
            most = len(units) if self.words else max(1, round(self.ratio * len(units)))
        room = sum(unit.size for unit in units) if self.words is None else self.words
        spare = 0 if self.words is None else self.words // 10
        kept: dict[str, int] = {}
        for place in order:
            if len(kept) == most:
                break
            unit = units[place]
            if unit.key in kept:
                continue
            if unit.size <= room:
                kept[unit.key] = place
                room -= unit.size
            elif room < spare:
                break
        return sorted(kept.values())
