"""Work in several steps on each document of a request, where one that fails harms no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from handlers.text.documents import problem
from runner import Context, TransientFailure

S = TypeVar("S")
T = TypeVar("T")


class Apart:
    """Runs one step after the other for all documents that have not failed so far."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._failures: dict[int, Exception] = {}

    def run(self, step: str, states: Mapping[int, S], work: Callable[[int, S], T]) -> dict[int, T]:
        """Return `work(number, state)` for the documents where it succeeds, by their numbers.

        When it fails for the last of them, the first failure of any step is raised. What another
        attempt may not meet, and a want of memory, are raised at once.
        """
        results: dict[int, T] = {}
        with self._ctx.step(step) as progress:
            for number, state in progress.track(states.items(), len(states)):
                try:
                    results[number] = work(number, state)
                except (MemoryError, TransientFailure):
                    raise
                except Exception as error:
                    self._ctx.log.warning("document %d failed: %s", number, type(error).__name__)
                    self._failures[number] = error
        if not results:
            raise self._failures[min(self._failures)]
        return results

    def errors(self) -> dict[int, dict[str, Any]]:
        """Return what a caller sees of the documents that failed, by their numbers."""
        return {number: {"error": problem(error)} for number, error in self._failures.items()}
