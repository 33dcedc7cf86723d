"""Manifests to OpenAPI 3.1 documents: pure functions that both HTTP servers use."""

from __future__ import annotations

from collections.abc import Sequence

from runner import errors, webhook_paths
from runner.components import (
    CREATE_JOB,
    JOB,
    JSON,
    MANIFEST,
    OPERATIONS,
    PLATFORM,
    PLATFORM_TAGS,
    PREFER,
    PROBLEM,
    PROGRESS,
    RETRY_AFTER,
    RUN,
    SERVICE,
    STREAM,
    WORKER,
    answer,
    get,
    header,
    json_content,
    path_parameter,
    problems,
    ref,
)
from runner.linto import Linto
from runner.linto_paths import TAG as LINTO
from runner.linto_paths import linto_paths
from runner.manifest import Manifest
from runner.paths import health, job_paths, operations, service_paths
from runner.relocation import embedded
from runner.schema import closed
from runner.submit_paths import CANCEL, HEADERS, REFUSALS, TERMS, submit_paths

HEALTHCHECK: JSON = {
    "type": "object",
    "required": ["healthcheck"],
    "properties": {"healthcheck": {"type": "string", "description": "`OK`, or what is not."}},
}

EXECUTION = (
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
)
"""The failures of one execution over HTTP."""

Services = Sequence[tuple[Manifest, bool]]
"""Manifests, each with whether somebody serves it now."""

# --- the two documents ---------------------------------------------------------------------------


def of_service(manifest: Manifest, version: str) -> JSON:
    """Return the OpenAPI document of one service's own HTTP door; `version` is the runner's."""
    return {
        **_head(manifest.name, manifest.version, manifest.summary, manifest.description, version),
        "x-manifest-digest": manifest.digest,
        "tags": [_tag(manifest), OPERATIONS],
        "paths": {
            "/run": {"post": _run(manifest)},
            **_linto_run(manifest, manifest.linto),
            "/manifest": get(
                "getManifest", "The manifest and its digest", answer(MANIFEST), manifest.name
            ),
            **operations(),
            "/healthcheck": get(
                "healthcheck",
                "Whether it can take work now, for LinTO's callers",
                {**answer(HEALTHCHECK, "Yes."), "503": {"description": "Not now."}},
                "operations",
            ),
        },
        "components": {"schemas": {"Problem": PROBLEM, **_schemas(manifest)}},
    }


