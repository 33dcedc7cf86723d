"""The summary service on real English and French texts."""

from __future__ import annotations

import itertools
import math
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from summa.summarizer import summarize

from runner.context import Context
from runner.errors import InputInvalid, Stopped, TimedOut
from runner.handler import resolve
from runner.manifest import load
from runner.testing import check_examples, run

MANIFEST = load(Path(__file__).parents[2] / "manifests" / "extractive-summarization.yaml")

ENGLISH = """\
Comet probe wakes up after ten years

The Rosetta spacecraft left Earth in 2004 and slept for most of its journey to the comet. When its \
alarm clock rang, the spacecraft warmed its instruments, turned its antenna towards Earth and \
called home. The comet, a lump of dust and ice four kilometres wide, had never been seen from so \
near. "We see dust, ice and cliffs," Dr. Amy Holm said.

Rosetta flew beside the comet for two years and set the lander Philae down on the dust of its \
surface. Philae bounced twice, came to rest in the shadow of a cliff and worked for 57 hours until \
its batteries were empty. Its last pictures of the comet reached Earth at night.
"""

FRENCH = """\
Le phare de Cordouan reçoit ses premiers visiteurs de l'année

Le plus vieux phare de France a rouvert jeudi. Bâti sur un rocher à l'embouchure de la Gironde, le \
phare n'est accessible aux visiteurs qu'à marée basse. Les gardiens du phare, qui s'y relaient \
toute l'année, ont passé l'hiver à nettoyer l'escalier et la chapelle. D'après M. Lagarde, qui \
préside l'association des amis du phare, les gardiens accueillent vingt mille visiteurs par an. \
« Nous manquons de place ! » sourit-il.
"""


SUMMARY = resolve(MANIFEST)
DEFAULTS = {"ratio": 0.2, "method": "auto", "use_first": False}


@pytest.fixture(scope="module")
def room() -> ModuleType:
    """Give the module of TextRank, found the way the framework finds it."""
    return sys.modules[f"{SUMMARY.__module__}.textrank"]


@pytest.fixture(scope="module")
def service() -> Any:
    return SUMMARY(SimpleNamespace())


def context(**options: Any) -> Context:
    return Context(
        job_id="j", service="summary", steps=MANIFEST.steps, emit=lambda event: None, **options
    )


def ask(*documents: str, **parameters: Any) -> list[dict[str, Any]]:
    """Run the whole service, schemas included, and return one result a document."""
    outcome = run(MANIFEST, {"documents": list(documents), **parameters})
    assert outcome.error is None, outcome.error
    return outcome.output["documents"]


def texts(result: dict[str, Any]) -> list[str]:
    return [sentence["text"] for sentence in result["sentences"]]


def test_the_examples_are_true():
    """Every example of the manifest gives the result it states."""
    assert check_examples(MANIFEST) == []


@pytest.mark.parametrize(("text", "code"), [(ENGLISH, "en"), (FRENCH, "fr")])
def test_a_summary_is_made_of_the_document(text, code):
    """The chosen sentences are the document's own, in its order, and offsets lead back to them."""
    (result,) = ask(text, ratio=0.5)
    assert result["language"] == code
    assert 1 < len(result["sentences"]) < 6
    for sentence in result["sentences"]:
        assert text[sentence["start"] : sentence["end"]] == sentence["text"]
    starts = [sentence["start"] for sentence in result["sentences"]]
    assert starts == sorted(starts)
    assert result["summary"] == " ".join(texts(result))


def test_offsets_count_code_points():
    """Emoji and combining marks before a sentence do not shift its offsets."""
    text = "🚀🇫🇷 E\u0301te\u0301 ! " + FRENCH
    (result,) = ask(text, sentences=3, language="fr")
    assert all(text[s["start"] : s["end"]] == s["text"] for s in result["sentences"])


def test_results_keep_the_order_of_the_documents():
    """Each result stands at its document's place, whatever stands beside it."""
    results = ask(FRENCH, "", ENGLISH, FRENCH)
    assert [result["language"] for result in results[::2]] == ["fr", "en"]
    assert results[0] == results[3]
    assert results[2] == ask(ENGLISH)[0]


