"""Manifests to OpenAPI 3.1 documents: pure functions that both HTTP servers use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from runner import errors
from runner.errors import RunnerError
from runner.manifest import Manifest
from runner.schema import closed, pointer

JSON = dict[str, Any]
Services = Sequence[tuple[Manifest, bool]]
"""Manifests, each with whether somebody serves it now."""

STATES = ("queued", "running", "succeeded", "failed", "canceled")
STEP_STATES = ("pending", "running", "succeeded", "failed", "skipped", "canceled")

NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose members are schemas under names of the author's, not keywords."""

PLAIN_VALUES = ("default", "examples", "example", "const", "enum")
"""Keywords that hold values, in which `$ref` is only a word."""


# --- the two documents ---------------------------------------------------------------------------


def of_service(manifest: Manifest, version: str) -> JSON:
    """Return the OpenAPI document of one service's own HTTP door; `version` is the runner's."""
    return {
        **_head(manifest.name, manifest.version, manifest.summary, manifest.description, version),
        "x-manifest-digest": manifest.digest,
        "tags": [_tag(manifest), OPERATIONS],
        "paths": {
            "/run": {"post": _run(manifest)},
            "/manifest": _get(
                "getManifest", "The manifest and its digest", _answer(MANIFEST), manifest.name
            ),
            **_operations(),
        },
        "components": {"schemas": {"Problem": PROBLEM, **_schemas(manifest)}},
    }


def of_platform(services: Services, version: str) -> JSON:
    """Return the OpenAPI document of the orchestrator.

    A service that nobody serves now keeps its path, marked, because its callers know it.
    """
    schemas = {"Problem": PROBLEM, "Progress": PROGRESS, "Job": JOB, "Service": SERVICE}
    paths = {}
    for manifest, available in services:
        paths[f"/v1/services/{manifest.name}/jobs"] = {"post": _create_job(manifest, available)}
        schemas |= _schemas(manifest) | {f"{_title(manifest)}Job": _answered_job(manifest)}
    return {
        **_head("nlp-runner", version, "Language services and their jobs", PLATFORM, version),
        "tags": [*(_tag(manifest) for manifest, _ in services), *PLATFORM_TAGS, OPERATIONS],
        "paths": {
            **paths,
            **_service_paths(),
            **_job_paths(),
            "/healthz": _health("healthz", "The same as /readyz"),
            **_operations(),
        },
        "components": {"schemas": schemas},
    }


def _head(title: str, version: str, summary: str, description: str, runner: str) -> JSON:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "summary": summary,
            **({"description": description} if description else {}),
            "x-runner-version": runner,
        },
    }


def _tag(manifest: Manifest) -> JSON:
    return {"name": manifest.name, "description": manifest.description or manifest.summary}


# --- what each service adds ----------------------------------------------------------------------


def _run(manifest: Manifest) -> JSON:
    output = _json_content(_ref(f"{_title(manifest)}Output"), _output_examples(manifest))
    stream = {"schema": {"type": "string", "description": STREAM}}
    return {
        "operationId": f"{_word(manifest)}_run",
        "tags": [manifest.name],
        "summary": manifest.summary,
        "description": RUN,
        "requestBody": _request_body(manifest),
        "responses": {
            "200": {
                "description": "The output, or the execution as it happens.",
                "headers": {"X-Job-Id": _header("string", "Names this execution.")},
                "content": {
                    **output,
                    "text/event-stream": stream,
                    "application/x-ndjson": stream,
                },
            },
            **_problems(
                errors.MalformedJson,
                errors.PayloadTooLarge,
                errors.UnsupportedMediaType,
                errors.InputInvalid,
                errors.InputRejected,
                errors.HandlerFailed,
                errors.OutputInvalid,
                errors.OutOfMemory,
                errors.Busy,
                errors.NotReady,
                errors.TransientFailure,
                errors.TimedOut,
            ),
        },
    }


