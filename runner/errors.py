"""Every failure the system raises: its code, HTTP status and sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong at one place.

    `pointer` is a JSON Pointer (RFC 6901) into the value at fault; `file` and `line` say where a
    person wrote it, when a person did.
    """

    pointer: str
    code: str
    message: str
    expected: Any = None
    got: Any = None
    file: str | None = None
    line: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the problem as a JSON object without its empty fields."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        where = f"{self.file}, line {self.line}: " if self.line else ""
        where = where or (f"{self.file}: " if self.file else "")
        found = f", found {_plain(self.got)}" if self.got is not None else ""
        return f"{where}{self.sentence}{found}"

    @property
    def sentence(self) -> str:
        """What is wrong and what was expected, without a word of the value itself."""
        expected = f"; expected {_plain(self.expected)}" if self.expected is not None else ""
        place = f"`{self.pointer}` " if self.pointer else ""
        return f"{place}{self.message}{expected}"


class RunnerError(Exception):
    """A failure with a stable `code`, an HTTP `status` and a sentence for the person who meets it.

    `retry_after` is in seconds, for clients that should come back.
    """

    code = "internal"
    status = 500
    title = "Something went wrong inside nlp-runner"

    def __init__(
        self,
        detail: str = "",
        *,
        problems: Sequence[Problem] = (),
        retry_after: int | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.problems = tuple(problems)
        self.retry_after = retry_after
        self.extensions = extensions

    def to_problem(self, instance: str | None = None) -> dict[str, Any]:
        """Return the failure as an RFC 9457 problem document."""
        document: dict[str, Any] = {
            "type": f"urn:nlp-runner:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if instance:
            document["instance"] = instance
        if self.problems:
            document["errors"] = [problem.to_json() for problem in self.problems]
        return {**document, **self.extensions}


# --- what a caller can get wrong -----------------------------------------------------------------


class MalformedJson(RunnerError):
    code, status, title = "malformed_json", 400, "The body is not JSON"


class BadRequest(RunnerError):
    code, status, title = "bad_request", 400, "The request has a wrong parameter"


class Unauthenticated(RunnerError):
    code, status, title = "unauthenticated", 401, "This needs a key that is known here"


class Forbidden(RunnerError):
    code, status, title = "forbidden", 403, "This key does not allow that"


class NotFound(RunnerError):
    code, status, title = "not_found", 404, "There is nothing at this address"


class ServiceUnknown(RunnerError):
    code, status, title = "service_unknown", 404, "No such service"


class JobUnknown(RunnerError):
    code, status, title = "job_unknown", 404, "No such job"


class WebhookUnknown(RunnerError):
    code, status, title = "webhook_unknown", 404, "No such webhook of this job"


class MethodNotAllowed(RunnerError):
    code, status, title = "method_not_allowed", 405, "This address does not answer that method"


class PayloadTooLarge(RunnerError):
    code, status, title = "payload_too_large", 413, "The body is larger than this service takes"


class UnsupportedMediaType(RunnerError):
    code, status, title = "unsupported_media_type", 415, "The body must be application/json"


class InputInvalid(RunnerError):
    code, status, title = "input_invalid", 422, "The input does not match the service's schema"


class WebhookRefused(RunnerError):
    code, status, title = "webhook_refused", 422, "The webhook that was asked for is not sent"


class InputRejected(RunnerError):
    """Raised by a handler that cannot work on this input, in words for the caller; no retry."""

    code, status, title = "input_rejected", 422, "The service cannot work on this input"


class IdempotencyMismatch(RunnerError):
    code, status, title = "idempotency_mismatch", 422, "The key belongs to another request"


class DeadlineUnreachable(RunnerError):
    code, status, title = "deadline_unreachable", 422, "The job would not end before its deadline"


# --- what a job can answer instead of a result ---------------------------------------------------


class ResultNotReady(RunnerError):
    code, status, title = "result_not_ready", 409, "The job has not finished yet"


class JobFailed(RunnerError):
    code, status, title = "job_failed", 409, "The job has no result because it did not succeed"


class JobFinished(RunnerError):
    code, status, title = "job_finished", 409, "The job has already finished"


class RequestInFlight(RunnerError):
    code, status, title = "request_in_flight", 409, "The first request of this key is not done yet"


class JobUnfinished(RunnerError):
    code, status, title = "job_unfinished", 409, "The job has not finished, so it cannot run again"


class PartOfJob(RunnerError):
    code, status, title = "part_of_job", 409, "The job is a part of another one"


class ResultGone(RunnerError):
    code, status, title = "result_gone", 410, "The result is no longer kept"


class JobErased(RunnerError):
    code, status, title = "job_erased", 410, "The job of this key has been erased"


# --- what an execution can end with (`reason` of a failed job) -----------------------------------


class HandlerFailed(RunnerError):
    code, status, title = "handler_error", 500, "The handler raised an error"


class OutputInvalid(RunnerError):
    code, status, title = "output_invalid", 500, "The handler broke its own output schema"


class OutOfMemory(RunnerError):
    code, status, title = "out_of_memory", 500, "The handler ran out of memory"


class TimedOut(RunnerError):
    code, status, title = "timed_out", 504, "The execution took longer than it may"


class Canceled(RunnerError):
    code, status, title = "canceled_by_user", 409, "The execution was canceled"


class TransientFailure(RunnerError):
    """Raised by a handler for a failure that another attempt may not meet; the job is retried."""

    code, status, title = "transient", 503, "The handler met a failure that may pass"


class Interrupted(RunnerError):
    code, status, title = "interrupted", 503, "The worker was stopped while it worked on the job"


class WorkerLost(RunnerError):
    code, status, title = "worker_lost", 500, "The worker's process died while it worked on the job"


class Poisoned(RunnerError):
    code, status, title = "poisoned", 500, "The job took its worker's process down too often"


class PartFailed(RunnerError):
    code, status, title = "part_failed", 500, "A part of the composite job failed"


class Expired(RunnerError):
    code, status, title = "expired", 504, "The job waited longer than it may and never started"


class DeadlineExceeded(RunnerError):
    code, status, title = "deadline_exceeded", 504, "The job had not ended at its deadline"


RETRYABLE = frozenset({TransientFailure.code, Interrupted.code, WorkerLost.code})
"""Codes of failures that another attempt may not meet."""


# --- what the platform can lack ------------------------------------------------------------------


class NoWorker(RunnerError):
    code, status, title = "no_worker", 503, "No living worker serves this"


class NotReady(RunnerError):
    code, status, title = "not_ready", 503, "Not ready to work yet"


class Busy(RunnerError):
    code, status, title = "busy", 503, "Every slot is busy and the waiting line is full"


class QueueFull(RunnerError):
    code, status, title = "queue_full", 503, "The queue of this service is full"


class StoreUnavailable(RunnerError):
    code, status, title = "store_unavailable", 503, "The database does not answer"


class BrokerUnavailable(RunnerError):
    code, status, title = "broker_unavailable", 503, "Redis does not answer"


# --- what an author or an operator can get wrong -------------------------------------------------


class ManifestInvalid(RunnerError):
    """A manifest that cannot be used; its problems carry file and line."""

    code, title = "manifest_invalid", "The manifest is not valid"

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems) or self.detail


class HandlerInvalid(RunnerError):
    code, title = "handler_invalid", "The handler cannot be used"


class SettingInvalid(RunnerError):
    code, title = "setting_invalid", "A setting has a wrong value"


class Unavailable(RunnerError):
    """Something a command needs is not there: a port, a server, a program."""

    code, status, title = "unavailable", 503, "Something this command needs is not there"


class Stopped(BaseException):
    """Ends a handler at a checkpoint because its job was canceled or its time is up.

    It derives from `BaseException` so that a handler's `except Exception` does not swallow it.
    """

    def __init__(self, error: RunnerError) -> None:
        super().__init__(error.detail)
        self.error = error


def summary(problems: Sequence[Problem], what: str) -> str:
    """Say in one sentence what is wrong with a value, by its first problem."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    first, place = replace(problems[0], pointer="").sentence, problems[0].pointer
    where = f"`{place}` of {what}" if place else what[0].upper() + what[1:]
    return f"{where} {first}{more}."


def _plain(value: Any) -> str:
    """Write a value into a sentence: alternatives with `or`, and never more than a line of it."""
    text = " or ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 300 else text[:297] + "..."
