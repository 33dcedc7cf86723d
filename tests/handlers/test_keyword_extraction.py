"""The keyword service on real English and French texts."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.context import Context
from runner.errors import InputInvalid, Stopped, TimedOut
from runner.handler import resolve
from runner.manifest import load
from runner.testing import check_examples, run

MANIFEST = load(Path(__file__).parents[2] / "manifests" / "keyword-extraction.yaml")

ENGLISH = """\
Comet probe wakes up after ten years

The Rosetta spacecraft left Earth in 2004 and slept for most of its journey to the comet. When its
alarm clock rang, Rosetta warmed its instruments, turned its antenna towards Earth and called home.
The comet, a lump of dust and ice four kilometres wide, had never been seen from so near. Rosetta
flew beside the comet for two years and set the lander Philae down on its surface. Philae bounced
twice, came to rest in the shadow of a cliff and worked for 57 hours until its batteries were empty.
"""

FRENCH = """\
Le phare de Cordouan reçoit ses premiers visiteurs de l'année

Le plus vieux phare de France a rouvert jeudi. Bâti sur un rocher à l'embouchure de la Gironde, le
phare n'est accessible qu'à marée basse. Les gardiens du phare, qui s'y relaient toute l'année, ont
passé l'hiver à nettoyer l'escalier et la chapelle. D'après le syndicat qui gère l'édifice, les
gardiens accueillent vingt mille visiteurs par an. L'édifice, inscrit au patrimoine mondial, attire
aussi les historiens : la chapelle et l'appartement du roi datent du règne d’Henri IV.
"""


@pytest.fixture(scope="module")
def room() -> ModuleType:
    """Give the handler's module, found the way the framework finds it."""
    return sys.modules[resolve(MANIFEST).__module__]


@pytest.fixture(scope="module")
def service(room: ModuleType) -> Any:
    return room.Keywords(SimpleNamespace())


def context(**options: Any) -> Context:
    return Context(
        job_id="j", service="keywords", steps=MANIFEST.steps, emit=lambda event: None, **options
    )


def ask(*documents: str, **parameters: Any) -> list[dict[str, Any]]:
    """Run the whole service, schemas included, and return one result a document."""
    outcome = run(MANIFEST, {"documents": list(documents), **parameters})
    assert outcome.error is None, outcome.error
    return outcome.output["documents"]


def texts(result: dict[str, Any]) -> list[str]:
    return [keyword["text"] for keyword in result["keywords"]]


def test_the_examples_are_true():
    """Every example of the manifest gives the result it states."""
    assert check_examples(MANIFEST) == []


def test_keywords_tell_what_a_text_is_about():
    """The subjects of an English and of a French article are among their first keywords."""
    english, french = ask(ENGLISH, FRENCH)
    assert (english["language"], french["language"]) == ("en", "fr")
    assert {"Rosetta", "Comet", "Earth"} <= set(texts(english)[:5])
    assert {"phare", "Cordouan", "édifice"} <= set(texts(french)[:5])


def test_results_keep_the_order_of_the_documents():
    """Each result stands at its document's place, whatever stands beside it."""
    results = ask(FRENCH, "", ENGLISH, FRENCH)
    assert [result["language"] for result in results[::2]] == ["fr", "en"]
    assert results[0] == results[3]
    assert results[2] == ask(ENGLISH)[0]


@pytest.mark.parametrize("words", [1, 3, 5])
def test_scores_fall_from_the_best_keyword_on(words):
    """Scores lie in (0, 1], the best first, and no keyword comes twice in another case."""
    for result in ask(ENGLISH, FRENCH, ENGLISH.upper(), max_words=words, top_n=200):
        scores = [keyword["score"] for keyword in result["keywords"]]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < score <= 1 for score in scores)
        folded = [text.casefold() for text in texts(result)]
        assert len(set(folded)) == len(folded) > 5


def test_a_plural_in_s_is_not_another_keyword():
    """A word and its plural in `s` take one place, not two."""
    (result,) = ask("The lander slept. Two landers woke. The lander called the other landers.")
    assert sum(text.lower().startswith("lander") for text in texts(result)) == 1


@pytest.mark.parametrize("text", ["", " \n\t ", "12 345, 67 % !", "— … ?", "the of and", "\u200b"])
def test_a_text_without_words_has_no_keywords(text):
    """An empty or wordless document gives an empty list instead of an error."""
    assert ask(text)[0]["keywords"] == []


@pytest.mark.parametrize("apostrophe", ["'", "’"])
def test_a_french_word_is_found_behind_its_article(apostrophe):
    """An elided article or conjunction, straight or curly, is no part of a keyword."""
    text = "Qu'il pleuve ou non, l'Europe vote. L'Europe attend qu'elle vote, lorsqu'arrive l'été."
    (result,) = ask(text.replace("'", apostrophe), language="fr", top_n=50)
    assert "Europe" in texts(result)
    assert not any("'" in keyword or "’" in keyword for keyword in texts(result))


@pytest.mark.parametrize("apostrophe", ["'", "’"])
def test_a_french_phrase_keeps_its_inner_article(apostrophe):
    """A phrase over an elided article is written as French writes it, with one apostrophe."""
    text = f"Le chef d{apostrophe}orchestre salue. Le chef d{apostrophe}orchestre revient."
    (result,) = ask(text, language="fr", max_words=3)
    assert "chef d'orchestre" in texts(result)


def test_debate_is_not_about_its_verbs():
    """French auxiliaries and connectives, the most frequent words of speech, are no keywords."""
    text = (
        "Alors vous avez dit qu'il faut faire vite, parce que nous avons, est-ce que c'est, faire."
    )
    assert not set(texts(ask(text, language="fr", top_n=50)[0])) & {
        "alors", "avez", "dit", "faut", "faire", "parce", "avons", "est-ce",
    }  # fmt: skip


