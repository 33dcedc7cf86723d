"""The parts that OpenAPI documents are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.errors import RunnerError

JSON = dict[str, Any]

STATES = ("queued", "running", "succeeded", "failed", "canceled")
STEP_STATES = ("pending", "running", "succeeded", "failed", "skipped", "canceled")


def get(
    operation: str, summary: str, responses: JSON, tag: str, parameters: Sequence[JSON] = ()
) -> JSON:
    """Return a path that answers GET."""
    found: JSON = {"operationId": operation, "tags": [tag], "summary": summary}
    if parameters:
        found["parameters"] = list(parameters)
    return {"get": {**found, "responses": responses}}


def answer(schema: JSON, description: str = "What was asked for.") -> JSON:
    """Return the responses of an operation that answers 200 with JSON."""
    return {"200": {"description": description, "content": json_content(schema)}}


def json_content(schema: JSON, examples: JSON | None = None) -> JSON:
    """Return the content of a body in JSON, with named examples."""
    return {"application/json": {"schema": schema, **({"examples": examples} if examples else {})}}


def problems(*kinds: type[RunnerError]) -> JSON:
    """Return one response for each status, which names the codes that answer with it."""
    statuses: dict[int, list[type[RunnerError]]] = {}
    for kind in kinds:
        statuses.setdefault(kind.status, []).append(kind)
    return {
        str(status): {
            "description": "\n".join(f"`{kind.code}`: {kind.title}.  " for kind in found),
            **({"headers": {"Retry-After": RETRY_AFTER}} if status == 503 else {}),
            "content": {
                "application/problem+json": {
                    "schema": ref("Problem"),
                    "examples": {kind.code: {"value": kind().to_problem()} for kind in found},
                }
            },
        }
        for status, found in sorted(statuses.items())
    }


def ref(component: str) -> JSON:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{component}"}


def header(kind: str, description: str) -> JSON:
    """Return a header of an answer."""
    return {"description": description, "schema": {"type": kind}}


def query(name: str, schema: JSON, description: str) -> JSON:
    """Return a parameter after the `?`."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def path_parameter(name: str, description: str) -> JSON:
    """Return a parameter in the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }


def nullable(kind: str, description: str) -> JSON:
    """Return the schema of a value that may be absent."""
    return {"type": [kind, "null"], "description": description}


def moment(description: str) -> JSON:
    """Return the schema of a time: RFC 3339 in UTC with a Z."""
    return {"type": ["string", "null"], "format": "date-time", "description": description}


RETRY_AFTER = header("integer", "Seconds to wait before asking again.")

TEXT = {"text/plain": {"schema": {"type": "string"}}}

WAIT = query(
    "wait",
    {"type": "number", "minimum": 0},
    "Seconds to wait for the job to end before answering; the server has a limit.",
)

PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N` answers when the job has ended, or after N seconds with 202; "
    "`respond-async` answers at once (RFC 7240).",
    "schema": {"type": "string"},
    "examples": {
        "wait": {"value": "wait=10"},
        "async": {"value": "respond-async"},
    },
}

LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event received; the events after it are told again.",
    "schema": {"type": "string"},
}

PLATFORM_TAGS = [
    {"name": "services", "description": "What can be asked for."},
    {"name": "jobs", "description": "What was asked for."},
]

OPERATIONS = {"name": "operations", "description": "Health, measurements, documentation."}

PLATFORM = """Send an input to a service, get a job, ask for its state and its result.

