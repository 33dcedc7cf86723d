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


@pytest.fixture(scope="module")
def room() -> ModuleType:
    """Give the handler's module, found the way the framework finds it."""
    return sys.modules[resolve(MANIFEST).__module__]


@pytest.fixture(scope="module")
def service(room: ModuleType) -> Any:
    return room.Summary(SimpleNamespace())


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


def test_scores_say_which_sentence_is_central():
    """The most central sentence has score 1, and fewer sentences are those with higher scores."""
    (everything,), (three,) = ask(ENGLISH, ratio=1), ask(ENGLISH, sentences=3)
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


def test_sentences_that_share_nothing_are_taken_from_the_start():
    """Without a common word between any two sentences, the first ones are the summary."""
    text = "Dogs bark. Rain falls. Clocks tick. Bread rises. Stars shine."
    assert texts(ask(text, language="en", sentences=2)[0]) == ["Dogs bark.", "Rain falls."]


def test_nothing_is_said_twice():
    """A repeated sentence is chosen once, its first time, however often it comes."""
    text = "The bridge is closed. " * 5 + "Cars cannot cross the closed bridge. Boats can."
    found = texts(ask(text, language="en", sentences=4)[0])
    assert found == [
        "The bridge is closed.", "Cars cannot cross the closed bridge.", "Boats can.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["Dr. Who met Mr. and Mrs. Hall.", "They left at 5 p.m. on Jan. 12."]),
        ("en", ["The U.S. Senate voted.", "It met in the U.S. Capitol."]),
        ("en", ["He lives in the U.S.", "The law is new."]),
        ("en", ["J. R. R. Tolkien wrote it, e.g. in Oxford, cf. Smith et al. 1999."]),
        ("en", ["See fig. 3 and no. 7.", "She said no.", "He paid $3.50."]),
        ("en", ['"Stop!" he cried.', "Why?", "Nobody (not even he) knew."]),
        ("en", ["Acme Inc. Chairman Lee left Acme Inc.", "The firm is sad."]),
        ("en", ["It was true.[12]", "It was new. [3]", "Everybody knew…", "And then?!"]),
        ("fr", ["M. Martin et Mme Petit sont là.", "MM. Roy et Dr. Blanc aussi."]),
        ("fr", ["Voir art. 12, p. 3 et chap. IV.", "Il a dit « Non. »", "Puis rien."]),
        ("fr", ["Rome, 44 av. J.-C. environ.", "J. Le Goff l'écrit."]),
        ("fr", ["Né en 44 av. J.-C.", "Il meurt à Rome."]),
        ("fr", ["Le S.N.C.F. roule, etc.", "L'été vient !", "« Vraiment ? » dit-elle."]),
        ("fr", ["L'entreprise Dupont et Cie. Paris est fermée."]),
        ("fr", ["Il mesure 1.80 m.", "Elle court 5 km.", "À Paris, il pleut."]),
        ("en", ["it is all in lower case.", "nobody cares.", "do you?"]),
    ],
)  # fmt: skip
def test_sentences_end_where_a_reader_ends_them(room, language, sentences):
    """Abbreviations, initials, quotes and note marks do not mislead the cutting of sentences."""
    text = " ".join(sentences)
    assert [text[slice(*span)] for span in room.split(text, language)] == sentences


@pytest.mark.parametrize("border", ["\n", "\r\n", "\n\n", " \n\t\n ", "\u2028"])
def test_a_line_break_ends_a_sentence(room, border):
    """A title without a full stop is a sentence of its own, whatever the system's line breaks."""
    text = f"A title{border}Its first sentence. its second{border}1. An item"
    found = [text[slice(*span)] for span in room.split(text, "en")]
    assert found == ["A title", "Its first sentence. its second", "1. An item"]


def test_the_ranking_is_the_one_of_textrank(service, room):
    """Sentences come in the order in which summa's own TextRank ranks them."""
    text = ENGLISH.replace("Dr. ", "").replace("\n\n", "\n")
    theirs = dict(summarize(text, ratio=1.0, scores=True))
    spans = [text[slice(*span)] for span in room.split(text, "en")]
    ours = room.rank(context(), [service.bag(context(), one, "en") for one in spans])
    ours = dict(zip(spans, ours, strict=True))
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


def test_a_long_document_can_be_stopped_inside(service):
    """Within one document, even within one endless sentence, there are checkpoints."""
    for text in (ENGLISH * 20, "word " * 2_000):
        ticks = itertools.count()
        ctx = context(timeout=20, clock=lambda ticks=ticks: float(next(ticks)))
        with pytest.raises(Stopped) as stopped:
            service(ctx, documents=[text], language="en", ratio=0.2)
        assert isinstance(stopped.value.error, TimedOut)


@pytest.mark.parametrize(
    "mark", [".", ". ", "e.g. ", "(a. ", ".)", ".[1", "A. - ", "\n", "Yes? ", "a", "a.b", "\u00a0"]
)
def test_a_text_made_to_be_slow_is_not(service, mark):
    """Texts at which careless patterns take hours are cut into sentences in seconds."""
    (result,) = service(
        context(), documents=["X" + mark * (200_000 // len(mark))], language="en", ratio=0.1
    )["documents"]
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
        {"documents": []},
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused(wrong):
    """What the service cannot do is refused before any work, with the place of the mistake."""
    error = run(MANIFEST, {"documents": [ENGLISH], **wrong}).error
    assert isinstance(error, InputInvalid)
    assert next(iter(wrong)) in str(error.problems)


PARTS = ["M. ", "U.S. ", "a", "Le", ". ", ".", "!", "»", "\n", " ", "12", "É", "[1]", "—", "\u0301"]


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=200) | st.lists(st.sampled_from(PARTS), max_size=40).map("".join),
    language=st.sampled_from(["en", "fr"]),
)
def test_no_character_is_lost_between_sentences(room, text, language):
    """Sentences follow each other without overlap and hold all of a text but its white space."""
    spans = list(room.split(text, language))
    ends = [0, *itertools.chain.from_iterable(spans), len(text)]
    assert ends == sorted(ends)
    assert not "".join(text[a:b] for a, b in zip(ends[::2], ends[1::2], strict=True)).strip()
    assert all(text[a:b] and text[a:b] == text[a:b].strip() for a, b in spans)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200), ratio=st.floats(0.01, 1))
def test_any_text_is_a_text(service, text, ratio):
    """Whatever the characters, the service answers and its promises about summaries hold."""
    (result,) = service(context(), documents=[text], language="*", ratio=ratio)["documents"]
    assert bool(result["sentences"]) == any(map(str.isalnum, text))
    assert all(0 < sentence["score"] <= 1 for sentence in result["sentences"])
    assert all(text[s["start"] : s["end"]] == s["text"] for s in result["sentences"])