@pytest.mark.parametrize("method", ["auto", "textrank"])
def test_scores_say_which_sentence_is_chosen(method):
    """The best sentence has score 1, and fewer sentences are those with higher scores."""
    (everything,) = ask(ENGLISH, ratio=1, method=method)
    (three,) = ask(ENGLISH, sentences=3, method=method)
    scores = [sentence["score"] for sentence in everything["sentences"]]
    assert max(scores) == 1
    assert all(0 < score <= 1 for score in scores)
    assert sorted(s["score"] for s in three["sentences"]) == sorted(scores)[-3:]
    assert "spacecraft" in three["summary"]


def test_a_number_of_sentences_wins_over_a_ratio():
    """`sentences` is obeyed whatever `ratio` says, and a short document gives all it has."""
    assert len(ask(ENGLISH, ratio=0.9, sentences=2)[0]["sentences"]) == 2
    assert len(ask(ENGLISH, sentences=1000)[0]["sentences"]) == 8


@pytest.mark.parametrize(("ratio", "count"), [(0.001, 1), (0.2, 2), (0.5, 4), (1, 8)])
def test_a_ratio_counts_sentences(ratio, count):
    """`ratio` is the share of the sentences, rounded, and never less than one."""
    assert len(ask(ENGLISH, ratio=ratio)[0]["sentences"]) == count


@pytest.mark.parametrize("text", ["", " \n\t ", "…", "— ! ?\n***\n", "\u200b"])
def test_a_text_without_words_has_no_summary(text):
    """An empty or wordless document gives an empty summary instead of an error."""
    (result,) = ask(text, sentences=3)
    assert (result["summary"], result["sentences"]) == ("", [])


@pytest.mark.parametrize("text", ["Yes", "Oui.", "2024", "the of and", "東京"])
def test_a_text_of_one_sentence_is_its_own_summary(text):
    """Any document with a letter or a digit has one sentence at least."""
    assert ask(f"  {text}\n", ratio=0.01)[0]["summary"] == text


DEBATE = """\
Mme Roy : Bonsoir à tous. Que proposez-vous pour les transports ?
M. Petit : Merci, madame. Je souhaite créer deux lignes de tramway et réduire le prix du billet \
pour les étudiants et les retraités. Vous le savez bien, vous aussi !
Mme Roy : Laissez-moi répondre. Deux lignes de tramway coûtent 300 millions d'euros à la commune.
"""
ABSTRACT = """\
Coral reefs lose their colour when the sea is warm for weeks. Divers count bleached coral reefs by \
hand, which makes surveys of coral reefs slow and costly. {} Satellite images agree with the \
divers on 48 reefs.
"""


@pytest.mark.parametrize(
    "sentence",
    [
        "In this paper we present a method that sees it from space.",
        "We introduce ReefEye, which sees it from space.",
        "Here we show that it can be seen from space.",
    ],
)
def test_an_abstract_is_summarised_by_what_it_announces(sentence):
    """The sentence in which authors say what they did wins over those with more common words."""
    text = ABSTRACT.format(sentence)
    assert texts(ask(text, sentences=1)[0]) == [sentence]
    assert texts(ask(text, sentences=1, method="textrank")[0]) != [sentence]


def test_what_somebody_else_announces_is_news():
    """A quotation with the same words does not make a text an abstract; news begin with theirs."""
    text = ABSTRACT.format('"We present a new pump," said the mayor.')
    assert texts(ask(text, sentences=1)[0])[0].startswith("Coral reefs lose")


def test_a_debate_is_summarised_by_its_demands():
    """Greetings and quarrels about who may speak are left out, demands and figures are kept."""
    chosen = texts(ask(DEBATE, sentences=2)[0])
    assert chosen[0].startswith("Je souhaite créer")
    assert chosen[1].startswith("Deux lignes")


def test_a_headline_gives_way_to_sentences():
    """A line that does not end like a sentence is no summary of an article that has sentences."""
    assert ENGLISH.partition("\n")[0] not in texts(ask(ENGLISH, sentences=3)[0])


def size(result: dict[str, Any]) -> int:
    return len(result["summary"].split())