Each service below is described by its own manifest. Failures are problem documents (RFC 9457) with
a stable `code`; times are UTC. Services appear here while their workers live."""

RUN = """Answers with the output. With `Accept: text/event-stream` (or `application/x-ndjson`) the
same execution is told as it happens: `start`, `step`, `progress`, `log`, and finally `completed`
with the `status` and the `output` or the `error`. The execution ends when its client leaves."""

CREATE_JOB = """Keeps the job and answers with it. Follow `links.self` for its state, `links.result`
for its output, `links.events` for its progress as it happens."""

STREAM = "Events `start`, `step`, `progress`, `log`, and one `completed` at the end."

PROBLEM: JSON = {
    "description": "A failure (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The kind of failure, always the same words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What happened this time."},
        "code": {"type": "string", "description": "The kind of failure, for programs."},
        "instance": {"type": "string", "description": "The path that was asked for."},
        "request_id": {"type": "string", "description": "Finds this request in the logs."},
        "errors": {
            "type": "array",
            "description": "Each thing that is wrong with the input.",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "message"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "JSON Pointer (RFC 6901) into the input.",
                    },
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "expected": {},
                    "got": {},
                },
            },
        },
    },
}

PROGRESS: JSON = {
    "description": "How far a job is.",
    "type": "object",
    "required": ["percent", "step", "steps"],
    "properties": {
        "percent": {"type": "number", "minimum": 0, "maximum": 100},
        "step": nullable("string", "The step that runs now."),
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "title", "status"],
                "properties": {
                    "name": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"enum": list(STEP_STATES)},
                    "done": {"type": "number", "description": "Units finished."},
                    "total": {"type": "number", "description": "Units there are."},
                    "started_at": moment("When it started."),
                    "finished_at": moment("When it ended."),
                },
            },
        },
    },
}

JOB: JSON = {
    "description": "A request that was accepted, and where it stands.",
    "type": "object",
    "required": ["id", "service", "service_version", "manifest_digest", "status", "created_at",
                 "links"],
    "properties": {
        "id": {"type": "string"},
        "service": nullable("string", "Null for a composite job, whose parts have theirs."),
        "service_version": nullable("string", "The version that the input was checked against."),
        "manifest_digest": nullable("string", "The manifest that the input was checked against."),
        "parts": {
            "type": "object",
            "additionalProperties": ref("Job"),
            "description": "The parts of a composite job by their names.",
        },
        "parent": {"type": "string", "description": "The composite job that it is a part of."},
        "part": {"type": "string", "description": "Its name in that job."},
        "status": {"enum": list(STATES)},
        "reason": nullable("string", "The code of what ended a failed or canceled job."),
        "progress": {"anyOf": [ref("Progress"), {"type": "null"}]},
        "position": nullable("integer", "Jobs of the service that stand before it."),
        "eta_seconds": nullable("number", "Seconds until it ends, as an estimate."),
        "attempt": {"type": "integer", "description": "Which try this is, from 1."},
        "attempts": {"type": "integer", "description": "The most tries it may have."},
        "priority": {"type": "integer"},
        "created_at": moment("When it was accepted."),
        "started_at": moment("When its present or last attempt started."),
        "finished_at": moment("When it ended."),
        "updated_at": moment("When it last changed."),
        "expires_at": moment("When it will be erased; null keeps it."),
        "deadline_at": moment("When it fails unless it has ended."),
        "cancel_requested_at": moment("When somebody asked for it to be canceled."),
        "cancel": {"anyOf": [ref("Cancel"), {"type": "null"}]},
        "reused_from": nullable("string", "The earlier job whose result answers this one."),
        "retry_of": nullable("string", "The job whose input this one works on again."),
        "error": {"anyOf": [ref("Problem"), {"type": "null"}]},
        "links": {
            "type": "object",
            "properties": {
                name: {"type": "string", "format": "uri-reference"}
                for name in ("self", "result", "events", "cancel")
            },
        },
    },
}  # fmt: skip

SERVICE: JSON = {
    "description": "A service and its workers.",
    "type": "object",
    "required": ["name", "type", "version", "manifest_digest", "summary", "status"],
    "properties": {
        "name": {"type": "string"},
        "type": {"type": "string", "description": "The kind of work."},
        "version": {"type": "string"},
        "manifest_digest": {"type": "string"},
        "summary": {"type": "string"},
        "languages": {"type": "array", "items": {"type": "string"}},
        "status": {"enum": ["available", "starting", "draining", "unhealthy", "unavailable"]},
        "reason": nullable("string", "Why it is unavailable."),
        "slots": {"type": "integer", "description": "Jobs it can work on at a time."},
        "seen_at": moment("When a worker of it was last seen."),
        "warnings": {
            "type": "array",
            "description": "What its workers say about themselves, such as a fallback they use.",
            "items": {"type": "string"},
        },
        "workers": {"type": "array", "items": ref("Worker")},
        "manifest": {"type": "object"},
        "links": {"type": "object"},
    },
}

WORKER: JSON = {
    "description": "A living process that serves one manifest.",
    "type": "object",
    "required": ["instance", "service", "state", "version", "manifest_digest", "slots"],
    "properties": {
        "instance": {"type": "string"},
        "service": {"type": "string"},
        "state": {"enum": ["starting", "ready", "draining", "unhealthy", "quarantined"]},
        "version": {"type": "string"},
        "manifest_digest": {"type": "string"},
        "slots": {"type": "integer", "description": "Jobs it works on at a time."},
        "busy": {"type": "integer", "description": "Jobs it works on now."},
        "host": {"type": "string"},
        "started_at": moment("When it started."),
        "load_seconds": nullable("number", "How long loading its handler took."),
        "alias": nullable("string", "A second name of its service, for LinTO's clients."),
        "warnings": {"type": "array", "items": {"type": "string"}},
        "error": nullable("string", "Why it is not used."),
    },
}

HEALTH: JSON = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string", "description": "`ready`, or what stands in the way."},
        "checks": {"type": "object", "description": "A line for each thing that is needed."},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}

MANIFEST: JSON = {
    "type": "object",
    "required": ["digest", "manifest"],
    "properties": {"digest": {"type": "string"}, "manifest": {"type": "object"}},
}
