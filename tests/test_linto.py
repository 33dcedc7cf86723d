"""The LinTO contract: its callers' words become our input, and our results become theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import InputInvalid, ManifestInvalid
from runner.linto import Linto
from runner.linto_requests import config_key, enable_key, read_choice
from runner.manifest import Manifest, from_document, load

TEXTS = {"type": "array", "minItems": 1, "items": {"type": "string"}}
NUMBER = {"type": "integer", "minimum": 1, "default": 5}


def service(called: str, kind: str, inputs: dict[str, Any], /, **block: Any) -> Manifest:
    """Return a service of one of LinTO's kinds, with its block, if it has one."""
    properties = {"documents": TEXTS, "language": {"type": "string", "default": "*"}, **inputs}
    document: dict[str, Any] = {
        "apiVersion": "nlp-runner/v1", "name": called, "type": kind, "version": "1.0.0",
        "summary": f"Does {kind}.", "handler": "its:run", "languages": ["en", "fr"],
        "input": {"type": "object", "required": ["documents"], "properties": properties},
        "output": {"type": "object", "properties": {"documents": {"type": "array"}}},
    }  # fmt: skip
    return from_document({**document, **({"x-linto": block} if block else {})})


def form_of(manifest: Manifest) -> Linto:
    assert manifest.linto is not None
    return manifest.linto


NER = service("ner", "named_entity_recognition", {}, name="ner", document="{ents: entities}")
KPE = service(
    "kpe", "keyphrase_extraction",
    {"top_n": NUMBER, "min_words": NUMBER, "max_words": NUMBER, "stop_words": {"type": "array"}},
    name="kpe",
    parameters={"keyphrase_ngram_range": {"min_words": "[0]", "max_words": "[1]"},
                "highlight": None, "top": "top_n"},
    defaults={"keyphrase_ngram_range": [1, 1]},
    document="{keyphrases: keyphrases[].{text: text, score: score}}",
)  # fmt: skip
EXTSUMM = service(
    "summary", "extractive_summarization",
    {"sentences": NUMBER, "ratio": {"type": "number"}, "separator": {"type": "string"}},
    name="extsumm", parameters={"num_sentences": "sentences"},
    defaults={"ratio": 0.2, "separator": " | "},
    document="{extractive_summary: sentences[].text}",
)  # fmt: skip
TOPIC = service(
    "topics", "topic_modeling", {"words": NUMBER},
    name="topic", parameters={"top_n_words": "words"},
    document="{topics: topics[].{topic_id: id, count: count, phrases: words[].{text: text, "
    "score: score}}, topic_assignments: units[].{text: text, assigned_id: topic, "
    "probabilities: probabilities}}",
)  # fmt: skip
KEYWORDS = service(
    "keywords", "keyword_extraction",
    {"method": {"enum": ["frequencies", "yake"], "default": "yake"}, "threshold": NUMBER},
    form="documents", default=True, defaults={"method": "frequencies"},
    pairs="keywords[].[text, score]",
)  # fmt: skip
PLAIN = service("plain", "plain", {"top_n": NUMBER})
FIVE = [NER, KPE, EXTSUMM, TOPIC, KEYWORDS]


# --- the five contracts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "ours", "theirs"),
    [
        (NER, {"language": "fr", "entities": [{"text": "Lyon", "label": "LOC", "start": 13}]},
         {"text": "T", "ents": [{"text": "Lyon", "label": "LOC", "start": 13}]}),
        (KPE, {"language": "en", "keyphrases": [{"text": "a", "score": 0.7, "rank": 1}]},
         {"text": "T", "keyphrases": [{"text": "a", "score": 0.7}]}),
        (EXTSUMM, {"sentences": [{"text": "B.", "at": 1}]},
         {"text": "T", "extractive_summary": ["B."]}),
        (TOPIC,
         {"topics": [{"id": 0, "count": 5, "words": [{"text": "w", "score": 0.1, "x": 1}]}],
          "units": [{"text": "u", "topic": 0, "probabilities": [0.9]}]},
         {"text": "T",
          "topics": [{"topic_id": 0, "count": 5, "phrases": [{"text": "w", "score": 0.1}]}],
          "topic_assignments": [{"text": "u", "assigned_id": 0, "probabilities": [0.9]}]}),
        (KEYWORDS, {"keywords": [{"text": "z", "score": 0.9}, {"text": "a", "score": 0.1}]},
         {"z": 0.9, "a": 0.1}),
        (PLAIN, {"anything": [1]}, {"text": "T", "anything": [1]}),
        (PLAIN, 6, {"text": "T", "result": 6}),
    ],
)  # fmt: skip
def test_results_have_the_shape_and_the_order_of_the_original(
    manifest: Manifest, ours: Any, theirs: Any
) -> None:
    """Each kind of result is what LinTO's service gave: its keys, its order, the text first."""
    found, warnings = form_of(manifest).to_results(["T"], {"documents": [ours]})
    assert json.dumps(found) == json.dumps([theirs])
    assert warnings == []


