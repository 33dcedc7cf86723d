"""The paths of an OpenAPI document that are the same whatever services there are."""

from __future__ import annotations

from collections.abc import Sequence

from runner import errors
from runner.components import (
    HEALTH,
    JSON,
    LAST_EVENT_ID,
    PREFER,
    RETRY_AFTER,
    STATES,
    STREAM,
    TEXT,
    WAIT,
    answer,
    get,
    header,
    json_content,
    nullable,
    path_parameter,
    problems,
    query,
    ref,
)
from runner.submit_paths import HEADERS, REFUSALS, TERMS

MOST_PARTS = 32

PARTS: JSON = {
    "type": "object",
    "required": ["parts"],
    "additionalProperties": False,
    "properties": {
        "parts": {
            "description": "What is asked for, each part under a name of your choice.",
            "type": "object",
            "minProperties": 1,
            "maxProperties": MOST_PARTS,
            "propertyNames": {"pattern": "^[A-Za-z0-9_-]{1,64}$"},
            "additionalProperties": {
                "type": "object",
                "required": ["input"],
                "additionalProperties": False,
                "properties": {
                    "service": {
                        "type": "string",
                        "description": "The name of a service; default: the name of the part.",
                    },
                    "input": {
                        "type": "object",
                        "description": "An input of that service, as its own path takes it.",
                    },
                },
            },
        }
    },
}
"""The schema of a request to several services at once."""


def service_paths() -> JSON:
    """Return the orchestrator's paths about services."""
    services = {
        "services": {"type": "array", "items": ref("Service")},
        "quarantined": {"type": "array", "items": ref("Worker")},
    }
    return {
        "/v1/services": get(
            "listServices",
            "The services that are or were lately alive",
            answer({"type": "object", "required": ["services"], "properties": services}),
            "services",
        ),
        "/v1/services/{name}": {
            "parameters": [path_parameter("name", "The name of a service.")],
            **get(
                "getService",
                "One service, its workers and its manifest",
                {**answer(ref("Service")), **problems(errors.ServiceUnknown)},
                "services",
            ),
        },
        "/list-services": get(
            "listServicesByType",
            "The living services by type, in the shape LinTO's clients know",
            answer({"type": "object", "additionalProperties": {"type": "array"}}),
            "services",
        ),
    }


