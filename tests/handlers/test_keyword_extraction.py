"""The keyword service on real English and French texts."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from time import process_time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.context import Context
from runner.engine import Engine
from runner.errors import InputInvalid, InputRejected, Stopped, TimedOut
from runner.handler import resolve
from runner.manifest import load
from runner.testing import check_examples, run

Ask = Callable[..., list[dict[str, Any]]]

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


METHODS = [
    "tfidf",
    "yake",
    "frequencies",
    "textrank",
    "positionrank",
    "topicrank",
    "multipartiterank",
]
GRAPHS = METHODS[3:]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Give the service as it is served, its models loaded once."""
    engine = Engine(MANIFEST)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def service() -> Any:
    """Give the handler itself, found the way the framework finds it."""
    return resolve(MANIFEST)(SimpleNamespace())


@pytest.fixture(scope="module")
def ask(engine: Engine) -> Ask:
    """Give a function that runs the whole service, schemas included: one result a document."""

    def ask(*documents: str, **parameters: Any) -> list[dict[str, Any]]:
        return output(engine, *documents, **parameters)["documents"]

    return ask


def output(engine: Engine, *documents: str, **parameters: Any) -> dict[str, Any]:
    """Run the whole service and return its whole output."""
    request = {"documents": list(documents), **parameters}
    outcome = engine.run("test", request, emit=lambda event: None)
    assert outcome.error is None, outcome.error
    return outcome.output


def texts(result: dict[str, Any]) -> list[str]:
    return [keyword["text"] for keyword in result["keywords"]]


def test_the_examples_are_true():
    """Every example of the manifest gives the result it states."""
    assert check_examples(MANIFEST) == []


def test_keywords_tell_what_a_text_is_about(ask):
    """The subjects of an English and of a French article are among their first keywords."""
    english, french = ask(ENGLISH, FRENCH)
    assert (english["language"], french["language"]) == ("en", "fr")
    assert {"Rosetta", "Comet probe"} <= set(texts(english)[:5])
    assert {"phare", "gardiens"} <= set(texts(french)[:5])


