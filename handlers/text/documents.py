"""One answer per document of a request: its language, its result, or what went wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runner import Context, InputRejected, TransientFailure
from runner.language import ANY, detect

Work = Callable[[str, str], Mapping[str, Any]]


def answer(
    ctx: Context, step: str, documents: Sequence[str], language: str, offered: Sequence[str],
    work: Work,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return `work(document, language)` for each document, in order, each with its `language`.

    The named step is entered and shows one unit of progress per document. A document on which
    `work` fails has an `error` instead of a result, and its neighbours have theirs; when all of
    them fail, the first failure is raised. What another attempt may not meet, and a want of memory,
    are raised at once.
    """
    answers: list[dict[str, Any]] = []
    failures: list[Exception] = []
    with ctx.step(step) as progress:
        for number, document in enumerate(progress.track(documents)):
            spoken = detect(document, offered) if language == ANY else language
            try:
                result = work(document, spoken)
            except (MemoryError, TransientFailure):
                raise
            except Exception as error:
                ctx.log.warning("document %d failed: %s", number, type(error).__name__)
                failures.append(error)
                result = {"error": problem(error)}
            answers.append({"language": spoken, **result})
    if failures and len(failures) == len(documents):
        raise failures[0]
    return answers


def problem(error: Exception) -> dict[str, str]:
    """Return what a caller sees of a document's failure; never a word of the document."""
    if isinstance(error, InputRejected):
        return {"code": error.code, "detail": error.detail}
    detail = f"The service failed on this document ({type(error).__name__})."
    return {"code": "document_failed", "detail": detail}