@pytest.mark.parametrize("text", [ENGLISH, FRENCH, DEBATE], ids=["en", "fr", "debate"])
@pytest.mark.parametrize("words", [1, 8, 25, 60, 10_000])
def test_a_number_of_words_is_a_promise(text, words):
    """A summary never has more words than asked for, and more words never give fewer."""
    (result,), (wider,) = ask(text, words=words), ask(text, words=words + 40, ratio=0.001)
    assert size(result) <= words
    assert size(result) <= size(wider)
    if words > len(text.split()):
        assert result["sentences"] == ask(text, ratio=1)[0]["sentences"]


def test_a_long_sentence_makes_room_for_shorter_ones():
    """The best sentence that fits is kept, though a better one does not fit."""
    (best,) = texts(ask(DEBATE, sentences=1)[0])
    kept = texts(ask(DEBATE, words=len(best.split()) - 1)[0])
    assert kept
    assert best not in kept


def test_words_and_sentences_hold_together():
    """Of a number of words and a number of sentences, neither is passed."""
    (result,) = ask(ENGLISH, words=60, sentences=2)
    assert len(result["sentences"]) == 2
    assert size(result) <= 60


def test_the_first_sentence_may_be_kept():
    """`use_first` gives the first sentence its place among the number asked for."""
    (plain,), (first,) = ask(DEBATE, sentences=2), ask(DEBATE, sentences=2, use_first=True)
    assert plain["sentences"][0]["index"] > 0
    assert first["sentences"][0]["index"] == 0
    assert len(first["sentences"]) == 2
    assert ask("", use_first=True)[0]["sentences"] == []


@pytest.mark.parametrize(
    ("separator", "text"),
    [
        (" | ", "A dog. It barks | rain falls |  | on the Dr. House\nand on us | * "),
        ("|", "A dog. It barks|rain falls|||on the Dr. House\nand on us|"),
        ("<s>", " A dog. It barks <s>\nrain falls<s>on the Dr. House\nand on us<s>"),
    ],
)
def test_units_are_cut_where_the_caller_cut_them(separator, text):
    """With a separator, only it ends a unit, and offsets lead back to what stands between."""
    (result,) = ask(text, language="en", separator=separator, ratio=1)
    assert texts(result) == ["A dog. It barks", "rain falls", "on the Dr. House\nand on us"]
    assert [one["index"] for one in result["sentences"]] == [0, 1, 2]
    assert all(text[one["start"] : one["end"]] == one["text"] for one in result["sentences"])


def test_a_text_without_separators_is_cut_into_sentences():
    """Where a separator is asked for that a text has not, it is cut as if nothing had been said."""
    assert ask(ENGLISH, separator=" | ") == ask(ENGLISH)


def test_sentences_that_share_nothing_are_taken_from_the_start():
    """Without a common word between any two sentences, the first ones are the summary."""
    text = "Dogs bark. Rain falls. Clocks tick. Bread rises. Stars shine."
    for method in ("auto", "textrank"):
        (result,) = ask(text, language="en", sentences=2, method=method)
        assert texts(result) == ["Dogs bark.", "Rain falls."]


def test_nothing_is_said_twice():
    """A repeated sentence is chosen once, its first time, however often it comes."""
    text = "The bridge is closed. " * 5 + "Cars cannot cross the closed bridge. Boats can."
    found = texts(ask(text, language="en", sentences=4)[0])
    assert found == [
        "The bridge is closed.", "Cars cannot cross the closed bridge.", "Boats can.",
    ]  # fmt: skip


def test_the_ranking_is_the_one_of_textrank():
    """Sentences come in the order in which summa's own TextRank ranks them."""
    text = ENGLISH.replace("Dr. ", "").replace("\n\n", "\n")
    theirs = dict(summarize(text, ratio=1.0, scores=True))
    (result,) = ask(text, language="en", ratio=1, method="textrank")
    ours = {one["text"]: one["score"] for one in result["sentences"]}
    assert set(theirs) == set(ours)
    assert sorted(theirs, key=theirs.get) == sorted(ours, key=ours.get)
    top = max(theirs.values())
    assert {one: pytest.approx(score / top, abs=0.01) for one, score in theirs.items()} == ours


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from("abcdefgh"), max_size=7).map(tuple),
        min_size=1, max_size=12, unique=True,
    ),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_products_are_those_of_the_whole_matrix(room, bags, seed):
    """The matrix that is never written down gives the same products as one written in full."""
    matrix = np.zeros((len(bags), len(bags)))
    for (i, one), (j, other) in itertools.permutations(enumerate(bags), 2):
        length = math.log10(max(1, len(one))) + math.log10(max(1, len(other)))
        matrix[i, j] = len(set(one) & set(other)) / length if length else 0
    vector = np.random.default_rng(seed).random(len(bags))
    assert np.allclose(room.Likeness(bags).times(vector), matrix @ vector)