def test_a_title_is_not_joined_to_the_line_below_it():
    """No phrase reaches from one line into the next, unless that goes on in lower case."""
    text = "Lancement du Dragon\nÉtats-Unis : la fusée\nneuve décolle."
    found = texts(ask(text, language="fr", max_words=2, top_n=50)[0])
    assert "Dragon États-Unis" not in found
    assert "fusée neuve" in found


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5])
def test_keywords_have_the_asked_number_of_words(words):
    """`max_words` bounds the words of a keyword, and longer ones than before come with it."""
    counts = {len(text.replace("'", " ").split()) for text in texts(
        ask(FRENCH, max_words=words, top_n=200)[0]
    )}  # fmt: skip
    assert max(counts) == words


def test_the_first_ones_do_not_depend_on_their_number():
    """`top_n` cuts the ranking and changes nothing else; the default is 10."""
    many, few = ask(ENGLISH, top_n=200)[0]["keywords"], ask(ENGLISH, top_n=3)[0]["keywords"]
    assert few == many[:3]
    assert ask(ENGLISH)[0]["keywords"] == many[:10]


def test_a_phrase_over_two_stop_words_does_not_win_by_accident():
    """The phrase `contrôle de la Kapisa`, which yake weighs below zero, is not first of all."""
    text = "Kaboul, capitale, garde le contrôle de la Kapisa. Kaboul tient la capitale. "
    text += "On parle de Paris et de Rome. On aime la mer, la lune. " * 6
    found = texts(ask(text, language="fr", max_words=4, top_n=50)[0])
    assert found.index("Paris") < found.index("contrôle de la Kapisa")


def test_the_language_asked_for_is_the_language_used():
    """A language given by the caller, regional or not, is not overruled by detection."""
    assert ask(FRENCH, language="en")[0]["language"] == "en"
    assert ask(FRENCH, language="fr-CA")[0] == ask(FRENCH)[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_n": 0},
        {"top_n": 201},
        {"max_words": 0},
        {"max_words": 6},
        {"method": "magic"},
        {"language": "de"},
        {"topn": 5},
        {"documents": []},
        {"documents": [7]},
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused(wrong):
    """What the service cannot do is refused before any work, with the place of the mistake."""
    error = run(MANIFEST, {"documents": [ENGLISH], **wrong}).error
    assert isinstance(error, InputInvalid)
    assert next(iter(wrong)) in str(error.problems)


def test_spelling_variants_of_one_text_give_one_answer():
    """Decomposed accents, soft hyphens and curly apostrophes change no keyword."""
    plain = "Le préfet a visité l'école. L'école du préfet est fermée."
    odd = plain.replace("é", "e\u0301").replace("'", "’").replace("école", "éco\u00adle")
    assert ask(plain, language="fr")[0] == ask(odd, language="fr")[0]


def test_what_is_longer_than_any_word_is_no_keyword():
    """A key or a hash in a text does not come back as a keyword."""
    (result,) = ask("The token is " + "abcdefghij" * 20 + " and the comet is Rosetta.")
    assert max(map(len, texts(result))) < 50
    assert "Rosetta" in texts(result)


def test_a_long_document_can_be_stopped_inside(service):
    """Within one document there are checkpoints, so cancelling and deadlines work."""
    ticks = itertools.count()
    ctx = context(timeout=10, clock=lambda: float(next(ticks)))
    with pytest.raises(Stopped) as stopped:
        service(ctx, documents=[ENGLISH * 40], language="en", top_n=5, max_words=1, method="yake")
    assert isinstance(stopped.value.error, TimedOut)


@pytest.mark.parametrize(
    "mark", ["a", "a ", ". ", "e.g. ", "(a. ", "l'a ", "a-", "\n", "é\n", "@a"]
)
def test_a_text_made_to_be_slow_is_not(service, mark):
    """Texts that are quadratic for yake's sentence splitter take seconds, not hours."""
    (result,) = service(
        context(), documents=[mark * (50_000 // len(mark))], language="fr", top_n=5, max_words=2,
        method="yake",
    )["documents"]  # fmt: skip
    assert len(result["keywords"]) <= 5


def test_pieces_of_a_line_are_the_line(room):
    """A line is cut into bounded pieces without losing or doubling a character."""
    for line in ["", "a" * 25_000, "word " * 5_000, "One sentence. " * 2_000, "x" * room.BLOCK]:
        pieces = list(room.pieces(line))
        assert "".join(pieces) == line
        assert all(len(piece) <= room.BLOCK for piece in pieces)


def test_blocks_are_bounded_whatever_the_lines(room):
    """A text of short lower-case lines is read in blocks too, not joined to one."""
    blocks = list(room.blocks("lower case line\n" * 10_000))
    assert max(map(len, blocks)) <= room.BLOCK
    assert sum(block.count("lower") for block in blocks) == 10_000


PARTS = ["l'", "’", " ", ". ", "\n", "Été", "de", "la", "Dr.", "U.S.", "x", "9", "ß", "\u0301"]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(max_size=300) | st.lists(st.sampled_from(PARTS), max_size=60).map("".join),
    words=st.integers(1, 5),
    language=st.sampled_from(["en", "fr", "*"]),
)
def test_any_text_is_a_text(service, text, words, language):
    """Whatever the characters, the service answers and its promises about keywords hold."""
    (result,) = service(
        context(), documents=[text], language=language, top_n=200, max_words=words, method="yake"
    )["documents"]
    found = texts(result)
    assert all(found)
    assert len({one.lower() for one in found}) == len(found)
    assert all(0 < keyword["score"] <= 1 for keyword in result["keywords"])
