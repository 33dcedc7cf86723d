"""What a server carried while it was loaded."""

from __future__ import annotations

from dataclasses import dataclass

from bench.ratio import Figures


@dataclass(frozen=True, slots=True)
class Load:
    """So many answers in so many seconds, and their latencies in milliseconds."""

    answers: int
    seconds: float
    p50: float
    p99: float

    @classmethod
    def of(cls, latencies: list[float], seconds: float) -> Load:
        """Return the load of these answers, each with its latency in seconds."""
        ordered = sorted(latencies)
        p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        return cls(len(ordered), seconds, p50, p99)

    def figures(self, what: str, cpu_seconds: float) -> Figures:
        """Return the figures of a table; `what` names one answer, such as `request`.

        CPU time of 0 is one that nobody could tell, and is left out.
        """
        figures = {
            f"{what}s/s": self.answers / self.seconds,
            "p50, ms": self.p50,
            "p99, ms": self.p99,
        }
        if cpu_seconds > 0:
            figures[f"CPU ms/{what}"] = 1000 * cpu_seconds / self.answers
        return figures
