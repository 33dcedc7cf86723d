"""The keyphrase service on real English and French texts."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.context import Context
from runner.engine import Engine
from runner.errors import InputInvalid, InputRejected, Stopped, TimedOut
from runner.handler import resolve
from runner.manifest import load
from runner.testing import check_examples, run

Ask = Callable[..., list[dict[str, Any]]]

MANIFEST = load(Path(__file__).parents[2] / "manifests" / "keyphrase-extraction.yaml")
METHODS = ["tfidf", "textrank", "positionrank", "topicrank", "multipartiterank"]
GOLD = Path(__file__).parent / "text" / "keyphrases.json"

ENGLISH = """\
Graph coloring for register allocation

We study register allocation by graph coloring in an optimizing compiler. The interference graph of
a program has a node for each live range, and the optimizing compiler colors the interference graph
with as many colors as the machine has registers. A live range without a color goes to memory. On
twenty benchmark programs, a new heuristic for the coloring of sparse graphs saves memory traffic.
"""

FRENCH = """\
Le chef d’orchestre Ravi Nair quitte Tours

Le chef d’orchestre Ravi Nair quitte l'opéra de Tours. La salle de concert, fermée pour travaux,
rouvrira en mai avec un nouveau chef d'orchestre. Les musiciens de l'opéra demandent une salle de
concert plus grande et des répétitions publiques dans les écoles.
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Give the service as it is served, its models loaded once."""
    engine = Engine(MANIFEST)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def ask(engine: Engine) -> Ask:
    """Give a function that runs the whole service, schemas included: one result a document."""

    def ask(*documents: str, **parameters: Any) -> list[dict[str, Any]]:
        outcome = engine.run(
            "test", {"documents": list(documents), **parameters}, emit=lambda event: None
        )
        assert outcome.error is None, outcome.error
        return outcome.output["documents"]

    return ask


def texts(result: dict[str, Any]) -> list[str]:
    return [keyphrase["text"] for keyphrase in result["keyphrases"]]


def keep_promises(text: str, result: dict[str, Any]) -> None:
    """Check what holds of every answer: scores, and places that are occurrences."""
    phrases = result["keyphrases"]
    assert all(0 < phrase["score"] <= 1 for phrase in phrases)
    assert len({phrase["text"].lower() for phrase in phrases}) == len(phrases)
    for phrase in phrases:
        said = [typed(text[place["start"] : place["end"]]) for place in phrase["offsets"]]
        assert phrase["text"] in said
        assert len(said) == min(50, phrase["count"])


def typed(text: str) -> str:
    text = unicodedata.normalize("NFC", text.translate(dict.fromkeys([0xAD, 0x200C, 0x200D])))
    return " ".join(text.translate(str.maketrans("’‑‐", "'--")).split())


def test_the_examples_are_true():
    """Every example of the manifest gives the result it states."""
    assert check_examples(MANIFEST) == []


def test_keyphrases_tell_what_a_text_is_about(ask):
    """The subjects of an English and of a French text are among their first keyphrases."""
    english, french = ask(ENGLISH, FRENCH)
    assert (english["language"], french["language"]) == ("en", "fr")
    wanted = {"register allocation", "interference graph", "optimizing compiler"}
    assert wanted <= set(texts(english)[:6])
    assert {"chef d'orchestre", "opéra"} <= set(texts(french)[:6])
    assert result_of(ask, ENGLISH)["keyphrases"][0]["score"] == 1


def result_of(ask: Ask, text: str, **parameters: Any) -> dict[str, Any]:
    return ask(text, **parameters)[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_promises(ask, method):
    """Whatever the method, scores fall from 1, no phrase comes twice, each place is one."""
    for text in (ENGLISH, FRENCH, ENGLISH.upper(), ENGLISH.replace("\n", "\r\n")):
        result = result_of(ask, text, method=method, top_n=200)
        assert result["method"] == method
        keep_promises(text, result)
        scores = [phrase["score"] for phrase in result["keyphrases"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) > 5


def test_a_request_has_one_answer(ask):
    """The same request gets the same answer, from a fresh service too."""
    first = ask(ENGLISH, FRENCH, top_n=50)
    assert ask(ENGLISH, FRENCH, top_n=50) == first
    assert run(MANIFEST, {"documents": [ENGLISH, FRENCH], "top_n": 50}).output == {
        "documents": first
    }


@pytest.mark.parametrize(("least", "most"), [(1, 1), (2, 2), (2, 3), (3, 8)])
def test_phrases_have_the_asked_number_of_words(ask, least, most):
    """`min_words` and `max_words` bound the words of a phrase, inner prepositions included."""
    for text in (ENGLISH, FRENCH):
        found = texts(result_of(ask, text, min_words=least, max_words=most, top_n=200))
        assert found
        assert all(least <= len(one.replace("'", "' ").split()) <= most for one in found)


def test_a_phrase_has_no_article_and_no_empty_adjective(ask):
    """`a new heuristic` is found as `heuristic`."""
    found = texts(result_of(ask, ENGLISH, top_n=200))
    assert "heuristic" in found
    assert not [one for one in found if one.lower().startswith(("a ", "the ", "new "))]


def test_a_phrase_goes_on_over_a_wrapped_line(ask):
    """A line break inside a paragraph of fixed width is no border; its place is told right."""
    wrapped = "We describe a fast method that finds the live ranges of an interference\ngraph."
    found = result_of(ask, f"{wrapped}\n", min_words=2)
    (phrase,) = [one for one in found["keyphrases"] if one["text"] == "interference graph"]
    place = phrase["offsets"][0]
    assert wrapped[place["start"] : place["end"]] == "interference\ngraph"


def test_diversity_brings_unlike_phrases(ask):
    """The more diversity, the fewer words the chosen phrases share; the first one stays."""
    text = "Solar panel makers. Solar panel prices. Solar panel roofs. A wind farm. A tidal dam."
    shared = []
    for diversity in (0, 0.9):
        found = texts(result_of(ask, text, diversity=diversity, top_n=3, min_words=2))
        words = [word.lower() for one in found for word in one.split()]
        shared.append(len(words) - len(set(words)))
    assert shared[0] > shared[1] == 0
    best = texts(result_of(ask, ENGLISH))[0]
    assert all(texts(result_of(ask, ENGLISH, diversity=one / 10))[0] == best for one in range(10))


def test_only_candidates_are_ranked(ask):
    """With `candidates`, what they name is found in any form, and nothing else."""
    asked = ["Live ranges", "Memory", "garbage collection", "as many colors as the machine"]
    result = result_of(ask, ENGLISH, candidates=asked, max_words=1)
    keep_promises(ENGLISH, result)
    assert set(texts(result)) == {"live range", "memory", "as many colors as the machine"}
    parts = ["live range", "range"]
    assert set(texts(result_of(ask, "A live range.", candidates=parts))) == set(parts)
    assert result_of(ask, ENGLISH, candidates=[])["keyphrases"] == []


def test_seed_keywords_raise_what_has_them(ask):
    """A phrase with a seed word ranks higher than without the seed."""
    plain = texts(result_of(ask, ENGLISH, top_n=50))
    seeded = texts(result_of(ask, ENGLISH, top_n=50, seed_keywords=["benchmarks"]))
    assert seeded.index("benchmark programs") < plain.index("benchmark programs")
    assert sorted(seeded) == sorted(plain)


def test_stop_words_are_borders(ask):
    """What has an added stop word is no phrase, and the next request knows nothing of it."""
    found = texts(result_of(ask, ENGLISH, top_n=200, add_stop_words=["Graph", "live"]))
    assert not [one for one in found if {"graph", "live"} & set(one.lower().split())]
    assert "interference graph" in texts(result_of(ask, ENGLISH, top_n=200))
    dated = "The concert on Monday is the last one. Each Monday the orchestra plays."
    assert "Monday" not in texts(result_of(ask, dated))
    assert "Monday" in texts(result_of(ask, dated, stop_words=[]))


@pytest.mark.parametrize("method", METHODS)
def test_a_threshold_is_to_be_passed(ask, method):
    """With `threshold` 1, only what occurs twice or more comes back."""
    result = result_of(ask, ENGLISH, method=method, threshold=1, top_n=200)
    assert result["keyphrases"]
    assert all(phrase["count"] > 1 for phrase in result["keyphrases"])


def test_places_are_bounded_and_all_are_counted(ask):
    """A phrase that comes a thousand times has its count and its first fifty places."""
    result = result_of(ask, "The tidal dam is new. " * 1000, language="en")
    (phrase,) = [one for one in result["keyphrases"] if one["text"] == "tidal dam"]
    assert (phrase["count"], len(phrase["offsets"])) == (1000, 50)
    assert phrase["offsets"][49] == {"start": 49 * 22 + 4, "end": 49 * 22 + 13}


@pytest.mark.parametrize("text", ["", " \n\t ", "12 345, 67 % !", "— … ?", "the of and", "\u00ad"])
def test_a_text_without_nouns_has_no_keyphrases(ask, text):
    """An empty or wordless document gives an empty list instead of an error."""
    assert all(result_of(ask, text, method=one)["keyphrases"] == [] for one in METHODS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_n": 0},
        {"max_words": 9},
        {"min_words": 0},
        {"method": "yake"},
        {"diversity": 1.1},
        {"threshold": -1},
        {"candidates": "solar panel"},
        {"seed_keywords": [""]},
        {"use_mmr": True},
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused(wrong):
    """What the service cannot do is refused before any work, with the place of the mistake."""
    error = run(MANIFEST, {"documents": [ENGLISH], **wrong}).error
    assert isinstance(error, InputInvalid)
    assert next(iter(wrong)) in str(error.problems)


def test_more_than_the_most_words_is_refused():
    """`min_words` above `max_words` is a mistake of the caller, not an empty answer."""
    error = run(MANIFEST, {"documents": [ENGLISH], "min_words": 6}).error
    assert isinstance(error, InputRejected)
    assert "`min_words` is 6" in error.detail


def test_a_long_document_can_be_stopped_inside():
    """Within one document there are checkpoints, so cancelling and deadlines work."""
    ticks = itertools.count()
    service = resolve(MANIFEST)(SimpleNamespace())
    ctx = Context(
        job_id="j", service="keyphrases", steps=MANIFEST.steps, emit=lambda event: None, timeout=10,
        clock=lambda: float(next(ticks)),
    )  # fmt: skip
    with pytest.raises(Stopped) as stopped:
        service(
            ctx, documents=["word " * 5000], language="en", method="auto", top_n=5, min_words=1,
            max_words=5, threshold=0, diversity=0,
        )  # fmt: skip
    assert isinstance(stopped.value.error, TimedOut)


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_quality_has_a_floor(ask, language):
    """On short texts written for this test, the first five are mostly what people name."""
    known = [one for one in json.loads(GOLD.read_text("utf-8")) if one["language"] == language]
    results = ask(*(one["text"] for one in known), language=language, top_n=5)
    right = sum(
        text.lower() in one["keyphrases"]
        for one, result in zip(known, results, strict=True)
        for text in texts(result)
    )
    assert right >= 0.65 * 5 * len(known)


PARTS = ["l'", "’", " ", ". ", "\n", "\r\n", "Été", "de", "chef", "x", "9", "ß", "\u0301", "\u00ad"]


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(max_size=300) | st.lists(st.sampled_from(PARTS), max_size=60).map("".join),
    language=st.sampled_from(["en", "fr"]),
    method=st.sampled_from(METHODS),
    diversity=st.sampled_from([0, 0.5, 1]),
)
def test_any_text_is_a_text(ask, text, language, method, diversity):
    """Whatever the characters, the service answers and its promises hold."""
    result = result_of(ask, text, language=language, method=method, diversity=diversity, top_n=200)
    keep_promises(text, result)