def _create_job(manifest: Manifest, available: bool) -> JSON:
    job = _json_content(_ref(f"{_title(manifest)}Job"))
    headers = {
        "Location": _header("string", "Where the job is."),
        "Preference-Applied": _header("string", "What of `Prefer` was followed."),
    }
    return {
        "operationId": f"{_word(manifest)}_createJob",
        "tags": [manifest.name],
        "summary": manifest.summary if available else f"(unavailable now) {manifest.summary}",
        "description": CREATE_JOB,
        "x-manifest-digest": manifest.digest,
        "x-service-version": manifest.version,
        "x-available": available,
        "parameters": [PREFER],
        "requestBody": _request_body(manifest),
        "responses": {
            "200": {
                "description": "The job ended while the caller waited.",
                "headers": headers,
                "content": job,
            },
            "202": {
                "description": "The job is kept and will run.",
                "headers": {**headers, "Retry-After": RETRY_AFTER},
                "content": job,
            },
            **_problems(
                errors.MalformedJson,
                errors.BadRequest,
                errors.ServiceUnknown,
                errors.PayloadTooLarge,
                errors.UnsupportedMediaType,
                errors.InputInvalid,
                errors.NoWorker,
                errors.QueueFull,
                errors.StoreUnavailable,
            ),
        },
    }


def _answered_job(manifest: Manifest) -> JSON:
    output = {"output": _ref(f"{_title(manifest)}Output")}
    return {
        "description": "A job; with its output, when it succeeded while the caller waited.",
        "allOf": [_ref("Job"), {"type": "object", "properties": output}],
    }


def _request_body(manifest: Manifest) -> JSON:
    examples = {
        f"example{number}": {"summary": example.title, "value": example.input}
        for number, example in enumerate(manifest.examples, 1)
    }
    content = _json_content(_ref(f"{_title(manifest)}Input"), examples)
    return {"required": True, "content": content}


def _output_examples(manifest: Manifest) -> JSON:
    return {
        f"example{number}": {"summary": example.title, "value": example.output}
        for number, example in enumerate(manifest.examples, 1)
        if example.output is not None
    }


def _schemas(manifest: Manifest) -> JSON:
    """Return the components of one service, its local references led to their new place."""
    given = {"Input": manifest.input, "Output": manifest.output}
    return {
        f"{_title(manifest)}{side}": embedded(closed(schema), f"{_title(manifest)}{side}")
        for side, schema in given.items()
    }


def _title(manifest: Manifest) -> str:
    """Return the name in capitals, `KeywordExtraction`; no two services share one."""
    parts = manifest.name.split("-")
    return "".join(f"_{part}" if part[0].isdigit() else part.capitalize() for part in parts)


def _word(manifest: Manifest) -> str:
    return manifest.name.replace("-", "_")


# --- a schema in its new place -------------------------------------------------------------------


def embedded(schema: JSON, component: str) -> JSON:
    """Return a schema so that it means the same as the named component of a larger document.

    `#/$defs/x` becomes `#/components/schemas/<component>/$defs/x`; anchors and inner `$id`s, which
    few tools follow, become plain pointers too.
    """
    root = f"#/components/schemas/{component}"
    moved = _move(schema, root, root, dict(_anchors(schema, root, root)))
    assert isinstance(moved, dict)
    return moved


def _move(schema: Any, here: str, base: str, anchors: dict[tuple[str, str], str]) -> Any:
    """Copy the schema that now lies at `here`, in the resource whose root is at `base`."""
    if not isinstance(schema, dict):
        return schema
    base = _base(schema, here, base)
    moved: JSON = {}
    for key, value in schema.items():
        if key in ("$id", "$schema", "$anchor", "$dynamicAnchor"):
            continue
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            fragment = value.removeprefix("#")
            plain = not fragment or fragment.startswith("/")
            moved["$ref"] = base + fragment if plain else anchors.get((base, fragment), value)
        elif key in PLAIN_VALUES:
            moved[key] = value
        elif key in NAMED_SCHEMAS and isinstance(value, dict):
            moved[key] = {
                name: _move(one, here + pointer((key, name)), base, anchors)
                for name, one in value.items()
            }
        elif isinstance(value, list):
            moved[key] = [
                _move(one, here + pointer((key, index)), base, anchors)
                for index, one in enumerate(value)
            ]
        else:
            moved[key] = _move(value, here + pointer((key,)), base, anchors)
    return moved


