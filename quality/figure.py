"""One measured number: what was measured on which data, and the number it is held against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    `data` names the set and how many documents it has; `measure` the scorer's measure, `value` its
    result in the unit the field prints (F1 and ROUGE in percent for keyphrases and summaries, 0 to
    1 elsewhere). `bar` is the published or measured number to beat, `against` what reached it.
    `seen` says that the same data was used to choose or to train something.
    """

    service: str
    data: str
    measure: str
    value: float
    bar: float | None = None
    against: str = ""
    seen: bool = False