@pytest.mark.parametrize("manifest", FIVE, ids=lambda manifest: manifest.name)
def test_a_document_that_failed_stands_in_its_place(manifest: Manifest) -> None:
    """The others have their results; the one that failed says so, in the list and in a sentence."""
    error = {"code": "too_short", "detail": "It is too short."}
    good = {"entities": [], "keyphrases": [], "sentences": [], "topics": [], "units": [],
            "keywords": []}  # fmt: skip
    output = {"documents": [good, {"error": error}], "warnings": ["The fallback is used."]}
    found, warnings = form_of(manifest).to_results(["a", "b"], output)
    failed = {} if manifest is KEYWORDS else {"text": "b", "error": error}
    assert found[1] == failed
    assert "error" not in found[0]
    assert warnings == ["The fallback is used.", "Document 2 has no result: It is too short."]


def test_a_result_that_does_not_fit_is_given_as_it_is() -> None:
    """A handler that answers otherwise than its block says loses nothing and stops nothing."""
    odd = {"documents": [{"keywords": "none"}, {"keywords": [["a", 1, 2]]}]}
    found, warnings = form_of(KEYWORDS).to_results(["a", "b", "c"], odd)
    assert found == [odd["documents"][0], odd["documents"][1], {}]
    assert warnings[0] == "There are 2 results for 3 documents."
    assert [w.split(" could")[0] for w in warnings[1:]] == [f"Document {n}" for n in (1, 2, 3)]


def test_of_two_keywords_with_one_name_the_better_counts() -> None:
    """A name stands once, where it stood first."""
    pairs = [{"text": t, "score": s} for t, s in (("b", 3), ("a", 2), ("b", 1))]
    found, _ = form_of(KEYWORDS).to_results(["a"], {"documents": [{"keywords": pairs}]})
    assert list(found[0].items()) == [("b", 3), ("a", 2)]


# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "given", "ours"),
    [
        (KPE, {"top_n": 2, "keyphrase_ngram_range": [1, 2]},
         {"top_n": 2, "min_words": 1, "max_words": 2}),
        (KPE, {"stop_words": ["the"]}, {"stop_words": ["the"], "min_words": 1, "max_words": 1}),
        (KPE, {"top": 3, "keyphrase_ngram_range": None},
         {"top_n": 3, "min_words": 1, "max_words": 1}),
        (EXTSUMM, {"num_sentences": 2}, {"sentences": 2, "ratio": 0.2, "separator": " | "}),
        (EXTSUMM, {"ratio": 0.5}, {"ratio": 0.5, "separator": " | "}),
        (KEYWORDS, {}, {"method": "frequencies"}),
        (KEYWORDS, {"method": "yake", "threshold": 2}, {"method": "yake", "threshold": 2}),
        (PLAIN, {"top_n": 1}, {"top_n": 1}),
    ],
)  # fmt: skip
def test_parameters_become_our_input(
    manifest: Manifest, given: dict[str, Any], ours: dict[str, Any]
) -> None:
    """Names are mapped, values taken apart, LinTO's defaults kept; null is as good as absent."""
    found, warnings = form_of(manifest).to_input(["T"], given, "fr")
    assert found == {**ours, "language": "fr", "documents": ["T"]}
    assert warnings == []
    manifest.accept(found)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"vectorizer": 1}, "There is no parameter `vectorizer`; it was ignored. Known are: "),
        ({"documents": ["x"]}, "There is no parameter `documents`"),
        ({"language": "de"}, "There is no parameter `language`"),
        ({"highlight": True}, "The parameter `highlight` has no meaning here and was ignored."),
        ({"keyphrase_ngram_range": 2}, "The value of `keyphrase_ngram_range` was not understood"),
    ],
)
def test_no_parameter_vanishes(given: dict[str, Any], word: str) -> None:
    """What has no effect is said in a sentence each, and the rest is done."""
    found, warnings = form_of(KPE).to_input(["T"], {**given, "top_n": 2})
    assert (found["documents"], found["top_n"]) == (["T"], 2)
    assert [w.startswith(word) for w in warnings] == [True]


