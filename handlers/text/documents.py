"""One answer per document of a request: its language, its result, or what went wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from runner import Context, InputRejected, TransientFailure
from runner.language import ANY, detect

S = TypeVar("S")
T = TypeVar("T")

Work = Callable[[str, str], Mapping[str, Any]]


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
        if self._failures and not results:
            raise self._failures[min(self._failures)]
        return results

    def errors(self) -> dict[int, dict[str, Any]]:
        """Return what a caller sees of the documents that failed, by their numbers."""
        return {number: {"error": problem(error)} for number, error in self._failures.items()}


def answer(
    ctx: Context, step: str, documents: Sequence[str], language: str, offered: Sequence[str],
    work: Work,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return `work(document, language)` for each document, in order, each with its `language`.

    It all happens in one step, which shows one unit of progress per document; what becomes of a
    document on which `work` fails is said by `Apart`.
    """
    spoken: dict[int, str] = {}

    def one(number: int, document: str) -> Mapping[str, Any]:
        spoken[number] = detect(document, offered) if language == ANY else language
        return work(document, spoken[number])

    apart = Apart(ctx)
    results = {**apart.run(step, dict(enumerate(documents)), one), **apart.errors()}
    return [{"language": tongue, **results[number]} for number, tongue in spoken.items()]


def problem(error: Exception) -> dict[str, str]:
    """Return what a caller sees of a document's failure; never a word of the document."""
    if isinstance(error, InputRejected):
        return {"code": error.code, "detail": error.detail}
    detail = f"The service failed on this document ({type(error).__name__})."
    return {"code": "document_failed", "detail": detail}
