"""The OpenAPI documents are valid, complete, and say the same as the manifests."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.routing import Route

from runner import manifest, openapi, web
from runner.manifest import Manifest
from runner.orchestrator import app
from runner.orchestrator.jobs import Job
from runner.orchestrator.resource import job_resource
from runner.relocation import embedded

GALLERY = Path(__file__).parent / "gallery"
SERVICES = ("echo", "counts_steps", "function_form", "huge_output")


def service(name: str, **changes: Any) -> Manifest:
    """Return a manifest that was announced by a worker."""
    document: dict[str, Any] = {
        "apiVersion": "nlp-runner/v1",
        "name": name,
        "version": "1.2.3",
        "summary": f"Does {name}.",
        "handler": "handlers.it:It",
        "input": {"type": "object", "properties": {"text": {"type": "string"}}},
        "output": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    return manifest.from_document({**document, **changes})


def gallery(*names: str) -> list[Manifest]:
    return [manifest.load(GALLERY / f"{name}.yaml") for name in names]


def references(value: Any) -> Iterator[str]:
    """Find every reference of a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def resolve(document: Any, reference: str) -> Any:
    assert reference.startswith("#"), reference
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def check(document: dict[str, Any]) -> None:
    """See that a document is JSON, is valid, and that each of its references leads somewhere."""
    document = json.loads(json.dumps(document))
    validate(document)
    for reference in references(document):
        resolve(document, reference)


# --- validity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in GALLERY.glob("*.yaml")))
def test_the_document_of_each_service_is_valid(name: str) -> None:
    """Whatever service serves its door, client generators can read the document."""
    (one,) = gallery(name)
    document = openapi.of_service(one, "0.1.0")
    check(document)
    assert document["x-manifest-digest"] == one.digest


@pytest.mark.parametrize("count", range(5))
def test_the_document_of_the_platform_is_valid(count: int) -> None:
    """The document is valid while services come and go, also when there is none."""
    for services in itertools.combinations(gallery(*SERVICES), count):
        check(openapi.of_platform([(one, i % 2 == 0) for i, one in enumerate(services)], "0.1.0"))


@pytest.mark.parametrize("path", sorted((GALLERY.parents[1] / "manifests").glob("*.yaml")))
def test_the_documents_of_our_own_services_are_valid(path: Path) -> None:
    """The services that ship are described as well as any."""
    one = manifest.load(path)
    check(openapi.of_service(one, "0.1.0"))
    check(openapi.of_platform([(one, True)], "0.1.0"))


# --- schemas in their new place ------------------------------------------------------------------

TREE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.org/tree",
    "type": "object",
    "required": ["root"],
    "properties": {
        "root": {"$ref": "#/$defs/node"},
        "again": {"$ref": "#"},
        "word": {"$ref": "#word"},
        "default": {"$ref": "#/$defs/odd~1name"},
        "own": {"$id": "inner", "$defs": {"n": {"type": "null"}}, "$ref": "#/$defs/n"},
        "plain": {"default": {"$ref": "#/nowhere"}, "enum": [{"$ref": "#/nowhere"}]},
        "either": {"anyOf": [{"$ref": "#/properties/word"}, {"type": "integer"}]},
        "$ref": {"type": "boolean"},
    },
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "additionalProperties": False,
        },
        "word": {"$anchor": "word", "type": "string", "maxLength": 3},
        "odd/name": {"type": "integer"},
    },
}

VALUES: list[tuple[Any, bool]] = [
    ({"root": {}}, True),
    ({"root": {"children": [{"children": []}]}}, True),
    ({"root": {"children": [{"kids": []}]}}, False),
    ({"root": {}, "again": {"root": {}}}, True),
    ({"root": {}, "again": {}}, False),
    ({"root": {}, "word": "abc"}, True),
    ({"root": {}, "word": "abcd"}, False),
    ({"root": {}, "default": 1}, True),
    ({"root": {}, "default": "x"}, False),
    ({"root": {}, "own": None}, True),
    ({"root": {}, "own": 1}, False),
    ({"root": {}, "plain": {"$ref": "#/nowhere"}}, True),
    ({"root": {}, "plain": 1}, False),
    ({"root": {}, "either": 1}, True),
    ({"root": {}, "either": "abcd"}, False),
    ({"root": {}, "$ref": True}, True),
    ({"root": {}, "$ref": "#"}, False),
    ({"root": {}, "unknown": 1}, False),
]


@pytest.mark.parametrize(("value", "fine"), VALUES)
def test_a_schema_means_the_same_in_its_new_place(value: Any, fine: bool) -> None:
    """References, anchors and inner ids of a service's schema work inside the whole document."""
    schema = manifest.closed(TREE)
    components = {"schemas": {"TreeInput": embedded(schema, "TreeInput")}}
    whole = {"$ref": "#/components/schemas/TreeInput", "components": components}
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(value) is fine
    assert jsonschema_rs.Draft202012Validator(whole).is_valid(value) is fine


