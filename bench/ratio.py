"""Two contestants measured in turns, and the ratios between them pair by pair."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

WARM_UP = 0.5
STARTING = 60.0
"""Seconds for all that is not measuring."""

Figures = Mapping[str, float]
"""What one measurement found: value by name and unit, such as `p50, ms`."""


class Contestant(NamedTuple):
    """Who is measured, and how; `measure` measures once: so many callers, so many seconds."""

    name: str
    measure: Callable[[int, float], Figures]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a contestant measured beside the floor, one pair a round."""

    title: str
    floor: str
    ours: str
    pairs: tuple[tuple[Figures, Figures], ...]

    @property
    def measures(self) -> list[str]:
        """The names that every measurement has."""
        first, *others = [figures for pair in self.pairs for figures in pair]
        return [name for name in first if all(name in other for other in others)]

    def ratios(self, measure: str) -> list[float]:
        """Return ours divided by the floor's of the same round, the smallest first."""
        return sorted(ours[measure] / floor[measure] for floor, ours in self.pairs)

    def medians(self, measure: str) -> tuple[float, float]:
        """Return the floor's median and ours."""
        floors, ours = ([pair[side][measure] for pair in self.pairs] for side in (0, 1))
        return statistics.median(floors), statistics.median(ours)

    def table(self) -> str:
        """Return the comparison as lines for a person."""
        rounds = f"{len(self.pairs)} round{'s' if len(self.pairs) > 1 else ''}"
        lines = [
            f"{self.title}, {rounds}",
            _line("", self.floor, self.ours, "ratio: min", "median", "max"),
        ]
        for measure in self.measures:
            ratios = self.ratios(measure)
            shown = (ratios[0], statistics.median(ratios), ratios[-1])
            medians = (_short(value) for value in self.medians(measure))
            lines.append(_line(measure, *medians, *(f"{ratio:.2f}" for ratio in shown)))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything that was measured, and the median ratios."""
        return {
            "title": self.title,
            "floor": self.floor,
            "ours": self.ours,
            "pairs": [[dict(floor), dict(ours)] for floor, ours in self.pairs],
            "ratios": {name: statistics.median(self.ratios(name)) for name in self.measures},
        }


def read_arguments(
    row: str, about: str | None, arguments: Sequence[str] | None,
    rounds: int, seconds: float, callers: str, numbers: list[int],
) -> argparse.Namespace:  # fmt: skip
    """Read what a row is told; the second line has its defaults, and its word for callers."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{row}", description=about)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="of one measurement")
    parser.add_argument(
        f"--{callers}", dest="numbers", metavar="NUMBER", type=int, nargs="+", default=numbers
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every measurement there")
    given = parser.parse_args(arguments)
    measurements = 2 * (given.rounds + 1) * len(given.numbers)
    given.longest = STARTING + 2 * measurements * max(1.0, given.seconds)
    return given


def compare(title: str, floor: Contestant, ours: Contestant, given: argparse.Namespace) -> None:
    """Measure the two in turns, floor first, so that both meet the same noise; print the tables.

    `title` has a place for the number of callers, and is their word in the singular.
    """
    comparisons = []
    for number in given.numbers:
        for one in (floor, ours):
            one.measure(number, WARM_UP)
        pairs = tuple(
            (floor.measure(number, given.seconds), ours.measure(number, given.seconds))
            for _ in range(given.rounds)
        )
        name = title.format(number) + ("s" if number > 1 else "")
        comparisons.append(Comparison(name, floor.name, ours.name, pairs))
        print(comparisons[-1].table(), end="\n\n", flush=True)
    if given.json:
        given.json.write_text(json.dumps([one.to_json() for one in comparisons], indent=1))


def _line(measure: str, floor: str, ours: str, low: str, middle: str, high: str) -> str:
    return f"  {measure:<16}{floor:>14}{ours:>14}{low:>14}{middle:>8}{high:>8}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
