"""LinTO Studio's three calls, replayed against the real keyword service: ordered tags come back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stage

MANIFEST = Path(__file__).parents[2] / "manifests" / "keyword-extraction.yaml"

MEETING = """\
Bonjour. La réunion porte sur le budget de la médiathèque. Le budget de la médiathèque a été \
voté en mars, et la commune de Saint-Brieuc finance les travaux. Les travaux de la médiathèque \
commencent en juin : la toiture d'abord, puis les salles de lecture. Madame Le Goff demande si les \
salles de lecture resteront ouvertes pendant les travaux. La médiathèque fermera deux semaines.
"""


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform with the keyword service as it ships."""
    with Stage(redis_url, tmp_path_factory.mktemp("studio"), until) as stage:
        stage.orchestrator()
        stage.worker(MANIFEST, SERVICE_NAME="kw_production")
        stage.ready("keyword-extraction")
        yield stage
        stage.sound()


def submit(stage: Stage, documents: list[str], **config: Any) -> str:
    """Make Studio's first call: a form with two JSON fields; return the job's id."""
    nlp_config = {
        "keywordExtractionConfig": {
            "enableKeywordExtraction": True,
            "serviceName": "kw_production",
            "method": "frekeybert",
            "methodConfig": {"top_n": 10},
            **config,
        }
    }
    form = {"nlpConfig": json.dumps(nlp_config), "documents": json.dumps(documents)}
    answer = stage.http.post(
        "/nlp",
        files={name: (None, value) for name, value in form.items()},
        headers={"accept": "application/json"},
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["jobid"])


def polled(stage: Stage, job_id: str) -> dict[str, Any]:
    """Make Studio's second call until the state is done; anything but 2xx is an error to it."""

    def look() -> dict[str, Any] | None:
        answer = stage.http.get(f"/job/{job_id}")
        assert answer.is_success, answer.text
        job: dict[str, Any] = answer.json()
        return job if job["state"] == "done" and job["result_id"] else None

    found: dict[str, Any] = stage.until(look, 60, "the job to be done")
    return found


def test_studio_gets_its_tags_in_order(stage: Stage) -> None:
    """The keys of the first object, in the order in which they arrive, are the best tags first."""
    job = polled(stage, submit(stage, [MEETING]))
    assert job["steps"]["keyword_extraction"]["status"] == "done"
    answer = stage.http.get(
        f"/results/{job['result_id']}?convert_numbers=true", headers={"accept": "application/json"}
    )
    found = answer.json()
    pairs = json.loads(answer.text, object_pairs_hook=lambda pairs: pairs)
    [(_, [tags]), *_] = [pair for pair in pairs if pair[0] == "keyword_extraction"]
    scores = [score for _, score in tags]
    assert scores == sorted(scores, reverse=True)
    assert 3 <= len(tags) <= 10
    assert any("médiathèque" in tag for tag, _ in tags[:3])
    assert any("frekeybert" in warning for warning in found["warnings"])


def test_studio_is_told_why_a_job_failed(stage: Stage) -> None:
    """A method that does not exist is refused at once, with its place and what there is."""
    form = {
        "documents": json.dumps([MEETING]),
        "nlpConfig": json.dumps({"keywordExtractionConfig": {"method": "magic"}}),
    }
    answer = stage.http.post("/nlp", data=form)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == "/nlpConfig/keywordExtractionConfig/methodConfig/method"
    assert "frekeybert" in error["expected"]


@pytest.mark.parametrize("method", ["frequencies", "textrank", "topicrank", "keybert", "yake"])
def test_every_method_of_linto_answers(stage: Stage, method: str) -> None:
    """Every method that LinTO had finds what a text is about."""
    job = polled(stage, submit(stage, [MEETING, ""], method=method))
    [tags, none] = stage.http.get(f"/results/{job['result_id']}").json()["keyword_extraction"]
    assert any("médiathèque" in tag for tag in tags)
    assert none == {}