def test_references_of_a_service_resolve_in_the_document() -> None:
    """A service whose schemas refer to their own parts does not break the document of all."""
    input = {"type": "object", "properties": {"tree": {"$ref": "#/$defs/tree"}},
             "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}  # fmt: skip
    one = service("tree", input=input, output=input)
    check(openapi.of_service(one, "0.1.0"))
    document = openapi.of_platform([(one, True), (service("other"), True)], "0.1.0")
    check(document)
    assert "#/components/schemas/TreeInput/$defs/tree" in set(references(document))


def test_the_manifest_is_left_as_it_was() -> None:
    """Describing a service does not change it: its digest would no longer be true."""
    closed = {name: one for name, one in TREE["properties"].items() if name != "$ref"}
    one = service("tree", input={**TREE, "properties": closed})
    before = json.dumps(one.document)
    openapi.of_platform([(one, True)], "0.1.0")
    assert json.dumps(one.document) == before


# --- names ---------------------------------------------------------------------------------------


def test_names_are_stable_and_no_two_alike() -> None:
    """Generated clients keep their method names, and similar services do not collide."""
    names = ["ner", "keyword-extraction", "a-1", "a1", "a-b", "ab", "job"]
    document = openapi.of_platform([(service(name), True) for name in names], "0.1.0")
    check(document)
    operations = [
        operation["operationId"]
        for path in document["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    ]
    assert len(operations) == len(set(operations))
    assert {"ner_createJob", "keyword_extraction_createJob", "getJob"} <= set(operations)
    inputs = [name for name in document["components"]["schemas"] if name.endswith("Input")]
    assert {"NerInput", "KeywordExtractionInput"} <= set(inputs)
    assert len(inputs) == len(names)


def test_a_service_that_is_away_is_marked() -> None:
    """A reader sees that a service is known and that nobody serves it now."""
    document = openapi.of_platform([(service("here"), True), (service("away"), False)], "0.1.0")
    here = document["paths"]["/v1/services/here/jobs"]["post"]
    away = document["paths"]["/v1/services/away/jobs"]["post"]
    assert (here["x-available"], away["x-available"]) == (True, False)
    assert (here["summary"], away["summary"]) == ("Does here.", "(unavailable now) Does away.")
    assert here["x-manifest-digest"] == service("here").digest


def test_examples_are_shown_where_they_can_be_tried() -> None:
    """The examples of a manifest are those of the request and of the answer."""
    (echo,) = gallery("echo")
    run = openapi.of_service(echo, "0.1.0")["paths"]["/run"]["post"]
    request = run["requestBody"]["content"]["application/json"]["examples"]
    answer = run["responses"]["200"]["content"]["application/json"]["examples"]
    assert [one["value"] for one in request.values()] == [e.input for e in echo.examples]
    assert [one["value"] for one in answer.values()] == [e.output for e in echo.examples]
    assert [one["summary"] for one in request.values()] == [e.title for e in echo.examples]


# --- what the servers really do ------------------------------------------------------------------


def routes(application: Starlette) -> set[tuple[str, str]]:
    """Return the methods and paths of an application, without pages for people."""
    return {
        (method.lower(), route.path)
        for route in application.routes
        if isinstance(route, Route) and route.path not in ("/", "/docs")
        for method in route.methods or ()
        if method != "HEAD"
    }


def described(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (method, path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }


def test_the_door_of_a_service_is_described_as_it_is() -> None:
    """No route of the door is missing from its document, and none is invented."""
    (echo,) = gallery("echo")
    assert described(openapi.of_service(echo, "0.1.0")) == routes(web.create(echo))


def test_the_orchestrator_is_described_as_it_is() -> None:
    """No route of the orchestrator is missing from its document, and none is invented."""
    home = app.Home("sqlite:///:memory:", "redis://127.0.0.1:1/0", "test", 1.0)
    real = routes(app.create(home)) - {("post", "/v1/services/{name}/jobs")}
    document = openapi.of_platform([(service("ner"), True)], "0.1.0")
    assert described(document) - {("post", "/v1/services/ner/jobs")} == real


def test_a_job_is_what_its_schema_says() -> None:
    """Each field that the orchestrator answers about a job is in the document, with its type."""
    document = openapi.of_platform([], "0.1.0")
    whole = {"$ref": "#/components/schemas/Job", "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole)
    picture = {"percent": 12.5, "step": "run", "steps": [
        {"name": "run", "title": "Run", "status": "running", "done": 1, "started_at": 2.0}
    ]}  # fmt: skip
    queued = Job(
        id="j", service="ner", service_version="1.0.0", major=1, manifest_digest="d",
        created_at=1.0, available_at=1.0, updated_at=1.0,
    )  # fmt: skip
    for resource in (
        job_resource(queued),
        job_resource(queued, progress=picture, position=0, eta_seconds=1.25),
    ):
        assert [error.message for error in validator.iter_errors(resource)] == []
        assert set(resource) <= set(document["components"]["schemas"]["Job"]["properties"])
