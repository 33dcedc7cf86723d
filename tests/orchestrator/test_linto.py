"""LinTO's clients call the orchestrator as they called LinTO, and get what they are used to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from stage import Stage

DOCUMENT = "zebra apple zebra mango zebra apple"
TAGS = {"zebra": 3, "apple": 2, "mango": 1}


@pytest.fixture(scope="module")
def stage(
    redis_url: str, until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give a platform with two keyword services and one of another type that LinTO never had."""
    with Stage(redis_url, tmp_path_factory.mktemp("linto"), until) as stage:
        stage.orchestrator()
        stage.worker("tags", SERVICE_NAME="studio_tags", MODEL_INFO="counts words")
        stage.worker(stage.variant("tags", "more-tags", version="2.0.0"))
        stage.worker(stage.variant("tags", "word-count", type="word_count", **{"x-linto": {}}))
        stage.ready("tags", "more-tags", "word-count")
        yield stage
        stage.sound()


def config(**fields: Any) -> dict[str, Any]:
    """Return an `nlpConfig` for keywords."""
    return {"keywordExtractionConfig": fields}


def start(stage: Stage, nlp_config: Any, documents: Any = None, **more: Any) -> dict[str, Any]:
    """Post a job as JSON and return the answer."""
    body = {"documents": [DOCUMENT] if documents is None else documents, "nlpConfig": nlp_config}
    answer = stage.http.post("/nlp", json={**body, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ended(stage: Stage, job_id: str) -> httpx.Response:
    """Ask for a job until it is neither pending nor started."""

    def look() -> httpx.Response | None:
        answer = stage.http.get(f"/job/{job_id}")
        return None if answer.status_code == 202 else answer

    found: httpx.Response = stage.until(look, 30, "the job to end")
    return found


def results(stage: Stage, nlp_config: Any, documents: Any = None) -> dict[str, Any]:
    """Run a job to its end and return its results."""
    done = ended(stage, start(stage, nlp_config, documents)["jobid"])
    assert done.status_code == 201, done.text
    found: dict[str, Any] = stage.http.get(f"/results/{done.json()['result_id']}").json()
    return found


# --- K1: POST /nlp -------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/vtt", None])
def test_k1_json_is_answered_with_a_jobid(stage: Stage, accept: str | None) -> None:
    """A JSON body makes a job, whatever the client accepts, and also if it does not say."""
    request = stage.http.build_request(
        "POST", "/nlp", json={"documents": [DOCUMENT], "nlpConfig": config()}
    )
    del request.headers["accept"]
    if accept:
        request.headers["accept"] = accept
    answer = stage.http.send(request)
    assert answer.status_code == 201
    assert list(answer.json()) == ["jobid"]
    assert answer.headers["content-type"] == "application/json"


def test_k1_a_form_holds_both_fields_as_json(stage: Stage) -> None:
    """Multipart and urlencoded forms work, and a text client gets the bare id."""
    fields = {"documents": json.dumps([DOCUMENT]), "nlpConfig": json.dumps(config())}
    for sent in ({"files": {k: (None, v) for k, v in fields.items()}}, {"data": fields}):
        answer = stage.http.post("/nlp", headers={"accept": "text/plain"}, **sent)
        assert answer.status_code == 201, answer.text
        assert stage.http.get(f"/job/{answer.text}").status_code in (201, 202)
        assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"documents": "abc", "nlpConfig": {}}, "documents"),
        ({"documents": [1], "nlpConfig": {}}, "documents"),
        ({"nlpConfig": {}}, "documents"),
        ({"documents": ["a"], "nlpConfig": []}, "nlpConfig"),
        ([], "object"),
    ],
)
def test_k1_a_wrong_request_is_refused(stage: Stage, body: Any, words: str) -> None:
    """A bare string is no list of documents: it is refused, not read letter by letter."""
    answer = stage.http.post("/nlp", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_k1_a_wrong_form_is_refused(stage: Stage) -> None:
    """A field that is not JSON is named."""
    answer = stage.http.post("/nlp", data={"documents": "plain text", "nlpConfig": "{}"})
    assert answer.status_code == 400
    assert "documents" in answer.json()["detail"]


# --- K2: GET /job/{id} ---------------------------------------------------------------------------


def test_k2_a_job_goes_from_pending_to_done_with_true_progress(stage: Stage) -> None:
    """States, status codes and steps are LinTO's; progress is true and between 0 and 1."""
    nlp_config = config(serviceName="tags", methodConfig={"pause": 0.4})
    job_id = start(stage, nlp_config, [DOCUMENT] * 5)["jobid"]
    seen: list[tuple[int, str, float]] = []

    def look() -> bool:
        answer = stage.http.get(f"/job/{job_id}")
        step = answer.json()["steps"]["keyword_extraction"]
        assert step["required"] is True
        seen.append((answer.status_code, answer.json()["state"], step["progress"]))
        return answer.status_code != 202

    stage.until(look, 30, "the job to end")
    assert {state for code, state, _ in seen if code == 202} <= {"pending", "started"}
    assert any(0 < progress < 1 for _, _, progress in seen)
    assert seen[-1] == (201, "done", 1.0)
    done = stage.http.get(f"/job/{job_id}").json()
    assert done["steps"]["keyword_extraction"]["status"] == "done"
    assert done["steps"]["postprocessing"] == {"required": False}
    assert done["result_id"]


def test_k2_a_failed_job_is_not_2xx_and_says_why(stage: Stage) -> None:
    """Studio takes any other answer than 2xx for an error, and shows the reason."""
    failed = ended(stage, start(stage, config(method="fails"))["jobid"])
    assert failed.status_code == 500
    assert failed.json()["state"] == "failed"
    assert "handler_error" in failed.json()["reason"]
    assert failed.json()["steps"]["keyword_extraction"]["status"] == "failed"


def test_k2_an_unknown_job_is_404(stage: Stage) -> None:
    """An id that never was is told from one that waits."""
    answer = stage.http.get("/job/nothing")
    assert answer.status_code == 404
    assert answer.json()["state"] == "failed"
    assert "nothing" in answer.json()["reason"]
    assert stage.http.get("/results/nothing").status_code == 404
    assert stage.http.get("/job-log/nothing").status_code == 404
    assert stage.http.get("/revoke/nothing").status_code == 404


# --- K3: GET /results/{id} -----------------------------------------------------------------------


def test_k3_keywords_come_best_first(stage: Stage) -> None:
    """The keys of each object are in descending order of score, not in the alphabet's."""
    done = ended(stage, start(stage, config(), [DOCUMENT, "", "a"])["jobid"]).json()
    answer = stage.http.get(f"/results/{done['result_id']}?convert_numbers=true&x=1")
    assert answer.status_code == 200
    found = answer.json()["keyword_extraction"]
    assert found == [TAGS, {}, {"a": 1}]
    assert list(found[0]) == list(TAGS)
    text = stage.http.get(f"/results/{done['result_id']}", headers={"accept": "text/plain"})
    assert text.json() == answer.json()


# --- K4: nlpConfig -------------------------------------------------------------------------------


def test_k4_parameters_reach_the_service(stage: Stage) -> None:
    """`methodConfig` is honoured, also LinTO's own names, and `method` inside or beside it."""
    assert results(stage, config(methodConfig={"top_n": 1}))["keyword_extraction"] == [{"zebra": 3}]
    assert results(stage, config(methodConfig={"threshold": 1}))["keyword_extraction"] == [
        {"zebra": 3, "apple": 2}
    ]
    inside = ended(stage, start(stage, config(methodConfig={"method": "fails"}))["jobid"])
    assert inside.status_code == 500


@pytest.mark.parametrize("nlp_config", [None, {}, config(), {"keywordExtractionConfig": None}])
def test_k4_without_a_config_the_default_services_run(stage: Stage, nlp_config: Any) -> None:
    """What LinTO runs when nothing is said runs here, and nothing else does."""
    assert results(stage, nlp_config) == {"keyword_extraction": [TAGS]}


def test_k4_what_is_unknown_is_told(stage: Stage) -> None:
    """An unknown key, parameter or service does not vanish: a warning names it, thrice."""
    nlp_config = {
        **config(enabled=True, methodConfig={"colour": 1, "keyphrase_ngram_range": [1, 2]}),
        "sentimentConfig": {},
    }
    answer = start(stage, nlp_config)
    told = " ".join(answer["warnings"])
    assert all(word in told for word in ("enabled", "colour", "keyphrase", "sentimentConfig"))
    done = ended(stage, answer["jobid"]).json()
    assert done["warnings"] == answer["warnings"]
    assert stage.http.get(f"/results/{answer['jobid']}").json()["warnings"] == answer["warnings"]


def test_k4_a_wrong_value_is_refused_where_it_was_written(stage: Stage) -> None:
    """A problem points into the caller's own request."""
    body = {"documents": ["a"], "nlpConfig": config(methodConfig={"top_n": 0})}
    answer = stage.http.post("/nlp", json=body)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == "/nlpConfig/keywordExtractionConfig/methodConfig/top_n"


def test_k4_several_services_run_in_one_job(stage: Stage) -> None:
    """A type of service nobody wrote LinTO code for runs beside the keywords, with its own step."""
    nlp_config = {**config(), "wordCountConfig": {"enableWordCount": True}}
    job_id = start(stage, nlp_config)["jobid"]
    done = ended(stage, job_id).json()
    assert {kind for kind, step in done["steps"].items() if step["required"]} == {
        "keyword_extraction", "word_count",
    }  # fmt: skip
    found = stage.http.get(f"/results/{job_id}").json()
    assert found["keyword_extraction"] == [TAGS]
    [counted] = found["word_count"]
    assert (counted["text"], counted["keywords"][0]) == (DOCUMENT, {"text": "zebra", "score": 3})


def test_k4_a_part_that_fails_does_not_hide_the_others(stage: Stage) -> None:
    """The job is done, its failed step says why, and the results of the other are there."""
    nlp_config = {**config(method="fails"), "wordCountConfig": {}}
    job_id = start(stage, nlp_config)["jobid"]
    done = ended(stage, job_id)
    assert done.status_code == 201
    assert done.json()["steps"]["keyword_extraction"]["status"] == "failed"
    assert "handler_error" in done.json()["reason"]
    assert set(stage.http.get(f"/results/{job_id}").json()) == {"word_count"}


def test_k4_a_service_can_be_switched_off(stage: Stage) -> None:
    """A disabled type is no step; when all are, the request is refused with a sentence."""
    nlp_config = {**config(enableKeywordExtraction=False), "wordCountConfig": {}}
    done = ended(stage, start(stage, nlp_config)["jobid"]).json()
    assert done["steps"]["keyword_extraction"] == {"required": False}
    body = {"documents": ["a"], "nlpConfig": config(enableKeywordExtraction=False)}
    assert stage.http.post("/nlp", json=body).status_code == 400


# --- serviceName and policies --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tags", "more-tags", "more_tags", "studio_tags"])
def test_a_named_service_answers(stage: Stage, name: str) -> None:
    """`serviceName` finds a service by its name, in LinTO's spelling too, or by SERVICE_NAME."""
    job = start(stage, config(serviceName=name))
    step = ended(stage, job["jobid"]).json()["steps"]["keyword_extraction"]
    expected = "tags" if name == "studio_tags" else name.replace("_", "-")
    assert step["service_name"] == expected
    assert "warnings" not in job


def test_any_chooses_another_and_says_so(stage: Stage) -> None:
    """Under ANY a name that is not alive fails nothing; a warning tells who answered."""
    answer = start(stage, config(serviceName="gone"))
    assert "gone" in answer["warnings"][0]
    assert ended(stage, answer["jobid"]).status_code == 201


def test_a_choice_does_not_leak_into_the_next_request(stage: Stage) -> None:
    """A request without a name is not sent where the one before it went."""
    first = start(stage, config())
    start(stage, config(serviceName="tags"))
    second = start(stage, config())
    names = [
        ended(stage, one["jobid"]).json()["steps"]["keyword_extraction"]["service_name"]
        for one in (first, second)
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("settings", "asked", "status", "answered"),
    [
        ({"RESOLVE_POLICY": "STRICT"}, None, 400, None),
        ({"RESOLVE_POLICY": "STRICT"}, "gone", 503, None),
        ({"RESOLVE_POLICY": "STRICT"}, "tags", 201, "tags"),
        ({"RESOLVE_POLICY": "DEFAULT"}, None, 400, None),
        ({"RESOLVE_POLICY": "DEFAULT", "KEYWORD_EXTRACTION_DEFAULT": "more-tags"}, None, 201,
         "more-tags"),
        ({"RESOLVE_POLICY": "DEFAULT", "KEYWORD_EXTRACTION_DEFAULT": "more-tags"}, "gone", 201,
         "more-tags"),
        ({"RESOLVE_POLICY": "DEFAULT", "KEYWORD_EXTRACTION_DEFAULT": "lost"}, "tags", 201, "tags"),
        ({"RESOLVE_POLICY": "DEFAULT", "KEYWORD_EXTRACTION_DEFAULT": "lost"}, None, 503, None),
        ({"LANGUAGE": "de"}, None, 503, None),
        ({"LANGUAGE": "fr_FR"}, None, 201, "more-tags"),
    ],
)  # fmt: skip
def test_policies(stage: Stage, redis_url: str, settings: dict[str, str], asked: str | None,
                  status: int, answered: str | None) -> None:  # fmt: skip
    """STRICT wants a name that is alive, DEFAULT falls back to the default, LANGUAGE narrows."""
    (stage.folder / "policy").mkdir(exist_ok=True)
    with Stage(redis_url, stage.folder / "policy", stage.until) as other:
        other.namespace, other.database = stage.namespace, stage.database
        other.orchestrator(**settings)
        other.ready("tags", "more-tags")
        body = {"documents": [DOCUMENT], "nlpConfig": config(serviceName=asked)}
        answer = other.http.post("/nlp", json=body)
        assert answer.status_code == status, answer.text
        if answered:
            job = other.http.get(f"/job/{answer.json()['jobid']}").json()
            assert job["steps"]["keyword_extraction"]["service_name"] == answered


# --- K5: the rest --------------------------------------------------------------------------------


def test_k5_services_are_listed_with_all_their_instances(stage: Stage) -> None:
    """Both services of one type are there, each with its instances, at once."""
    found = stage.http.get("/list-services").json()["keyword_extraction"]
    names = {one["service_name"] for one in found}
    assert {"studio_tags", "more-tags"} <= names
    for one in found:
        assert one["service_type"] == "keyword_extraction"
        assert one["service_language"]
        [instance] = one["instances"]
        assert set(instance) >= {"host_name", "last_alive", "version", "concurrency"}
    assert "counts words" in {one["info"] for one in found}


def test_k5_revoke_really_cancels(stage: Stage) -> None:
    """A job that runs and one that waits both end, and their state says so."""
    long = config(serviceName="tags", methodConfig={"pause": 60})
    running, waiting = (start(stage, long)["jobid"] for _ in range(2))
    for job_id in (waiting, running):
        answer = stage.http.get(f"/revoke/{job_id}")
        assert (answer.status_code, answer.text) == (200, "done")
    for job_id in (waiting, running):
        stopped = ended(stage, job_id)
        assert stopped.status_code == 409
        assert stopped.json()["state"] == "failed"
        assert "cancel" in stopped.json()["reason"].lower()
    assert stage.http.get(f"/revoke/{running}").text == "done"


def test_k5_the_log_tells_what_happened_and_holds_no_document(stage: Stage) -> None:
    """The log of a failed job names its states and reasons, and none of its words."""
    job_id = start(stage, config(method="fails", colour=1), ["confidential"])["jobid"]
    ended(stage, job_id)
    answer = stage.http.get(f"/job-log/{job_id}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "keyword_extraction: failed (handler_error)" in answer.text
    assert "colour" in answer.text
    assert "confidential" not in answer.text


def test_k5_healthcheck_and_docs(stage: Stage) -> None:
    """`/healthcheck` answers 1, and `/docs` is there."""
    assert stage.http.get("/healthcheck").json() == 1
    assert stage.http.get("/docs").status_code == 200
    assert "/nlp" in stage.http.get("/openapi.json").json()["paths"]
