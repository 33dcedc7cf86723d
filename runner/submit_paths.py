"""How work is asked for and called off, in OpenAPI documents: headers, bulk, retry, receipt."""

from __future__ import annotations

from collections.abc import Sequence

from runner import errors
from runner.components import (
    JSON,
    PREFER,
    RETRY_AFTER,
    answer,
    header,
    json_content,
    moment,
    nullable,
    path_parameter,
    problems,
    query,
    ref,
)

MOST_INPUTS = 1000

BULK: JSON = {
    "type": "object",
    "required": ["inputs"],
    "additionalProperties": False,
    "properties": {
        "inputs": {
            "description": "Inputs of the service, each for a job of its own.",
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_INPUTS,
            "items": {"type": "object"},
        }
    },
}
"""The schema of a request for many jobs of one service."""

IDEMPOTENCY_KEY: JSON = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes the request happen once: sent again with the same key, it is answered "
    "with the same job and `Idempotent-Replayed: true`; another request with that key is refused. "
    "A key is known for 24 hours, and as long as its job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}

CANCEL_AFTER: JSON = {
    "name": "Cancel-After",
    "in": "header",
    "description": "The deadline of the whole job from now, in seconds or as `90s`, `5m`, `1h30m`. "
    "A job that has not ended then fails as `deadline_exceeded`; one that would not make it at the "
    "present rate is refused.",
    "schema": {"type": "string"},
}

CACHE_CONTROL: JSON = {
    "name": "Cache-Control",
    "in": "header",
    "description": "`no-cache` works anew though an equal input was answered before, `max-age=N` "
    "takes a result that is at most N seconds old, `no-store` also keeps this result from "
    "answering later requests (RFC 9111).",
    "schema": {"type": "string"},
}

PRIORITY: JSON = query(
    "priority",
    {"type": "integer", "minimum": 0, "maximum": 9, "default": 0},
    "What waits with a higher priority goes first.",
)

TERMS: tuple[JSON, ...] = (IDEMPOTENCY_KEY, CANCEL_AFTER, CACHE_CONTROL, PRIORITY)
"""What every request for work may say beside its body."""

HEADERS: JSON = {
    "Location": header("string", "Where the job is."),
    "Preference-Applied": header("string", "What of `Prefer` was followed."),
    "Idempotent-Replayed": header("string", "`true` where the key had been used for this before."),
    "Cache-Status": header("string", "`nlp-runner; hit` where an earlier result answers."),
}

REFUSALS: tuple[type[errors.RunnerError], ...] = (
    errors.MalformedJson,
    errors.BadRequest,
    errors.RequestInFlight,
    errors.JobErased,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
    errors.InputInvalid,
    errors.IdempotencyMismatch,
    errors.DeadlineUnreachable,
    errors.NoWorker,
    errors.QueueFull,
    errors.StoreUnavailable,
)
"""Why a request for work may be refused."""


CANCEL_ENDS = ("before_start", "at_checkpoint", "killed", "attempt_lost", "with_its_parts",
               "too_late")  # fmt: skip

CANCEL: JSON = {
    "description": "What became of a request to cancel it.",
    "type": "object",
    "properties": {
        "requested_at": moment("When."),
        "by": nullable("string", "Who asked."),
        "step": nullable("string", "The step at which it stopped, or is now."),
        "ended": {"enum": [*CANCEL_ENDS, None], "description": "How it ended, once it has."},
    },
}


def submit_paths(options: Sequence[JSON] = ()) -> JSON:
    """Return the paths under which jobs are asked for in bulk and again, with more `options`."""
    service = path_parameter("name", "The name of a service.")
    job = path_parameter("id", "The id of a finished job.")
    return {
        "/v1/services/{name}/jobs/bulk": {"parameters": [service], "post": _bulk(options)},
        "/v1/jobs/{id}/retry": {"parameters": [job], "post": _retry(options)},
    }


def _bulk(options: Sequence[JSON]) -> JSON:
    made: JSON = {
        "type": "object",
        "required": ["jobs"],
        "properties": {"jobs": {"type": "array", "items": ref("Job")}},
    }
    replayed = HEADERS["Idempotent-Replayed"]
    return {
        "operationId": "createJobs",
        "tags": ["jobs"],
        "summary": f"Ask one service up to {MOST_INPUTS} things: all become jobs, or none does",
        "parameters": [*TERMS, *options],
        "requestBody": {"required": True, "content": json_content(BULK)},
        "responses": {
            "202": {
                "description": "The jobs are kept, in the order of their inputs.",
                "headers": {"Retry-After": RETRY_AFTER, "Idempotent-Replayed": replayed},
                "content": json_content(made),
            },
            **problems(errors.ServiceUnknown, *REFUSALS, errors.WebhookRefused),
        },
    }


def _retry(options: Sequence[JSON]) -> JSON:
    return {
        "operationId": "retryJob",
        "tags": ["jobs"],
        "summary": "Ask again for what a finished job was asked: a new job from the kept input",
        "description": "The new job names the old one as `retry_of` and is checked against the "
        "manifest that is served now. Of a composite job, the parts that succeeded are not worked "
        "on again.",
        "parameters": [PREFER, *TERMS, *options],
        "responses": {
            **answer(ref("Job"), "The job ended while its caller waited."),
            "202": {
                "description": "The job is kept.",
                "headers": {**HEADERS, "Retry-After": RETRY_AFTER},
                "content": json_content(ref("Job")),
            },
            **problems(
                errors.JobUnknown,
                errors.ServiceUnknown,
                errors.JobUnfinished,
                *REFUSALS,
                errors.WebhookRefused,
            ),
        },
    }
