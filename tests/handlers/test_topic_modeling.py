"""The topic service on texts whose topics are known."""

from __future__ import annotations

import itertools
import random
import sys
import tracemalloc
import unicodedata
from itertools import chain
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import events
from runner.context import Context
from runner.errors import InputInvalid, InputRejected, Stopped, TimedOut
from runner.handler import resolve
from runner.manifest import load
from runner.testing import check_examples, run

MANIFEST = load(Path(__file__).parents[2] / "manifests" / "topic-modeling.yaml")

# Sentences of three groups; those of a group share words with each other only.
GROUPS = {
    "en": [
        [
            "The sailors hoisted the sail and left the harbour before the storm.",
            "A storm tore the sail of the old boat outside the harbour.",
            "Every boat in the harbour lost its sail or its mast.",
            "The mast of the boat broke when the storm reached the sailors.",
            "Sailors repaired the mast and the sail in the harbour.",
            "After the storm the sailors painted the boat.",
        ],
        [
            "The baker kneads the dough with flour, salt and yeast.",
            "Bread needs flour and yeast, and an oven that is hot.",
            "The dough rests before the baker bakes the bread in the oven.",
            "Without yeast the dough stays flat and the bread is hard.",
            "The oven of the baker warms the dough and the flour.",
            "Salt and flour make the bread of this baker famous.",
        ],
        [
            "The striker scored a goal and the referee blew the whistle.",
            "Fans cheered the striker when the goalkeeper missed the penalty.",
            "The referee gave a penalty against the goalkeeper.",
            "A penalty in the last minute: the striker scored, the fans sang.",
            "The goalkeeper of the team insulted the referee and the fans.",
            "The team won because its striker scored a penalty.",
        ],
    ],
    "fr": [
        [
            "Le train régional quitte la gare avec les voyageurs du matin.",
            "La gare attend le train et ses voyageurs sur le quai.",
            "Les voyageurs du train achètent leur billet à la gare.",
            "Sur le quai, le contrôleur vérifie le billet des voyageurs.",
            "Le contrôleur ferme les portes du train au bord du quai.",
            "Sans billet, le contrôleur laisse le voyageur à la gare.",
        ],
        [
            "La boulangère pétrit la pâte avec la farine et la levure.",
            "Le pain demande de la farine, de la levure et un four.",
            "La pâte repose, puis la boulangère cuit le pain au four.",
            "Sans levure, la pâte reste plate et le pain est dur.",
            "Le four de la boulangère chauffe le pain et la pâte.",
            "La farine fait le pain de cette boulangère.",
        ],
        [
            "L'attaquant a marqué un but et l'arbitre a sifflé.",
            "Les supporters ont fêté l'attaquant et le gardien battu.",
            "L'arbitre a donné un penalty contre le gardien.",
            "Un penalty, un but : l'attaquant a marqué, les supporters chantent.",
            "Le gardien de l'équipe insulte l'arbitre et les supporters.",
            "L'équipe gagne grâce au penalty que l'attaquant a marqué.",
        ],
    ],
}  # fmt: skip
MIXED = {
    language: [one for row in zip(*groups, strict=True) for one in row]
    for language, groups in GROUPS.items()
}
TRUTH = [0, 1, 2] * 6
OFTEN = {
    "en": [{"sail", "sailors", "harbour", "boat"}, {"bread", "dough"}, {"penalty", "striker"}],
    "fr": [{"train", "gare", "billet"}, {"pain", "pâte", "boulangère"}, {"penalty", "arbitre"}],
}
ANSWER = {
    "language": "*", "scope": "document", "min_topic_size": 3, "min_fit": 0.05, "top_n_words": 10,
    "min_words": 1, "max_words": 1, "seed_topics": [], "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def room() -> ModuleType:
    """Give the handler's module, found the way the framework finds it."""
    return sys.modules[resolve(MANIFEST).__module__]


@pytest.fixture(scope="module")
def service(room: ModuleType) -> Any:
    return room.Topics(SimpleNamespace())


def context(**options: Any) -> Context:
    return Context(
        job_id="j", service="topics", steps=MANIFEST.steps, emit=lambda event: None, **options
    )


def ask(*documents: str, **parameters: Any) -> dict[str, Any]:
    """Run the whole service, schemas included, and return its answer."""
    outcome = run(MANIFEST, {"documents": list(documents), **parameters})
    assert outcome.error is None, outcome.error
    return outcome.output


def one(*documents: str, **parameters: Any) -> dict[str, Any]:
    (result,) = ask(*documents, **parameters)["documents"]
    return result


def labels(result: dict[str, Any]) -> list[int]:
    return [unit["topic"] for unit in result["units"]]


def words(topic: dict[str, Any]) -> list[str]:
    return [word["text"] for word in topic["words"]]


def same_groups(found: list[int], truth: list[int]) -> bool:
    """Tell whether two lists of labels group alike, whatever they call the groups."""
    pairs = set(zip(found, truth, strict=True))
    return len(pairs) == len(set(found)) == len(set(truth))


def test_the_examples_are_true():
    """Every example of the manifest gives the result it states."""
    assert check_examples(MANIFEST) == []


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("topics", [{}, {"topics": 3}], ids=["chosen", "told"])
def test_groups_that_share_words_are_the_topics(language, topics):
    """Sentences of three subjects come back as three topics, also when nobody says how many."""
    result = one("\n".join(MIXED[language]), **topics)
    assert result["language"] == language
    assert same_groups(labels(result), TRUTH)
    assert [topic["count"] for topic in result["topics"]] == [6, 6, 6]
    for expected in OFTEN[language]:
        assert any(expected <= set(words(topic)) for topic in result["topics"])


def test_documents_of_a_request_have_topics_in_common():
    """In the scope of a request a unit is a document, and all of them share one list of topics."""
    answer = ask(*MIXED["en"], scope="request", language="en")
    found = [document["units"] for document in answer["documents"]]
    assert all(len(units) == 1 and "text" not in units[0] for units in found)
    assert same_groups([units[0]["topic"] for units in found], TRUTH)
    assert [topic["count"] for topic in answer["topics"]] == [6, 6, 6]
    assert not any("topics" in document for document in answer["documents"])


def test_documents_of_a_request_can_be_cut_into_units():
    """Units of several documents share topics, and each stands below its own document."""
    documents = ["\n".join(MIXED["en"][start : start + 6]) for start in (0, 6, 12)]
    answer = ask(*documents, scope="request", unit="line")
    found = [labels(document) for document in answer["documents"]]
    assert same_groups(list(chain(*found)), TRUTH)
    for text, document in zip(documents, answer["documents"], strict=True):
        assert [text[u["start"] : u["end"]] for u in document["units"]] == text.splitlines()


@pytest.mark.parametrize(
    ("text", "cutting", "expected"),
    [
        ("One | two || three |  | ", {"separator": " | "}, ["One", "two || three"]),
        ("a.b.c", {"separator": ".", "unit": "line"}, ["a", "b", "c"]),
        ("One\ntwo\n \n\nthree\r\n\r\nfour", {"unit": "paragraph"}, ["One\ntwo", "three", "four"]),
        ("One\ntwo\n \n three \r\nfour", {"unit": "line"}, ["One", "two", "three", "four"]),
        ("Dr. Who left. Nobody saw it.\n", {}, ["Dr. Who left.", "Nobody saw it."]),
        ("no separator here", {"separator": " | "}, ["no separator here"]),
    ],
)
def test_units_are_cut_where_the_caller_says(text, cutting, expected):
    """Sentences, lines, paragraphs or what stands between separators, without blank ones."""
    units = one(text, language="en", **cutting)["units"]
    assert [unit["text"] for unit in units] == expected
    assert [text[unit["start"] : unit["end"]] for unit in units] == expected


def test_offsets_count_code_points():
    """Emoji and combining marks do not shift the places of the units behind them."""
    text = " 🚀🇫🇷 E\u0301te\u0301 \n" + "\n🚀 ".join(MIXED["fr"])
    result = one(text, unit="line", language="fr")
    assert len(result["units"]) == 19
    assert all(text[u["start"] : u["end"]] == u["text"] for u in result["units"])
    assert same_groups(labels(result)[1:], TRUTH)


def test_accents_may_be_written_in_two_ways():
    """Composed and decomposed accents are the same words."""
    text = "\n".join(MIXED["fr"])
    whole, parts = (one(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    assert whole["topics"] == parts["topics"]
    assert labels(whole) == labels(parts)


def test_what_is_about_nothing_else_is_an_outlier():
    """A unit that shares no word with others is in no topic, and a stricter fit leaves out more."""
    text = "\n".join([*MIXED["en"], "Quartz glitters underground.", "12 ... !", "And so it was."])
    result = one(text)
    assert labels(result)[-3:] == [-1, -1, -1]
    assert same_groups(labels(result)[:-3], TRUTH)
    assert all(not any(unit["probabilities"]) for unit in result["units"][-3:])
    assert sum(topic["count"] for topic in result["topics"]) == 18
    fits = [unit["fit"] for unit in result["units"]]
    strict = sorted(fits)[10]
    assert labels(one(text, topics=3, min_fit=strict)).count(-1) >= 10
    assert labels(one(text, min_fit=1)).count(-1) == len(fits)


def test_probabilities_are_shares():
    """There is one for each topic; they sum to 1, and the unit's topic has the largest."""
    result = one("\n".join(MIXED["en"]))
    for unit in result["units"]:
        assert len(unit["probabilities"]) == len(result["topics"])
        assert sum(unit["probabilities"]) == pytest.approx(1, abs=0.001)
        assert unit["probabilities"][unit["topic"]] == max(unit["probabilities"])
        assert 0 < unit["fit"] <= 1


def test_topics_and_words_come_best_first():
    """The largest topic is number 0, and the best word of each topic has score 1."""
    result = one("\n".join([*MIXED["en"], *GROUPS["en"][1][:4]]), top_n_words=4)
    counts = [topic["count"] for topic in result["topics"]]
    assert counts == sorted(counts, reverse=True)
    assert "dough" in words(result["topics"][0])
    assert [topic["id"] for topic in result["topics"]] == [0, 1, 2]
    for topic in result["topics"]:
        scores = [word["score"] for word in topic["words"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == 1
        assert len(scores) == 4


def test_small_topics_are_given_up():
    """No topic is smaller than the caller allows; its units go to others or become outliers."""
    text = "\n".join([*MIXED["en"], *["Quartz glitters underground."] * 3])
    assert len(one(text, topics=4)["topics"]) == 4
    result = one(text, topics=4, min_topic_size=4)
    assert len(result["topics"]) == 3
    assert min(topic["count"] for topic in result["topics"]) >= 4
    assert labels(result)[-3:] == [-1, -1, -1]


def test_forms_of_a_word_are_one():
    """Plurals and capitals are not listed beside the word, which has its most frequent form."""
    text = "\n".join(
        [
            "The galley sails.",
            "Two GALLEYS sail.",
            "Old galleys sailed.",
            "New galleys are sailing.",
        ]
    )
    (topic,) = one(text, language="en", topics=1)["topics"]
    assert words(topic)[0] == "galleys"
    assert "galley" not in words(topic)


def test_phrases_name_topics():
    """Phrases are found as they are written, stop words inside; the topics stay the same."""
    text = "\n".join(f"{one} avec la chambre de commerce" for one in GROUPS["fr"][0])
    text += "\n" + "\n".join(GROUPS["fr"][1])
    short, long = one(text, topics=2), one(text, topics=2, min_words=2, max_words=3)
    assert labels(short) == labels(long)
    found = [words(topic) for topic in long["topics"]]
    assert "chambre de commerce" in list(chain(*found))
    assert all(len(phrase.replace("'", " ").split()) in (2, 3) for phrase in list(chain(*found)))
    both = one(text, topics=2, max_words=3)
    listed = next(words(t) for t in both["topics"] if "chambre de commerce" in words(t))
    assert "commerce" not in listed


def test_seed_topics_draw_topics_to_their_words():
    """Words that the caller calls one topic end up in one, which they would not otherwise."""
    wanted = ["storm", "referee", "whistle"]
    text = "\n".join(MIXED["en"])
    free = one(text, topics=3)
    guided = one(text, topics=3, seed_topics=[wanted, ["xylophone"]])
    assert not any({"storm", "referee"} <= set(words(topic)) for topic in free["topics"])
    assert any({"storm", "referee"} <= set(words(topic)) for topic in guided["topics"])


def test_the_same_request_has_the_same_answer(service):
    """Neither what was asked before nor how often changes an answer."""
    texts = ["\n".join(MIXED["en"]), "\n".join(MIXED["fr"])]
    first = ask(*texts)
    assert ask(*texts) == first
    for documents in (texts[::-1], texts, ["Something else."]):
        again = service(context(), documents=documents, **ANSWER)
    assert service(context(), documents=texts, **ANSWER) == first
    assert again["documents"][0]["topics"] == []


def test_a_seed_changes_no_clear_topic():
    """Topics that are really there are found wherever the random numbers begin."""
    for seed in (1, 2**32 - 1):
        assert same_groups(labels(one("\n".join(MIXED["en"]), seed=seed, topics=3)), TRUTH)


def test_documents_do_not_disturb_each_other():
    """Each document's topics are those it has alone, and languages are told apart."""
    texts = ["\n".join(MIXED["fr"]), "", "\n".join(MIXED["en"])]
    answers = ask(*texts)["documents"]
    assert [answers[0], answers[2]] == [one(texts[0]), one(texts[2])]
    assert [answer["language"] for answer in answers] == ["fr", "en", "en"]
    assert (answers[1]["topics"], answers[1]["units"]) == ([], [])


@pytest.mark.parametrize("scope", ["document", "request"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "Yes.",
        "…",
        "12 34\n56",
        "of the and\nthe and of",
        "東京\n東京\n東京",
        "a\nb\nc\nd",
    ],
)
def test_little_text_has_no_topic(text, scope):
    """Where there is nothing to group all units are outliers, and there is no topic."""
    answer = ask(text, scope=scope)
    (document,) = answer["documents"]
    assert (answer if scope == "request" else document)["topics"] == []
    assert all(unit["topic"] == -1 for unit in document["units"])


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("topics", [{}, {"topics": 5}], ids=["chosen", "told"])
def test_equal_units_are_one_topic(count, topics):
    """Units without any difference are one topic, or none while they are too few for one."""
    result = one("\n".join(["The bridge over the river is closed."] * count), **topics)
    assert labels(result) == ([0] if count >= 3 else [-1]) * count
    if count >= 3:
        (topic,) = result["topics"]
        assert set(words(topic)) == {"bridge", "river", "closed"}


def test_a_failure_harms_one_document_alone(room):
    """A document that cannot be done has an error in place of its result."""

    class Fragile(room.Stemmer):
        def __call__(self, word: str, language: str) -> str | None:
            if word == "trap":
                raise ValueError("caught by a word")
            return super().__call__(word, language)

    service = room.Topics(SimpleNamespace())
    service.stem = Fragile()
    fine = "\n".join(MIXED["en"])
    answers = service(context(), documents=[fine, "A trap.", fine], **ANSWER)["documents"]
    assert answers[0] == answers[2]
    assert same_groups(labels(answers[0]), TRUTH)
    assert answers[1].keys() == {"language", "error"}
    assert answers[1]["error"]["code"] == "document_failed"
    assert "caught" not in str(answers[1])
    with pytest.raises(ValueError, match="caught"):
        service(context(), documents=["A trap.", "Trap!"], **ANSWER)


@pytest.mark.parametrize("scope", ["document", "request"])
def test_work_can_be_stopped_inside(service, scope):
    """There are checkpoints in every step, even within one endless unit."""
    long = "\n".join(MIXED["en"] * 20)
    for text, moments in ((long, (20, 150, 400)), ("word " * 30_000, (10,))):
        for patience in moments:
            ticks = itertools.count()
            ctx = context(timeout=patience, clock=lambda ticks=ticks: float(next(ticks)))
            parameters = {**ANSWER, "scope": scope, "unit": "line" if scope == "request" else None}
            with pytest.raises(Stopped) as stopped:
                service(ctx, documents=[text] * 3, **parameters)
            assert isinstance(stopped.value.error, TimedOut)


@pytest.mark.parametrize("scope", ["document", "request"])
def test_progress_is_told_step_by_step(scope):
    """Every step of the manifest begins and ends, in its order, and the share never falls."""
    told = run(MANIFEST, {"documents": ["\n".join(MIXED["en"])] * 2, "scope": scope}).events
    steps = [(e.step, e.status) for e in told if isinstance(e, events.Step)]
    assert steps == [
        (step.name, status) for step in MANIFEST.steps for status in ("running", "succeeded")
    ]
    shares = [e.progress["percent"] for e in told if isinstance(e, events.Step | events.Progress)]
    assert shares == sorted(shares)


def test_the_model_explains_no_less_from_round_to_round(room):
    """Each sweep of the factorization leaves a smaller error, and nothing below zero."""
    sweep = sys.modules[room.find.__module__].factorize.__globals__["sweep"]
    random = np.random.default_rng(3)
    data, rows, base = random.random((7, 30)), random.random((4, 30)), random.random((4, 7))
    errors = []
    for _ in range(10):
        errors.append(np.linalg.norm(data - base.T @ rows))
        sweep(rows, base @ data, base @ base.T)
    assert errors == sorted(errors, reverse=True)
    assert (rows >= 0).all()


def novel(sentences: int) -> str:
    """Return a text of so many sentences about some twenty things."""
    chance = random.Random(5)
    things = [[f"{a}{b}a" for b in "bcdfghklmnpqrstvwxz"] for a in "blodafekirupsonegumitavolaru"]
    lines = []
    for _ in range(sentences):
        own = chance.choice(things)
        lines.append(
            " ".join(chance.choices(own, k=8) + chance.choices(chance.choice(things), k=3))
        )
    return "\n".join(lines)


def test_time_and_memory_grow_with_the_text(service):
    """Five thousand sentences are done with a bounded share of memory, not with their square."""
    text = novel(5_000)
    tracemalloc.start()
    try:
        (result,) = service(context(), documents=[text], **{**ANSWER, "language": "en"})[
            "documents"
        ]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(result["units"]) == 5_000
    assert peak < 60_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"topics": 0},
        {"topics": "auto"},
        {"min_topic_size": 1},
        {"min_fit": 1.1},
        {"top_n_words": 0},
        {"max_words": 5},
        {"separator": ""},
        {"unit": "word"},
        {"scope": "all"},
        {"seed": -1},
        {"seed_topics": ["word"]},
        {"language": "de"},
        {"clusters": 3},
        {"documents": []},
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused(wrong):
    """What the service cannot do is refused before any work, with the place of the mistake."""
    error = run(MANIFEST, {"documents": [MIXED["en"][0]], **wrong}).error
    assert isinstance(error, InputInvalid)
    assert next(iter(wrong)) in str(error.problems)


def test_phrases_cannot_be_longer_than_the_longest():
    """A shortest phrase that is longer than the longest is refused in words."""
    error = run(MANIFEST, {"documents": ["a"], "min_words": 3, "max_words": 2}).error
    assert isinstance(error, InputRejected)
    assert "max_words" in error.detail


PARTS = [
    "M. ",
    "boat",
    "Boats",
    "mât",
    "ma\u0302t",
    ". ",
    "\n",
    " | ",
    "12",
    "l'",
    "İ",
    "ﬁn",
    "\u0301",
    "ﷺ",
]


@settings(max_examples=150, deadline=None)
@given(
    documents=st.lists(
        st.text(max_size=80) | st.lists(st.sampled_from(PARTS), max_size=60).map("".join),
        min_size=1, max_size=5,
    ),
    cutting=st.sampled_from(
        [{}, {"unit": "line"}, {"unit": "paragraph"}, {"unit": "document"}, {"separator": " | "}]
    ),
    scope=st.sampled_from(["document", "request"]),
    topics=st.none() | st.integers(1, 9),
    longest=st.integers(1, 4),
)  # fmt: skip
def test_any_text_is_a_text(service, documents, cutting, scope, topics, longest):
    """Whatever the characters, the service answers and its promises hold."""
    answer = service(
        context(), documents=documents, topics=topics, min_topic_size=2,
        **{k: v for k, v in ANSWER.items() if k not in ("scope", "min_topic_size", "max_words")},
        **cutting, scope=scope, max_words=longest,
    )  # fmt: skip
    counted: dict[int, int] = {}
    for text, document in zip(documents, answer["documents"], strict=True):
        topics_of = answer["topics"] if scope == "request" else document["topics"]
        counted = counted if scope == "request" else {}
        for unit in document["units"]:
            assert text[unit["start"] : unit["end"]] == unit.get("text", text)
            assert -1 <= unit["topic"] < len(topics_of) == len(unit["probabilities"])
            counted[unit["topic"]] = counted.get(unit["topic"], 0) + 1
        if scope == "document":
            assert [topic["count"] for topic in topics_of] == [
                counted.get(topic["id"], 0) for topic in topics_of
            ]
        for topic in topics_of:
            assert topic["count"] >= 2
            assert words(topic)
            assert all(word["text"] == word["text"].strip() != "" for word in topic["words"])
            assert len(set(words(topic))) == len(words(topic))