@pytest.mark.parametrize(
    ("value", "topics", "warned"),
    [("auto", None, 0), (None, None, 0), (7, 7, 0), ("many", None, 1)],
)
def test_what_would_be_so_anyway_is_understood(value: Any, topics: int | None, warned: int) -> None:
    """`nr_topics: auto` lets the service choose, as its absence does, and nobody is warned."""
    manifest = load(Path(__file__).parents[1] / "manifests" / "topic-modeling.yaml")
    found, warnings = form_of(manifest).to_input(["T"], {"nr_topics": value}, "fr")
    assert (found.get("topics"), len(warnings)) == (topics, warned)
    manifest.accept(found)


def test_two_parameters_that_say_the_same_are_told() -> None:
    """Where two of LinTO's parameters become one of ours, the last counts, and that is said."""
    found, warnings = form_of(KPE).to_input(["T"], {"top": 1, "top_n": 2})
    assert found["top_n"] == 2
    assert warnings == ["`top_n` counts, and not `top`, which says the same."]


def test_warnings_are_bounded() -> None:
    """A thousand strange parameters make a readable answer."""
    _, warnings = form_of(KPE).to_input(["T"], {f"{n}" * 1000: 1 for n in range(1000)})
    assert (len(warnings), warnings[-1]) == (101, "… and 900 more.")
    assert max(map(len, warnings)) <= 500


@pytest.mark.parametrize(
    ("asked", "found"),
    [("fr", "fr"), ("fr-FR", "fr"), ("fr_FR", "fr"), ("FR", "fr"), ("*", "*"), ("en_US", "en")],
)
def test_languages_are_matched_by_their_parts(asked: str, found: str) -> None:
    """LinTO's spelling with an underscore is a tag like any other."""
    assert form_of(NER).to_input(["T"], {}, asked)[0]["language"] == found


@pytest.mark.parametrize("asked", ["r", "de", "f", "", "français", "../etc", "fr fr"])
def test_another_language_is_refused(asked: str) -> None:
    """A piece of a tag is not the tag, and what is no language is said to be none."""
    with pytest.raises(InputInvalid) as caught:
        form_of(NER).to_input(["T"], {}, asked)
    (problem,) = caught.value.problems
    assert (problem.pointer, problem.expected) == ("/language", ["en", "fr"])


def test_a_wrong_value_is_told_where_its_caller_wrote_it() -> None:
    """A caller of LinTO's reads LinTO's names and places, in each of the forms."""
    found, _ = form_of(KPE).to_input([1, "b"], {"keyphrase_ngram_range": [0, 1]})  # type: ignore[list-item]
    with pytest.raises(InputInvalid) as caught:
        KPE.accept(found)
    problems = caught.value.problems
    assert [one.pointer for one in form_of(KPE).located(problems)] == [
        "/articles/0/text", "/component_cfg/kpe/keyphrase_ngram_range"
    ]  # fmt: skip
    place = "/nlpConfig/keyphraseExtractionConfig/methodConfig"
    assert [one.pointer for one in form_of(KPE).located(problems, place)] == [
        "/documents/0", f"{place}/keyphrase_ngram_range"
    ]  # fmt: skip


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(["top_n", "top", "highlight", "keyphrase_ngram_range"]) | st.text()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FIVE), st.dictionaries(NAMES, VALUES, max_size=5))
def test_any_parameters_are_translated_or_warned_of(
    manifest: Manifest, given: dict[str, Any]
) -> None:
    """Nothing that JSON can say is a crash, and our input has nothing that the service has not."""
    form = form_of(manifest)
    found, warnings = form.to_input(["T"], given, "fr")
    assert found.keys() <= form.properties
    silent = [name for name, one in given.items() if one is not None and name not in form.known]
    assert len(warnings) >= len(silent)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*FIVE, PLAIN]), st.lists(VALUES, max_size=4), VALUES)
def test_any_output_is_translated(manifest: Manifest, results: list[Any], said: Any) -> None:
    """There is one result for each document, whatever the handler has answered."""
    for output in ({"documents": results, "warnings": said}, {"documents": said}):
        found, _ = form_of(manifest).to_results(["a", "b"], output)
        assert len(found) == 2
        json.dumps(found)


# --- requests ------------------------------------------------------------------------------------


