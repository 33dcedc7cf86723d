"""The paths that LinTO's clients call on the orchestrator, for its OpenAPI document."""

from __future__ import annotations

from runner import errors
from runner.components import JSON, TEXT, answer, get, json_content, path_parameter, problems
from runner.submit_paths import REFUSALS, TERMS

TAG = {"name": "linto", "description": "The calls of LinTO's NLP platform, kept for its clients."}

STEP: JSON = {
    "type": "object",
    "required": ["required"],
    "properties": {
        "required": {"type": "boolean"},
        "status": {"enum": ["pending", "started", "done", "failed"]},
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "service_name": {"type": "string"},
        "reason": {"type": "string"},
    },
}

STATE: JSON = {
    "type": "object",
    "required": ["state"],
    "properties": {
        "state": {"enum": ["pending", "started", "done", "failed"]},
        "steps": {"type": "object", "additionalProperties": STEP},
        "result_id": {"type": "string"},
        "reason": {"type": "string", "description": "Why it failed, or which part did."},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}

REQUEST: JSON = {
    "type": "object",
    "required": ["documents"],
    "properties": {
        "documents": {"type": "array", "items": {"type": "string"}},
        "nlpConfig": {
            "type": "object",
            "description": "One object for each type of service that should run, such as "
            "`keywordExtractionConfig`, with `enableKeywordExtraction`, `serviceName`, `method` "
            "and `methodConfig`. Without any, those run that LinTO runs by default.",
            "additionalProperties": {"type": ["object", "null"]},
        },
    },
}

FORM: JSON = {
    "type": "object",
    "required": ["documents"],
    "properties": {
        name: {"type": "string", "description": f"`{name}` as JSON."}
        for name in ("documents", "nlpConfig")
    },
}

EXAMPLE: JSON = {
    "documents": ["Marie Curie est née à Varsovie."],
    "nlpConfig": {"keywordExtractionConfig": {"method": "yake", "methodConfig": {"top_n": 5}}},
}


def linto_paths() -> JSON:
    """Return the paths of the LinTO contract."""
    job_id = path_parameter("id", "The `jobid` of POST /nlp, which is also its `result_id`.")
    gone = problems(errors.JobUnknown, errors.StoreUnavailable)
    return {
        "/nlp": {"post": _create()},
        "/job/{id}": {
            "parameters": [job_id],
            **get(
                "getLintoJob",
                "Where a job stands, with a step for each service",
                {
                    "201": _state("It is done; `result_id` leads to its results."),
                    "202": _state("It is pending or started."),
                    "404": _state("There is no such job."),
                    "409": _state("It was canceled."),
                    "500": _state("It failed; `reason` says why."),
                    **problems(errors.StoreUnavailable),
                },
                TAG["name"],
            ),
        },
        "/results/{id}": {
            "parameters": [job_id],
            **get(
                "getLintoResults",
                "What each service found, by its type",
                {
                    **answer({"type": "object", "additionalProperties": {"type": "array"}}),
                    **problems(errors.JobUnknown, errors.NotFound, errors.StoreUnavailable),
                },
                TAG["name"],
            ),
        },
        "/job-log/{id}": {
            "parameters": [job_id],
            **get("getLintoLog", "What a job went through, a line each", {**_text(), **gone},
                  TAG["name"]),
        },
        "/revoke/{id}": {
            "parameters": [job_id],
            **get("revokeLintoJob", "Cancel a job", {**_text(), **gone}, TAG["name"]),
        },
        "/healthcheck": get(
            "lintoHealthcheck",
            "Whether requests can be served",
            {**answer({"const": 1}), "503": {"description": "Not now."}},
            TAG["name"],
        ),
    }  # fmt: skip


def _create() -> JSON:
    made: JSON = {"type": "object", "required": ["jobid"], "properties": {
        "jobid": {"type": "string"},
        "warnings": {"type": "array", "items": {"type": "string"},
                     "description": "What was asked for and could not be followed."},
    }}  # fmt: skip
    content = {
        **json_content(REQUEST, {"keywords": {"value": EXAMPLE}}),
        "multipart/form-data": {"schema": FORM},
        "application/x-www-form-urlencoded": {"schema": FORM},
    }
    return {
        "operationId": "createLintoJob",
        "tags": [TAG["name"]],
        "summary": "Run one or several types of service on all documents",
        "description": "The types run side by side as parts of one job.",
        "parameters": list(TERMS),
        "requestBody": {"required": True, "content": content},
        "responses": {
            "201": {
                "description": "The job is kept. With `Accept: text/plain`, its bare id.",
                "content": {**json_content(made), **TEXT},
            },
            **problems(*REFUSALS),
        },
    }


def _state(description: str) -> JSON:
    return {"description": description, "content": json_content(STATE)}


def _text() -> JSON:
    return {"200": {"description": "Text.", "content": TEXT}}