def job_paths(options: Sequence[JSON] = ()) -> JSON:
    """Return the orchestrator's paths about jobs; `options` are more of what a submit may say."""
    job_id = path_parameter("id", "The id of a job.")
    job = {
        "200": {
            "description": "The job.",
            "headers": {
                "ETag": header("string", "Changes when the job does."),
                "Retry-After": RETRY_AFTER,
            },
            "content": json_content(ref("Job")),
        },
        **problems(errors.BadRequest, errors.JobUnknown, errors.StoreUnavailable),
    }
    stream = {"schema": {"description": STREAM}}  # a text; or an event, as some readers take it
    jobs = {
        "jobs": {"type": "array", "items": ref("Job")},
        "next_cursor": nullable("string", "The `cursor` of the next page, if there is one."),
    }
    return {
        "/v1/jobs": {
            "post": _create_parts(options),
            **get(
                "listJobs",
                "The jobs, newest first",
                {
                    **answer({"type": "object", "required": list(jobs), "properties": jobs}),
                    **problems(errors.BadRequest, errors.StoreUnavailable),
                },
                "jobs",
                parameters=[
                    query(
                        "limit",
                        {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
                        "Jobs in one page.",
                    ),
                    query("cursor", {"type": "string"}, "The `next_cursor` of the page before."),
                    query("status", {"enum": list(STATES)}, "Only jobs in this state."),
                    query("reason", {"type": "string"}, "Only jobs that ended by this code."),
                    query(
                        "service",
                        {"type": "string"},
                        "Only jobs of this service, among them those that are parts of others.",
                    ),
                ],
            ),
        },
        "/v1/jobs/{id}": {
            "parameters": [job_id],
            **get("getJob", "A job and where it stands", job, "jobs", parameters=[WAIT]),
            "delete": {
                "operationId": "eraseJob",
                "tags": ["jobs"],
                "summary": "Erase a job with its input and result; an unfinished one is canceled",
                "responses": {
                    "204": {"description": "Nothing is left of the job."},
                    **problems(errors.JobUnknown, errors.PartOfJob, errors.StoreUnavailable),
                },
            },
        },
        "/v1/jobs/{id}/result": {
            "parameters": [job_id],
            **get(
                "getResult",
                "The output of a job that succeeded, or of the parts that did",
                {
                    **answer(
                        {"type": "object"},
                        "The output, as the service's schema says; that of a composite job has "
                        "`parts`, each with `service`, `status`, `output` and `error`.",
                    ),
                    **problems(
                        errors.JobUnknown,
                        errors.ResultNotReady,
                        errors.JobFailed,
                        errors.ResultGone,
                        errors.StoreUnavailable,
                    ),
                },
                "jobs",
            ),
        },
        "/v1/jobs/{id}/events": {
            "parameters": [job_id],
            **get(
                "followJob",
                "Steps, progress and log lines of a job as they happen",
                {
                    "200": {
                        "description": "Server-Sent Events, or one JSON object a line.",
                        "content": {"text/event-stream": stream, "application/x-ndjson": stream},
                    },
                    **problems(errors.BadRequest, errors.JobUnknown, errors.StoreUnavailable),
                },
                "jobs",
                parameters=[LAST_EVENT_ID],
            ),
        },
        "/v1/jobs/{id}/cancel": {
            "parameters": [job_id],
            "post": {
                "operationId": "cancelJob",
                "tags": ["jobs"],
                "summary": "Ask for a job to be canceled",
                "responses": {
                    **answer(ref("Job"), "The job is canceled."),
                    "202": {
                        "description": "The job runs, and will stop at its next checkpoint.",
                        "content": json_content(ref("Job")),
                    },
                    **problems(errors.JobUnknown, errors.JobFinished, errors.StoreUnavailable),
                },
            },
        },
        "/status/{id}": {
            "parameters": [job_id],
            **get("getStatus", "The same as /v1/jobs/{id}", job, "jobs", parameters=[WAIT]),
        },
    }


def _create_parts(options: Sequence[JSON]) -> JSON:
    example = {
        "parts": {
            "names": {"service": "ner", "input": {"documents": ["Ada lives in Paris."]}},
            "keyword-extraction": {"input": {"documents": ["Ada lives in Paris."]}},
        }
    }
    headers = {**HEADERS, "Retry-After": RETRY_AFTER}
    return {
        "operationId": "createCompositeJob",
        "tags": ["jobs"],
        "summary": "Ask several services at once: one job, its parts side by side",
        "description": "The parts run in parallel, each as a job of its own. The whole ends with "
        "the last of them; it has failed if one has, and its result holds what the others gave.",
        "parameters": [PREFER, *TERMS, *options],
        "requestBody": {
            "required": True,
            "content": json_content(PARTS, {"two": {"summary": "Two services", "value": example}}),
        },
        "responses": {
            **answer(ref("Job"), "The job ended while its caller waited."),
            "202": {
                "description": "The job is kept.",
                "headers": headers,
                "content": json_content(ref("Job")),
            },
            **problems(*REFUSALS, errors.WebhookRefused),
        },
    }


def operations() -> JSON:
    """Return the paths that every HTTP server has for its operator."""
    metrics = {"200": {"description": "Prometheus text.", "content": TEXT}}
    return {
        "/livez": get(
            "livez", "Whether the process is alive", answer({"type": "object"}), "operations"
        ),
        "/readyz": health("readyz", "Whether it can take work now"),
        "/metrics": get("metrics", "Measurements for Prometheus", metrics, "operations"),
        "/openapi.json": get("openapi", "This document", answer({"type": "object"}), "operations"),
    }


def health(operation: str, summary: str) -> JSON:
    """Return a path that says whether requests are taken now."""
    unready = {
        "description": "Not now; `status` says why.",
        "headers": {"Retry-After": RETRY_AFTER},
        "content": json_content(HEALTH),
    }
    return get(operation, summary, {**answer(HEALTH, "Yes."), "503": unready}, "operations")