def test_articles_are_read() -> None:
    """The texts, the service's own parameters, and a word on what is for somebody else."""
    body = {"articles": [{"text": "a", "id": 1}], "component_cfg": {"kpe": {"top_n": 2}, "x": {}},
            "lang": "fr"}  # fmt: skip
    asked = form_of(KPE).read(body)
    assert (asked.documents, asked.parameters) == (["a"], {"top_n": 2})
    assert asked.warnings == [
        "`lang` in the request is not known and was ignored.",
        "`x` in `component_cfg` is not known and was ignored.",
    ]


@pytest.mark.parametrize("body", [{}, {"articles": None}, {"articles": [], "component_cfg": None}])
def test_absent_articles_are_none(body: Any) -> None:
    """A request without articles asks for nothing, as it did."""
    assert form_of(NER).read(body).documents == []


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({"method": "yake", "threshold": 2}, {"method": "yake", "threshold": 2}),
        ({"methodConfig": {"method": "yake"}}, {"method": "yake"}),
        (None, {}),
    ],
)
def test_documents_are_read(config: Any, parameters: dict[str, Any]) -> None:
    """`method` stands among the parameters, wherever its caller has put it."""
    asked = form_of(KEYWORDS).read({"documents": ["a"], "config": config})
    assert (asked.documents, asked.parameters, asked.warnings) == (["a"], parameters, [])


@pytest.mark.parametrize(
    ("manifest", "body", "pointer"),
    [
        (NER, [], ""),
        (NER, {"articles": {}}, "/articles"),
        (NER, {"articles": ""}, "/articles"),
        (NER, {"articles": [{"text": "a"}, "b"]}, "/articles/1"),
        (NER, {"articles": [{"text": "a"}, {}]}, "/articles/1/text"),
        (NER, {"articles": [{"text": 5}]}, "/articles/0/text"),
        (NER, {"component_cfg": []}, "/component_cfg"),
        (NER, {"component_cfg": {"ner": 1}}, "/component_cfg/ner"),
        (KEYWORDS, {"documents": "abc"}, "/documents"),
        (KEYWORDS, {}, "/documents"),
        (KEYWORDS, {"documents": ["a", None]}, "/documents/1"),
        (KEYWORDS, {"documents": ["a"], "config": "x"}, "/config"),
        (KEYWORDS, {"documents": ["a"], "config": {"methodConfig": 1}}, "/config/methodConfig"),
    ],
)
def test_a_malformed_request_is_told_its_place(manifest: Manifest, body: Any, pointer: str) -> None:
    """A bare string is not a list of texts, and each wrong thing is named."""
    with pytest.raises(InputInvalid) as caught:
        form_of(manifest).read(body)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


# --- nlpConfig (K4) ------------------------------------------------------------------------------


def test_a_type_has_its_keys() -> None:
    """`keyword_extraction` is spoken of as LinTO's clients know it, and others by the same rule."""
    assert config_key("keyword_extraction") == "keywordExtractionConfig"
    assert enable_key("keyword_extraction") == "enableKeywordExtraction"
    assert config_key("ner") == "nerConfig"


def test_a_choice_is_read() -> None:
    """Switch, name, method and parameters, as LinTO Studio sends them."""
    choice = read_choice("keyword_extraction", {
        "enableKeywordExtraction": True, "serviceName": "kw_fr", "method": "frekeybert",
        "methodConfig": {"top_n": 10},
    })  # fmt: skip
    assert (choice.enabled, choice.service) == (True, "kw_fr")
    assert choice.parameters == {"top_n": 10, "method": "frekeybert"}
    assert choice.warnings == []


def test_nothing_said_is_a_choice_too() -> None:
    """A type is on unless it is switched off."""
    assert read_choice("ner", None) == read_choice("ner", {}) == read_choice("ner", {
        "enableNer": None, "serviceName": None, "methodConfig": None})  # fmt: skip
    assert read_choice("ner", {}).enabled
    assert not read_choice("ner", {"enableNer": False}).enabled


def test_the_method_may_stand_inside() -> None:
    """The README's place of `method` counts, unless the other one is filled too."""
    inside = read_choice("ner", {"methodConfig": {"method": "a"}})
    assert (inside.parameters, inside.warnings) == ({"method": "a"}, [])
    both = read_choice("ner", {"method": "b", "methodConfig": {"method": "a"}})
    assert both.parameters == {"method": "b"}
    assert both.warnings == ["`method` is said twice; `b` counts."]