def _anchors(schema: Any, here: str, base: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Find where each anchor of each resource now lies."""
    if not isinstance(schema, dict):
        return
    base = _base(schema, here, base)
    for key, value in schema.items():
        if key in ("$anchor", "$dynamicAnchor"):
            yield (base, value), here
        elif key in PLAIN_VALUES:
            continue
        elif key in NAMED_SCHEMAS and isinstance(value, dict):
            for name, one in value.items():
                yield from _anchors(one, here + pointer((key, name)), base)
        elif isinstance(value, list):
            for index, one in enumerate(value):
                yield from _anchors(one, here + pointer((key, index)), base)
        else:
            yield from _anchors(value, here + pointer((key,)), base)


def _base(schema: JSON, here: str, base: str) -> str:
    """Return where the references of this schema start: an `$id` begins a resource of its own."""
    return here if isinstance(schema.get("$id"), str) else base


# --- what the orchestrator has besides -----------------------------------------------------------


def _service_paths() -> JSON:
    services = {"services": {"type": "array", "items": _ref("Service")}}
    return {
        "/v1/services": _get(
            "listServices",
            "The services that are or were lately alive",
            _answer({"type": "object", "required": ["services"], "properties": services}),
            "services",
        ),
        "/v1/services/{name}": {
            "parameters": [_path_parameter("name", "The name of a service.")],
            **_get(
                "getService",
                "One service, its workers and its manifest",
                {**_answer(_ref("Service")), **_problems(errors.ServiceUnknown)},
                "services",
            ),
        },
        "/list-services": _get(
            "listServicesByType",
            "The living services by type, in the shape LinTO's clients know",
            _answer({"type": "object", "additionalProperties": {"type": "array"}}),
            "services",
        ),
    }


def _job_paths() -> JSON:
    job_id = _path_parameter("id", "The id of a job.")
    job = {
        "200": {
            "description": "The job.",
            "headers": {
                "ETag": _header("string", "Changes when the job does."),
                "Retry-After": RETRY_AFTER,
            },
            "content": _json_content(_ref("Job")),
        },
        **_problems(errors.JobUnknown, errors.StoreUnavailable),
    }
    stream = {"schema": {"type": "string", "description": STREAM}}
    jobs = {
        "jobs": {"type": "array", "items": _ref("Job")},
        "next_cursor": _nullable("string", "The `cursor` of the next page, if there is one."),
    }
    return {
        "/v1/jobs": _get(
            "listJobs",
            "The jobs, newest first",
            {
                **_answer({"type": "object", "required": list(jobs), "properties": jobs}),
                **_problems(errors.BadRequest, errors.StoreUnavailable),
            },
            "jobs",
            parameters=[
                _query(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
                    "Jobs in one page.",
                ),
                _query("cursor", {"type": "string"}, "The `next_cursor` of the page before."),
                _query("status", {"enum": list(STATES)}, "Only jobs in this state."),
                _query("service", {"type": "string"}, "Only jobs of this service."),
            ],
        ),
        "/v1/jobs/{id}": {
            "parameters": [job_id],
            **_get("getJob", "A job and where it stands", job, "jobs", parameters=[WAIT]),
            "delete": {
                "operationId": "eraseJob",
                "tags": ["jobs"],
                "summary": "Erase a job with its input and result; an unfinished one is canceled",
                "responses": {
                    "204": {"description": "Nothing is left of the job."},
                    **_problems(errors.JobUnknown, errors.StoreUnavailable),
                },
            },
        },
        "/v1/jobs/{id}/result": {
            "parameters": [job_id],
            **_get(
                "getResult",
                "The output of a job that succeeded",
                {
                    **_answer({"type": "object"}, "The output, as the service's schema says."),
                    **_problems(
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
            **_get(
                "followJob",
                "Steps, progress and log lines of a job as they happen",
                {
                    "200": {
                        "description": "Server-Sent Events, or one JSON object a line.",
                        "content": {"text/event-stream": stream, "application/x-ndjson": stream},
                    },
                    **_problems(errors.JobUnknown, errors.StoreUnavailable),
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
                    **_answer(_ref("Job"), "The job is canceled."),
                    "202": {
                        "description": "The job runs, and will stop at its next checkpoint.",
                        "content": _json_content(_ref("Job")),
                    },
                    **_problems(errors.JobUnknown, errors.JobFinished, errors.StoreUnavailable),
                },
            },
        },
        "/status/{id}": {
            "parameters": [job_id],
            **_get("getStatus", "The same as /v1/jobs/{id}", job, "jobs"),
        },
    }


# --- what every HTTP server has ------------------------------------------------------------------


def _operations() -> JSON:
    metrics = {"200": {"description": "Prometheus text.", "content": TEXT}}
    return {
        "/livez": _get(
            "livez", "Whether the process is alive", _answer({"type": "object"}), "operations"
        ),
        "/readyz": _health("readyz", "Whether it can take work now"),
        "/metrics": _get("metrics", "Measurements for Prometheus", metrics, "operations"),
        "/openapi.json": _get(
            "openapi", "This document", _answer({"type": "object"}), "operations"
        ),
    }


def _health(operation: str, summary: str) -> JSON:
    unready = {
        "description": "Not now; `status` says why.",
        "headers": {"Retry-After": RETRY_AFTER},
        "content": _json_content(HEALTH),
    }
    return _get(operation, summary, {**_answer(HEALTH, "Yes."), "503": unready}, "operations")


# --- small parts ---------------------------------------------------------------------------------


def _get(
    operation: str, summary: str, responses: JSON, tag: str, parameters: Sequence[JSON] = ()
) -> JSON:
    found: JSON = {"operationId": operation, "tags": [tag], "summary": summary}
    if parameters:
        found["parameters"] = list(parameters)
    return {"get": {**found, "responses": responses}}


def _answer(schema: JSON, description: str = "What was asked for.") -> JSON:
    return {"200": {"description": description, "content": _json_content(schema)}}


def _json_content(schema: JSON, examples: JSON | None = None) -> JSON:
    return {"application/json": {"schema": schema, **({"examples": examples} if examples else {})}}


def _problems(*kinds: type[RunnerError]) -> JSON:
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
                    "schema": _ref("Problem"),
                    "examples": {kind.code: {"value": kind().to_problem()} for kind in found},
                }
            },
        }
        for status, found in sorted(statuses.items())
    }


def _ref(component: str) -> JSON:
    return {"$ref": f"#/components/schemas/{component}"}


def _header(kind: str, description: str) -> JSON:
    return {"description": description, "schema": {"type": kind}}


def _query(name: str, schema: JSON, description: str) -> JSON:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _path_parameter(name: str, description: str) -> JSON:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }


def _nullable(kind: str, description: str) -> JSON:
    return {"type": [kind, "null"], "description": description}


def _moment(description: str) -> JSON:
    """Return the schema of a time: RFC 3339 in UTC with a Z."""
    return {"type": ["string", "null"], "format": "date-time", "description": description}


RETRY_AFTER = _header("integer", "Seconds to wait before asking again.")

TEXT = {"text/plain": {"schema": {"type": "string"}}}

WAIT = _query(
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
        "step": _nullable("string", "The step that runs now."),
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
                    "started_at": _moment("When it started."),
                    "finished_at": _moment("When it ended."),
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
        "service": {"type": "string"},
        "service_version": {"type": "string"},
        "manifest_digest": {
            "type": "string",
            "description": "The manifest that the input was checked against.",
        },
        "status": {"enum": list(STATES)},
        "reason": _nullable("string", "The code of what ended a failed or canceled job."),
        "progress": {"anyOf": [_ref("Progress"), {"type": "null"}]},
        "position": _nullable("integer", "Jobs of the service that stand before it."),
        "eta_seconds": _nullable("number", "Seconds until it ends, as an estimate."),
        "attempt": {"type": "integer", "description": "Which try this is, from 1."},
        "attempts": {"type": "integer", "description": "The most tries it may have."},
        "priority": {"type": "integer"},
        "created_at": _moment("When it was accepted."),
        "started_at": _moment("When its present or last attempt started."),
        "finished_at": _moment("When it ended."),
        "updated_at": _moment("When it last changed."),
        "expires_at": _moment("When it will be erased."),
        "cancel_requested_at": _moment("When somebody asked for it to be canceled."),
        "error": {"anyOf": [_ref("Problem"), {"type": "null"}]},
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
        "status": {"type": "string"},
        "reason": _nullable("string", "Why it is unavailable."),
        "slots": {"type": "integer", "description": "Jobs it can work on at a time."},
        "seen_at": _moment("When a worker of it was last seen."),
        "workers": {"type": "array", "items": {"type": "object"}},
        "manifest": {"type": "object"},
        "links": {"type": "object"},
    },
}

HEALTH: JSON = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string", "description": "`ready`, or what stands in the way."},
        "checks": {"type": "object", "description": "A line for each thing that is needed."},
    },
}

MANIFEST: JSON = {
    "type": "object",
    "required": ["digest", "manifest"],
    "properties": {"digest": {"type": "string"}, "manifest": {"type": "object"}},
}
