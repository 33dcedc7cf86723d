"""Each bundled service alone answers the requests of the LinTO service whose place it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runner import server, web
from runner.manifest import load

MANIFESTS = Path(__file__).parents[2] / "manifests"

UNITS = (
    "The ferry crossed the bay before the storm. | A storm kept the ferry in the harbour. | "
    "The town council voted for the school budget. | The budget of the school grows, said the "
    "council. | Ferry and harbour reopen after the storm. | The school asked the council for a "
    "larger budget."
)


@pytest.fixture
def ask(until: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that serves a manifest over HTTP and posts one request to it."""

    @contextlib.contextmanager
    def served(name: str) -> Iterator[httpx.Client]:
        app = web.create(load(MANIFESTS / f"{name}.yaml"))
        with server.background(app) as url, httpx.Client(base_url=url, timeout=60) as client:
            until(lambda: client.get("/readyz").status_code == 200, 60, f"{name} to be ready")
            yield client

    def post(name: str, path: str, body: Any) -> Any:
        with served(name) as client:
            assert client.get("/healthcheck").json() == {"healthcheck": "OK"}
            assert client.get("/docs").status_code == 200
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

    return post


def articles(*texts: str, **component_cfg: Any) -> dict[str, Any]:
    """Return a request in LinTO's form."""
    return {"articles": [{"text": text} for text in texts], "component_cfg": component_cfg}


def test_k6_ner(ask: Callable[..., Any]) -> None:
    """`POST /ner/fr` gives `ents` with text, label, start and end, behind the echoed text."""
    text = "Marie Curie habite à Paris."
    found = ask("ner", "/ner/fr", articles(text))
    assert list(found["ner"][0]) == ["text", "ents"]
    assert found["ner"][0]["text"] == text
    assert found["ner"][0]["ents"] == [
        {"text": "Marie Curie", "label": "PER", "start": 0, "end": 11},
        {"text": "Paris", "label": "LOC", "start": 21, "end": 26},
    ]


def test_k6_kpe(ask: Callable[..., Any]) -> None:
    """`POST /kpe/en` gives `keyphrases` with text and score, the best first, within its range."""
    config = {"top_n": 3, "keyphrase_ngram_range": [2, 3]}
    [found] = ask("keyphrase-extraction", "/kpe/en", articles(UNITS, kpe=config))["kpe"]
    assert list(found) == ["text", "keyphrases"]
    assert 1 <= len(found["keyphrases"]) <= 3
    for one in found["keyphrases"]:
        assert set(one) == {"text", "score"}
        assert 2 <= len(one["text"].split()) <= 3
    scores = [one["score"] for one in found["keyphrases"]]
    assert scores == sorted(scores, reverse=True)


def test_k6_extsumm(ask: Callable[..., Any]) -> None:
    """`POST /extsumm/en` keeps units between pipes, in their order, as a list of texts."""
    found = ask(
        "extractive-summarization", "/extsumm/en", articles(UNITS, extsumm={"num_sentences": 2})
    )
    summary = found["extsumm"][0]["extractive_summary"]
    units = UNITS.split(" | ")
    assert len(summary) == 2
    assert [units.index(one) for one in summary] == sorted(units.index(one) for one in summary)


def test_k6_topic(ask: Callable[..., Any]) -> None:
    """`POST /topic/en` gives topics with phrases, and for each unit its topic and probabilities."""
    config = {"top_n_words": 3, "nr_topics": 2}
    [found] = ask("topic-modeling", "/topic/en", articles(UNITS, topic=config))["topic"]
    assert [set(topic) for topic in found["topics"]] == [{"topic_id", "count", "phrases"}] * 2
    assert {len(topic["phrases"]) for topic in found["topics"]} == {3}
    assert [unit["text"] for unit in found["topic_assignments"]] == UNITS.split(" | ")
    assigned = [unit["assigned_id"] for unit in found["topic_assignments"]]
    assert assigned[0] == assigned[1] == assigned[4] != assigned[2] == assigned[3] == assigned[5]
    assert {len(unit["probabilities"]) for unit in found["topic_assignments"]} == {2}


def test_k6_keyword_extraction(ask: Callable[..., Any]) -> None:
    """`POST /keyword_extraction`, which never worked, gives an object per document, best first."""
    body = {"documents": [UNITS, ""], "config": {"method": "frequencies", "threshold": 1}}
    first, second = ask("keyword-extraction", "/keyword_extraction", body)
    assert second == {}
    assert {"council", "storm", "ferry"} <= set(first)
    assert list(first.values()) == sorted(first.values(), reverse=True)