def test_an_unknown_key_is_told() -> None:
    """A key that was dropped in silence is named."""
    choice = read_choice("keyword_extraction", {"top_n": 5})
    assert choice.warnings == ["`top_n` in `keywordExtractionConfig` is not known and was ignored."]


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ([], "/nlpConfig/nerConfig"),
        ({"enableNer": "yes"}, "/nlpConfig/nerConfig/enableNer"),
        ({"serviceName": 1}, "/nlpConfig/nerConfig/serviceName"),
        ({"method": []}, "/nlpConfig/nerConfig/method"),
        ({"methodConfig": "x"}, "/nlpConfig/nerConfig/methodConfig"),
    ],
)
def test_a_malformed_choice_is_told_its_place(config: Any, pointer: str) -> None:
    """What is of the wrong type is refused with its place in the request."""
    with pytest.raises(InputInvalid) as caught:
        read_choice("ner", config)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


# --- the block -----------------------------------------------------------------------------------


def test_a_service_of_texts_speaks_linto_at_once() -> None:
    """Without a block there is a form with the defaults; without texts there is none."""
    form = form_of(PLAIN)
    assert (form.name, form.route, form.default) == ("plain", "/plain/{lang}", False)
    assert form_of(KEYWORDS).route == "/keyword_extraction"
    document = {**PLAIN.document, "input": {"type": "object", "properties": {}}}
    assert from_document(document).linto is None
    numbers = {"type": "array", "items": {"type": "number"}}
    document["input"] = {"type": "object", "properties": {"documents": numbers}}
    assert from_document(document).linto is None


@pytest.mark.parametrize(
    ("block", "pointers"),
    [
        ({"document": "[bad"}, ["/document"]),
        ({"document": "a" * 501}, ["/document"]),
        ({"document": "a", "pairs": "b"}, ["/pairs"]),
        ({"parameters": {"x": "nope"}}, ["/parameters/x"]),
        ({"parameters": {"x": "documents"}}, ["/parameters/x"]),
        ({"parameters": {"x": {"nope": "[0]", "top_n": "]"}}},
         ["/parameters/x/nope", "/parameters/x/top_n"]),
        ({"parameters": {"x": 1}}, ["/parameters/x"]),
        ({"parameters": {"x": {}}}, ["/parameters/x"]),
        ({"defaults": {"y": 1}}, ["/defaults/y"]),
        ({"defaults": {"n": "many"}, "parameters": {"n": "top_n"}}, ["/defaults/n"]),
        ({"defaults": {"h": 1}, "parameters": {"h": None}}, ["/defaults/h"]),
        ({"form": "other"}, ["/form"]),
        ({"name": "a/b"}, ["/name"]),
        ({"name": "run", "form": "documents"}, [""]),
        ({"nmae": "x"}, ["/nmae"]),
    ],
)  # fmt: skip
def test_a_wrong_block_is_told(block: dict[str, Any], pointers: list[str]) -> None:
    """An author reads each mistake at its place, and an orchestrator refuses the manifest."""
    with pytest.raises(ManifestInvalid) as caught:
        service("plain", "plain", {"top_n": NUMBER}, **block)
    assert [problem.pointer for problem in caught.value.problems] == [
        f"/x-linto{pointer}" for pointer in pointers
    ]


def test_a_block_without_texts_is_told() -> None:
    """A block on a service that takes no texts is a mistake."""
    document = {**KPE.document, "output": {"type": "object"}}
    with pytest.raises(ManifestInvalid, match="needs an array `documents`"):
        from_document(document)


def test_a_wrong_block_is_told_with_its_line(tmp_path: Path) -> None:
    """`nlp-runner check` says file and line, as of everything else."""
    document = {key: one for key, one in PLAIN.document.items() if key != "x-linto"}
    path = tmp_path / "plain.yaml"
    text = yaml.safe_dump(document, sort_keys=False)
    path.write_text(text + "x-linto:\n  parameters:\n    a: top_n\n    b: top_m\n")
    with pytest.raises(ManifestInvalid) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.got) == (text.count("\n") + 4, "top_m")
    assert problem.expected == ["top_n"]


def test_the_block_of_the_documentation_is_sound() -> None:
    """What docs/linto.md shows can be copied."""
    page = (Path(__file__).parents[1] / "docs" / "linto.md").read_text("utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    inputs = {"top_n": NUMBER, "min_words": NUMBER, "max_words": NUMBER}
    service("kpe", "keyphrase_extraction", inputs, **yaml.safe_load(shown)["x-linto"])