def test_one_bad_document_does_not_take_its_neighbours_along():
    """A document whose work fails has an error in its place; the others have their summaries."""

    class Half(SUMMARY):
        def worth(self, ctx: Context, document: str, *others: Any) -> list[float]:
            if document == "bad":
                raise ValueError(document)
            return super().worth(ctx, document, *others)

    results = Half(SimpleNamespace())(
        context(), documents=["bad", ENGLISH], language="en", **DEFAULTS
    )["documents"]
    assert results[0]["error"]["code"] == "document_failed"
    assert "bad" not in results[0]["error"]["detail"]
    assert results[1]["sentences"]
    assert list(MANIFEST.output_schema.problems({"documents": results})) == []


def test_memory_grows_with_the_text_and_not_with_its_square(room):
    """Thirty thousand sentences, whose full matrix takes 7 GB, are ranked in a hundredth of it."""
    bags = [
        (f"w{i % 977}", f"w{i % 613}", f"v{i}", f"w{i % 7}")[: i % 3 + 2] for i in range(30_000)
    ]
    tracemalloc.start()
    try:
        scores = room.rank(context(), bags)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(scores) == len(bags)
    assert peak < 70_000_000


@pytest.mark.parametrize("method", ["auto", "textrank"])
def test_a_long_document_can_be_stopped_inside(service, method):
    """Within one document, even within one endless sentence, there are checkpoints."""
    for text in (ENGLISH * 20, "word " * 2_000):
        ticks = itertools.count()
        ctx = context(timeout=20, clock=lambda ticks=ticks: float(next(ticks)))
        with pytest.raises(Stopped) as stopped:
            service(ctx, documents=[text], language="en", **{**DEFAULTS, "method": method})
        assert isinstance(stopped.value.error, TimedOut)


@pytest.mark.parametrize(
    "mark",
    [
        ".",
        ". ",
        "e.g. ",
        "(a. ",
        ".)",
        ".[1",
        "A. - ",
        "\n",
        "Yes? ",
        "a",
        "a.b",
        "\u00a0",
        "we ",
        "(A",
        "I : ",
        "vous ",
        "%",
        "1 ",
    ],
)
def test_a_text_made_to_be_slow_is_not(service, mark):
    """Texts at which careless patterns take hours are cut into sentences in seconds."""
    text = "X" + mark * (200_000 // len(mark))
    (result,) = service(context(), documents=[text], language="en", **DEFAULTS)["documents"]
    assert result["sentences"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ratio": 0},
        {"ratio": 1.1},
        {"sentences": 0},
        {"sentences": 1.5},
        {"language": "de"},
        {"rate": 0.2},
        {"words": 0},
        {"method": "best"},
        {"separator": ""},
        {"use_first": 1},
        {"documents": []},
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused(wrong):
    """What the service cannot do is refused before any work, with the place of the mistake."""
    error = run(MANIFEST, {"documents": [ENGLISH], **wrong}).error
    assert isinstance(error, InputInvalid)
    assert next(iter(wrong)) in str(error.problems)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200), ratio=st.floats(0.01, 1))
def test_any_text_is_a_text(service, text, ratio):
    """Whatever the characters, the service answers and its promises about summaries hold."""
    asked = {**DEFAULTS, "ratio": ratio}
    (result,) = service(context(), documents=[text], language="*", **asked)["documents"]
    assert bool(result["sentences"]) == any(map(str.isalnum, text))
    assert all(0 < sentence["score"] <= 1 for sentence in result["sentences"])
    assert all(text[s["start"] : s["end"]] == s["text"] for s in result["sentences"])