def of_platform(services: Services, version: str) -> JSON:
    """Return the OpenAPI document of the orchestrator.

    A service that nobody serves now keeps its path, marked, because its callers know it.
    """
    schemas = {"Problem": PROBLEM, "Progress": PROGRESS, "Job": JOB, "Service": SERVICE}
    schemas |= {"Worker": WORKER, "Cancel": CANCEL}
    paths = {}
    for manifest, available in services:
        paths[f"/v1/services/{manifest.name}/jobs"] = {"post": _create_job(manifest, available)}
        schemas |= _schemas(manifest) | {f"{_title(manifest)}Job": _answered_job(manifest)}
    return {
        **_head("nlp-runner", version, "Language services and their jobs", PLATFORM, version),
        "tags": [
            *(_tag(manifest) for manifest, _ in services),
            *PLATFORM_TAGS,
            LINTO,
            OPERATIONS,
        ],
        "paths": {
            **paths,
            **service_paths(),
            **job_paths(webhook_paths.OPTIONS),
            **submit_paths(webhook_paths.OPTIONS),
            **webhook_paths.webhook_paths(),
            **linto_paths(),
            "/healthz": health("healthz", "The same as /readyz"),
            **operations(),
        },
        "webhooks": webhook_paths.webhooks(),
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
    output = json_content(ref(f"{_title(manifest)}Output"), _output_examples(manifest))
    stream = {"schema": {"description": STREAM}}  # a text; or an event, as some readers take it
    return {
        "operationId": f"{_word(manifest)}_run",
        "tags": [manifest.name],
        "summary": manifest.summary,
        "description": RUN,
        "requestBody": _request_body(manifest),
        "responses": {
            "200": {
                "description": "The output, or the execution as it happens.",
                "headers": {"X-Job-Id": header("string", "Names this execution.")},
                "content": {
                    **output,
                    "text/event-stream": stream,
                    "application/x-ndjson": stream,
                },
            },
            **problems(*EXECUTION),
        },
    }


def _linto_run(manifest: Manifest, form: Linto | None) -> JSON:
    """Return the path under which LinTO's callers know the service, if they can call it."""
    if form is None:
        return {}
    known = {name: _linto_parameter(form, name) for name in [*form.parameters, *form.known]}
    parameters = {"type": "object", "properties": known}
    text = {"type": "string"}
    results = {"type": "array", "items": {"type": "object"}}
    if form.form == "articles":
        article = {"type": "object", "required": ["text"], "properties": {"text": text}}
        config = {"type": "object", "properties": {form.name: parameters}}
        request = {"articles": {"type": "array", "items": article}, "component_cfg": config}
        whole = {form.name: results, "warnings": {"type": "array", "items": text}}
        answered: JSON = {"type": "object", "required": [form.name], "properties": whole}
        lang = path_parameter("lang", "A language tag, such as `fr` or `fr_FR`; `*` for any.")
    else:
        request = {"documents": {"type": "array", "items": text}, "config": parameters}
        answered, lang = results, {}
    operation: JSON = {
        "operationId": f"{_word(manifest)}_linto",
        "tags": [manifest.name],
        "summary": f"{manifest.summary} (in LinTO's words)",
        "requestBody": {
            "required": True,
            "content": json_content({"type": "object", "properties": request}),
        },
        "responses": {
            "200": {
                "description": "A result for each text, in order.",
                "headers": {
                    "X-Job-Id": header("string", "Names this execution."),
                    "X-Warnings": header("string", "A JSON list, beside an answer without room."),
                },
                "content": json_content(answered),
            },
            **problems(*EXECUTION),
        },
    }
    return {form.route: {**({"parameters": [lang]} if lang else {}), "post": operation}}


def _linto_parameter(form: Linto, name: str) -> JSON:
    target = form.parameters.get(name, name)
    names = " and ".join(
        f"`{key}`" for key in ([target] if isinstance(target, str) else target or ())
    )
    told = f"Becomes {names}." if names else "Has no effect."
    return {
        "description": told,
        **({"default": form.defaults[name]} if name in form.defaults else {}),
    }


def _create_job(manifest: Manifest, available: bool) -> JSON:
    job = json_content(ref(f"{_title(manifest)}Job"))
    return {
        "operationId": f"{_word(manifest)}_createJob",
        "tags": [manifest.name],
        "summary": manifest.summary if available else f"(unavailable now) {manifest.summary}",
        "description": CREATE_JOB,
        "x-manifest-digest": manifest.digest,
        "x-service-version": manifest.version,
        "x-available": available,
        "parameters": [PREFER, *TERMS, *webhook_paths.OPTIONS],
        "requestBody": _request_body(manifest),
        "responses": {
            "200": {
                "description": "The job has ended: its caller waited, or a kept result answers.",
                "headers": HEADERS,
                "content": job,
            },
            "202": {
                "description": "The job is kept and will run.",
                "headers": {**HEADERS, "Retry-After": RETRY_AFTER},
                "content": job,
            },
            **problems(errors.ServiceUnknown, *REFUSALS, errors.WebhookRefused),
        },
    }


def _answered_job(manifest: Manifest) -> JSON:
    output = {"output": ref(f"{_title(manifest)}Output")}
    return {
        "description": "A job; with its output, when it succeeded while the caller waited.",
        "allOf": [ref("Job"), {"type": "object", "properties": output}],
    }


def _request_body(manifest: Manifest) -> JSON:
    examples = {
        f"example{number}": {"summary": example.title, "value": example.input}
        for number, example in enumerate(manifest.examples, 1)
    }
    content = json_content(ref(f"{_title(manifest)}Input"), examples)
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