def test_results_keep_the_order_of_the_documents(ask):
    """Each result stands at its document's place, whatever stands beside it."""
    results = ask(FRENCH, "", ENGLISH, FRENCH)
    assert [result["language"] for result in results[::2]] == ["fr", "en"]
    assert results[0] == results[3]
    assert results[2] == ask(ENGLISH)[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("words", [1, 3])
def test_every_method_keeps_the_promises(ask, method, words):
    """Scores lie in (0, 1], the best first; none twice; every offset is an occurrence."""
    for text in (ENGLISH, FRENCH, ENGLISH.upper(), ENGLISH + FRENCH):
        (result,) = ask(text, max_words=words, top_n=200, method=method)
        assert result["method"] == method
        keep_promises(text, result, words)
        assert len(result["keywords"]) > 5


def keep_promises(text: str, result: dict[str, Any], words: int) -> None:
    scores = [keyword["score"] for keyword in result["keywords"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    folded = [one.lower() for one in texts(result)]
    assert len(set(folded)) == len(folded)
    for keyword in result["keywords"]:
        said = [text[place["start"] : place["end"]] for place in keyword["offsets"]]
        assert keyword["count"] >= len(said)
        assert all(one and one == one.strip() for one in said)
        if result["method"] != "yake":
            assert keyword["text"] in [plain(one) for one in said]
            assert len(said) == min(50, keyword["count"])
        assert len(keyword["text"].split()) <= words


def plain(text: str) -> str:
    text = unicodedata.normalize("NFC", text.translate(dict.fromkeys([0xAD, 0x200C, 0x200D])))
    return " ".join(text.translate(str.maketrans("’‑‐", "'--")).split())


@pytest.mark.parametrize("method", METHODS)
def test_a_request_has_one_answer(ask, method):
    """The same request gets the same answer, from a fresh service too."""
    request = {"documents": [ENGLISH, FRENCH], "method": method, "top_n": 50}
    first = ask(*request["documents"], method=method, top_n=50)
    assert ask(*request["documents"], method=method, top_n=50) == first
    assert run(MANIFEST, request).output["documents"] == first


@pytest.mark.parametrize("method", ["keybert", "frekeybert"])
def test_a_method_that_is_not_here_is_done_by_another(engine, method):
    """LinTO's methods over embeddings are accepted; the answer says what was used instead."""
    answer = output(engine, ENGLISH, method=method)
    assert answer["documents"] == output(engine, ENGLISH, method="tfidf")["documents"]
    assert f"`{method}`" in answer["warnings"][0]
    assert output(engine, ENGLISH)["warnings"] == []


def test_a_parameter_without_effect_is_told(engine):
    """What the method does not use is said, and what it uses is not."""
    asked = {"damping": 0.5, "steps": 5, "window": 3}
    told = output(engine, ENGLISH, **asked)["warnings"]
    assert [one.partition("`")[2].partition("`")[0] for one in told] == list(asked)
    assert output(engine, ENGLISH, method="textrank", **asked)["warnings"] == []
    (told,) = output(engine, ENGLISH, method="topicrank", **asked)["warnings"]
    assert told.startswith("`window` has no effect")


@pytest.mark.parametrize("method", GRAPHS)
def test_the_walk_can_be_changed(ask, method):
    """`damping` and `steps` reach the methods that walk over a graph."""
    plain = ask(ENGLISH, method=method, top_n=50)
    assert ask(ENGLISH, method=method, top_n=50, damping=0.2) != plain
    assert ask(ENGLISH, method=method, top_n=50, steps=1) != plain


def test_a_wider_window_joins_more_words(ask):
    """`window` reaches the methods over words."""
    for method in ("textrank", "positionrank"):
        narrow, wide = (ask(ENGLISH, method=method, top_n=50, window=size) for size in (2, 20))
        assert narrow != wide


def test_frequencies_are_shares_of_the_words(ask):
    """A word's score is its share of all words that are no stop words, as LinTO counts."""
    (result,) = ask("A fox and a hen. The foxes ran; the dog ran.", method="frequencies")
    scores = {one["text"]: (one["score"], one["count"]) for one in result["keywords"]}
    assert scores == {
        "fox": (0.3333, 2),
        "ran": (0.3333, 2),
        "hen": (0.1667, 1),
        "dog": (0.1667, 1),
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_threshold_is_to_be_passed(ask, method):
    """With `threshold` 1, only what occurs twice or more comes back."""
    (result,) = ask(ENGLISH, method=method, threshold=1, top_n=200)
    assert result["keywords"]
    assert all(keyword["count"] > 1 for keyword in result["keywords"])


@pytest.mark.parametrize("method", METHODS)
def test_stop_words_are_no_keywords(ask, method):
    """`add_stop_words` extends the list of every method, in whatever case."""
    (result,) = ask(ENGLISH, method=method, add_stop_words=["ROSETTA", "comet"], top_n=200)
    assert not [one for one in texts(result) if {"rosetta", "comet"} & set(one.lower().split())]


def test_stop_words_replace_the_list(ask):
    """With `stop_words` the built-in ones count no more, and only for this request."""
    text = "On Monday the council met. On Monday the mayor spoke."
    assert "Monday" not in texts(ask(text)[0])
    assert "Monday" in texts(ask(text, stop_words=["mayor"])[0])
    assert "mayor" not in texts(ask(text, stop_words=["mayor"])[0])
    assert "the" in texts(ask(text, method="frequencies", stop_words=[])[0])
    assert "Monday" not in texts(ask(text)[0])


def test_the_fewest_words_are_kept(ask):
    """`min_words` leaves out shorter keywords, with every method."""
    for method in METHODS:
        found = texts(ask(ENGLISH, method=method, min_words=2, top_n=200)[0])
        assert all(len(one.split()) >= 2 for one in found)
        assert found


def test_more_than_the_most_words_is_refused():
    """`min_words` above `max_words` is a mistake of the caller, not an empty answer."""
    error = run(MANIFEST, {"documents": [ENGLISH], "min_words": 3, "max_words": 2}).error
    assert isinstance(error, InputRejected)
    assert "`min_words` is 3" in error.detail


def test_a_name_is_not_cut(ask):
    """Of a name of several words, a single one is a keyword only where it stands alone."""
    text = (
        "In May, Alan Turing and Joan Clarke were in London. Then Turing was here, and Turing left."
    )
    found = texts(ask(text, language="en", top_n=50)[0])
    assert {"Alan Turing", "Joan Clarke", "Turing"} <= set(found)
    assert not {"Alan", "Joan", "Clarke"} & set(found)


def test_a_plural_in_s_is_not_another_keyword(ask):
    """A word and its plural in `s` take one place, not two."""
    for method in METHODS:
        text = "The lander slept. Two landers woke. The lander called the other landers."
        (result,) = ask(text, method=method)
        assert sum("lander" in text.lower() for text in texts(result)) == 1


@pytest.mark.parametrize("text", ["", " \n\t ", "12 345, 67 % !", "— … ?", "the of and", "\u200b"])
def test_a_text_without_words_has_no_keywords(ask, text):
    """An empty or wordless document gives an empty list instead of an error."""
    for method in METHODS:
        assert ask(text, method=method)[0]["keywords"] == []


@pytest.mark.parametrize("apostrophe", ["'", "’"])
def test_a_french_word_is_found_behind_its_article(ask, apostrophe):
    """An elided article or conjunction, straight or curly, is no part of a keyword."""
    text = "Qu'il pleuve ou non, l'Europe vote. L'Europe attend qu'elle vote, lorsqu'arrive l'été."
    for method in METHODS:
        (result,) = ask(text.replace("'", apostrophe), language="fr", top_n=50, method=method)
        assert "Europe" in texts(result)
        assert not any("'" in keyword or "’" in keyword for keyword in texts(result))


@pytest.mark.parametrize("apostrophe", ["'", "’"])
def test_a_french_phrase_keeps_its_inner_article(ask, apostrophe):
    """A phrase over an elided article is written as French writes it, with one apostrophe."""
    text = f"Le chef d{apostrophe}orchestre salue. Le chef d{apostrophe}orchestre revient."
    for method in ("tfidf", "yake"):
        (result,) = ask(text, language="fr", max_words=3, method=method)
        assert "chef d'orchestre" in texts(result)


def test_debate_is_not_about_its_verbs(ask):
    """French auxiliaries and connectives, the most frequent words of speech, are no keywords."""
    text = (
        "Alors vous avez dit qu'il faut faire vite, parce que nous avons, est-ce que c'est, faire."
    )
    for method in METHODS:
        assert not set(texts(ask(text, language="fr", top_n=50, method=method)[0])) & {
            "alors", "avez", "dit", "faut", "faire", "parce", "avons", "est-ce",
        }  # fmt: skip


def test_a_title_is_not_joined_to_the_line_below_it(ask):
    """No phrase reaches from one line into the next, unless that goes on in lower case."""
    text = "Lancement du Dragon\nÉtats-Unis : la fusée\nneuve décolle."
    for method in ("tfidf", "yake"):
        found = texts(ask(text, language="fr", max_words=2, top_n=50, method=method)[0])
        assert "Dragon États-Unis" not in found
        assert "fusée neuve" in found


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5])
def test_keywords_have_the_asked_number_of_words(ask, words):
    """`max_words` bounds the words of a keyword, and longer ones than before come with it."""
    for method in ("yake", "frequencies"):
        counts = {len(text.replace("'", " ").split()) for text in texts(
            ask(FRENCH, max_words=words, top_n=200, method=method)[0]
        )}  # fmt: skip
        assert max(counts) == words if method == "yake" else max(counts) <= words


def test_the_first_ones_do_not_depend_on_their_number(ask):
    """`top_n` cuts the ranking and changes nothing else; the default is 10."""
    many, few = ask(ENGLISH, top_n=200)[0]["keywords"], ask(ENGLISH, top_n=3)[0]["keywords"]
    assert few == many[:3]
    assert ask(ENGLISH)[0]["keywords"] == many[:10]


def test_a_phrase_over_two_stop_words_does_not_win_by_accident(ask):
    """The phrase `contrôle de la Kapisa`, which yake weighs below zero, is not first of all."""
    text = "Kaboul, capitale, garde le contrôle de la Kapisa. Kaboul tient la capitale. "
    text += "On parle de Paris et de Rome. On aime la mer, la lune. " * 6
    found = texts(ask(text, language="fr", max_words=4, top_n=50, method="yake")[0])
    assert found.index("Paris") < found.index("contrôle de la Kapisa")


def test_the_language_asked_for_is_the_language_used(ask):
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
        {"min_words": 0},
        {"threshold": -1},
        {"damping": 1},
        {"steps": 0},
        {"window": 1},
        {"stop_words": "the"},
        {"add_stop_words": [""]},
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


def test_spelling_variants_of_one_text_give_one_answer(ask):
    """Decomposed accents, soft hyphens and curly apostrophes change no keyword."""
    plain = "Le préfet a visité l'école. L'école du préfet est fermée."
    odd = plain.replace("é", "e\u0301").replace("'", "’").replace("école", "éco\u00adle")
    for method in METHODS:
        one, other = (ask(text, language="fr", method=method)[0] for text in (plain, odd))
        assert scored(one) == scored(other)


def scored(result: dict[str, Any]) -> list[tuple[str, float, int]]:
    return [(one["text"], one["score"], one["count"]) for one in result["keywords"]]


def test_what_is_longer_than_any_word_is_no_keyword(ask):
    """A key or a hash in a text does not come back as a keyword."""
    for method in METHODS:
        text = "The token is " + "abcdefghij" * 20 + " and the comet is Rosetta."
        (result,) = ask(text, method=method)
        assert max(map(len, texts(result))) < 50
        assert "Rosetta" in texts(result)


@pytest.mark.parametrize("method", METHODS)
def test_a_long_document_can_be_stopped_inside(service, method):
    """Within one document there are checkpoints, so cancelling and deadlines work."""
    ticks = itertools.count()
    ctx = Context(
        job_id="j", service="keywords", steps=MANIFEST.steps, emit=lambda event: None, timeout=10,
        clock=lambda: float(next(ticks)),
    )  # fmt: skip
    with pytest.raises(Stopped) as stopped:
        service(
            ctx, documents=[ENGLISH * 40], language="en", top_n=5, min_words=1, threshold=0,
            method=method,
        )  # fmt: skip
    assert isinstance(stopped.value.error, TimedOut)


@pytest.mark.parametrize("method", ["tfidf", "yake", "multipartiterank"])
@pytest.mark.parametrize(
    "mark",
    ["a", "a ", ". ", "e.g. ", "(a. ", "l'a ", "a-", "\n", "é\n", "@a", "a/", "Bc ", "\u0301"],
)
def test_a_text_made_to_be_slow_is_not(ask, mark, method):
    """Texts that are quadratic for careless patterns take a second or two, not hours."""
    before = process_time()
    (result,) = ask(
        mark * (50_000 // len(mark)), language="fr", top_n=5, max_words=2, method=method
    )
    assert len(result["keywords"]) <= 5
    assert process_time() - before < 20


def test_time_grows_with_the_text_and_no_faster(ask):
    """Eight times the words take about eight times the time, for all new words too."""
    words = [
        "".join(chance) for chance in itertools.product("bcdfg", "aeiou", "lmnrs", "aeiou", "t")
    ]
    spent = []
    for size in (500, 4000):
        text = " ".join(f"{words[n % 625]}{words[n // 625]} of" for n in range(size))
        before = process_time()
        ask(text, language="en", top_n=200)
        spent.append(process_time() - before)
    assert spent[1] < 30 * max(spent[0], 0.02)


@pytest.fixture(scope="module")
def room(service: Any) -> ModuleType:
    """Give the module that reads texts for yake."""
    return import_module(f"{type(service).__module__}.yake_weights")


def test_pieces_of_a_line_are_the_line(room):
    """A line is cut into bounded pieces without losing or doubling a character."""
    for line in ["", "a" * 25_000, "word " * 5_000, "One sentence. " * 2_000, "x" * room.BLOCK]:
        cut = list(room.pieces(line))
        assert "".join(cut) == line
        assert all(len(piece) <= room.BLOCK for piece in cut)


def test_blocks_are_bounded_whatever_the_lines(room):
    """A text of short lower-case lines is read in blocks too, not joined to one."""
    read = list(room.blocks("lower case line\n" * 10_000))
    assert max(map(len, read)) <= room.BLOCK
    assert sum(block.count("lower") for block in read) == 10_000


PARTS = ["l'", "’", " ", ". ", "\n", "Été", "de", "la", "Dr.", "U.S.", "x", "9", "ß", "\u0301"]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(max_size=300) | st.lists(st.sampled_from(PARTS), max_size=60).map("".join),
    words=st.integers(1, 5),
    language=st.sampled_from(["en", "fr", "*"]),
    method=st.sampled_from(METHODS),
)
def test_any_text_is_a_text(engine, text, words, language, method):
    """Whatever the characters, the service answers and its promises about keywords hold."""
    answer = output(engine, text, language=language, top_n=200, max_words=words, method=method)
    keep_promises(text, answer["documents"][0], words if method != "yake" else 100)


def test_one_document_does_not_fail_its_neighbours():
    """What cannot be done for one document is told in its place."""
    errors = [{"language": "en", "error": {"code": "x", "detail": "y"}}]
    assert MANIFEST.output_schema.problems({"documents": errors, "warnings": []}) == []


GOLD = Path(__file__).parent / "text" / "keyphrases.json"


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_quality_has_a_floor(ask, language):
    """On short texts written for this test, the first five keywords are mostly what people name."""
    known = [one for one in json.loads(GOLD.read_text("utf-8")) if one["language"] == language]
    results = ask(*(one["text"] for one in known), language=language, top_n=5)
    right = sum(
        text.lower() in one["keyphrases"]
        for one, result in zip(known, results, strict=True) for text in texts(result)
    )  # fmt: skip
    assert right >= 0.5 * 5 * len(known)
