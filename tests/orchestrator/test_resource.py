"""What callers see of services and workers, in our words and in LinTO's (K5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
from stage import GALLERY, Stage

from runner import openapi
from runner.manifest import Manifest, load
from runner.orchestrator.catalog import Entry, Member
from runner.orchestrator.resource import linto_services, service_resource
from runner.registry import Instance

TAGS = load(GALLERY / "tags.yaml")
ECHO = load(GALLERY / "echo.yaml")


def member(manifest: Manifest, name: str, quarantined: str | None = None, **fields: Any) -> Member:
    """Return a worker of a service as the catalog knows it."""
    ready = Instance(name, manifest.name, manifest.version, manifest.digest, "ready", slots=2)
    return Member(replace(ready, **fields), quarantined)


def entry(manifest: Manifest, *members: Member) -> Entry:
    return Entry(manifest, members, 1_700_000_000.5)


def test_every_living_instance_is_listed() -> None:
    """LinTO's clients see each type with its services, and each service with all its instances."""
    listed = linto_services([
        entry(TAGS, member(TAGS, "a"), member(TAGS, "b", slots=4, version="0.9.0"),
              member(TAGS, "c", state="starting"), member(TAGS, "d", quarantined="lies")),
        entry(ECHO),
    ])  # fmt: skip
    assert listed == {
        "keyword_extraction": [
            {
                "service_name": "tags",
                "service_type": "keyword_extraction",
                "service_language": "en|fr",
                "queue_name": "tags",
                "info": TAGS.summary,
                "instances": [
                    {"host_name": "a", "last_alive": 1_700_000_000, "version": "1.0.0",
                     "concurrency": 2},
                    {"host_name": "b", "last_alive": 1_700_000_000, "version": "0.9.0",
                     "concurrency": 4},
                ],
            }
        ]
    }  # fmt: skip


def test_another_name_is_a_service_of_its_own() -> None:
    """Workers are listed under the name, the languages and the words that their operator chose."""
    french = {"alias": "kw_fr", "languages": ("fr",), "info": "Le mien.", "queue_name": "kw"}
    listed = linto_services([
        entry(TAGS, member(TAGS, "a"), member(TAGS, "b", **french),
              member(TAGS, "c", alias="kw_fr", languages=("fr-CA",))),
    ])  # fmt: skip
    plain, named = listed["keyword_extraction"]
    assert (plain["service_name"], [i["host_name"] for i in plain["instances"]]) == ("tags", ["a"])
    assert {key: named[key] for key in named if key != "instances"} == {
        "service_name": "kw_fr", "service_type": "keyword_extraction",
        "service_language": "fr|fr-CA", "queue_name": "kw", "info": "Le mien.",
    }  # fmt: skip
    assert [i["host_name"] for i in named["instances"]] == ["b", "c"]


def test_no_workers_are_an_empty_list() -> None:
    """Nobody alive is no error; a service of any language says `*`."""
    assert linto_services([]) == linto_services([entry(TAGS)]) == {}
    (listed,) = linto_services([entry(ECHO, member(ECHO, "a"))]).values()
    assert listed[0]["service_language"] == "*"


def test_warnings_are_gathered() -> None:
    """A service says once what several of its workers say, and each worker says its own."""
    seen = service_resource(entry(TAGS, member(TAGS, "a", warnings=("x", "y"), alias="kw"),
                                  member(TAGS, "b", warnings=("y", "z"))))  # fmt: skip
    assert seen["warnings"] == ["x", "y", "z"]
    assert [(w["warnings"], w["alias"]) for w in seen["workers"]] == [
        (["x", "y"], "kw"), (["y", "z"], None)
    ]  # fmt: skip
    components = openapi.of_platform([], "0.1.0")["components"]
    schema = {"$ref": "#/components/schemas/Service", "components": components}
    validator = jsonschema_rs.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(seen)] == []
    assert seen.keys() <= components["schemas"]["Service"]["properties"].keys()
    assert seen["workers"][0].keys() <= components["schemas"]["Worker"]["properties"].keys()


def test_a_worker_announces_what_its_handler_and_its_operator_say(
    redis_url: str, until: Callable[..., Any], tmp_path: Path
) -> None:
    """Warnings are logged once and listed; the operator's words reach LinTO's clients."""
    (tmp_path / "its.py").write_text(
        "class Its:\n    def __init__(self, config):\n"
        "        self.warnings = ['The fallback is used. ' + 'é' * 900, 'And more.']\n"
        "    def __call__(self, ctx, **inputs):\n        return {'documents': []}\n"
    )
    with Stage(redis_url, tmp_path, until) as stage:
        path = stage.variant("tags", "its", handler="its:Its", examples=[])
        stage.orchestrator()
        worker = stage.worker(
            path, CONCURRENCY=2, SERVICE_NAME="kw_fr", MODEL_INFO="Mine.", LANGUAGE="fr_FR",
            QUEUE_NAME="kw",
        )  # fmt: skip
        stage.ready("its")
        (service,) = stage.services()
        (listed,) = stage.http.get("/list-services").json()["keyword_extraction"]
        stage.sound()
        assert worker.said().count("And more.") == 1
    assert service["warnings"] == service["workers"][0]["warnings"]
    assert [len(one) for one in service["warnings"]] == [500, 9]
    assert service["manifest_digest"] == load(path).digest
    assert (listed["service_name"], listed["info"]) == ("kw_fr", "Mine.")
    assert (listed["service_language"], listed["queue_name"]) == ("fr-FR", "kw")
