"""What keyphrases are made of: tokens, lines, parts of speech, noun phrases, graphs."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.context import Context
from runner.handler import resolve
from runner.manifest import load

ROOT = Path(__file__).parents[3]
MANIFEST = load(ROOT / "manifests" / "keyphrase-extraction.yaml")


@pytest.fixture(scope="module")
def rooms() -> SimpleNamespace:
    """Give the modules, found the way the framework finds them."""
    resolve(MANIFEST)
    names = ["tokens", "lines", "reading", "noun_phrases", "grammar", "graphs", "lexicon", "stems"]
    return SimpleNamespace(**{name: import_module(f"handlers.text.{name}") for name in names})


@pytest.fixture(scope="module")
def reader(rooms: SimpleNamespace) -> Any:
    return rooms.reading.Reader(["en", "fr"])


@pytest.fixture
def ctx() -> Context:
    return Context(job_id="j", service="s", steps=[], emit=lambda event: None)


def forms(rooms: SimpleNamespace, text: str, language: str) -> list[str]:
    return [token.form for token in rooms.tokens.tokenize(text, 0, len(text), language)]


def test_tokens_are_words_as_a_reader_sees_them(rooms):
    """Compounds stay whole; elisions, genitives, slashes and marks come apart."""
    text = "L’Europe n'a qu’une porte-parole : aujourd'hui, 3,5 % et/ou l'A380."
    assert forms(rooms, text, "fr") == [
        "L'", "Europe", "n'", "a", "qu'", "une", "porte-parole", ":", "aujourd'hui", ",", "3,5",
        "%", "et", "/", "ou", "l'", "A380", ".",
    ]  # fmt: skip
    text = "The U.S. probe's state-of-the-art engine didn't fail, AT&T said."
    assert forms(rooms, text, "en") == [
        "The", "U.S.", "probe", "'s", "state-of-the-art", "engine", "didn't", "fail", ",", "AT&T",
        "said", ".",
    ]  # fmt: skip


@given(text=st.text(max_size=200), language=st.sampled_from(["en", "fr"]))
def test_tokens_stand_where_they_say(rooms, text, language):
    """Whatever the characters, tokens do not overlap and have no blank around them."""
    end = 0
    for token in rooms.tokens.tokenize(text, 0, len(text), language):
        assert end <= token.start < token.end <= len(text)
        assert text[token.start : token.end].strip() == text[token.start : token.end]
        assert token.form
        end = token.end


@pytest.mark.parametrize(
    "mark", ["a", "a-", "a.", "a'", "é/", "l'", "1,", "a.b", "\u0301", "'s", "-"]
)
def test_a_text_made_to_be_slow_is_cut_quickly(rooms, mark):
    """Many characters of the worst kind take a second or two to cut, not hours."""
    before = process_time()
    text = mark * (200_000 // len(mark))
    for language in ("en", "fr"):
        for _ in rooms.tokens.tokenize(rooms.lines.unwrap(text), 0, len(text), language):
            pass
    assert process_time() - before < 30


@given(text=st.text(st.sampled_from("aZ .\n\r\v\x85\u2028-é\t"), max_size=200))
def test_joining_lines_moves_nothing(rooms, text):
    """Wrapped lines become one line of the same length; only line breaks change, to blanks."""
    joined = rooms.lines.unwrap(text)
    assert len(joined) == len(text)
    for before, after in zip(text, joined, strict=True):
        assert after == before or (after == " " and before.isspace())


def test_lines_are_joined_where_their_author_wrapped_them(rooms):
    """A paragraph of fixed width is one line, a title, a list and a long line are not."""
    wrapped = (
        "Adaptive filtering\n\tThe color model has been widely used in image processing, and\n"
        "\tAsian users knew that its properties are odd. Since then, the\n\tNewton method is not.\n"
    )
    assert rooms.lines.unwrap(wrapped).count("\n") == 2
    for kept in (
        "Title\nFirst line.\nSecond line.",
        "Eggs\nMilk\nHoney",
        "- one\n- two",
        "A.\n\nb",
    ):
        assert rooms.lines.unwrap(kept) == kept


@pytest.mark.parametrize(
    ("language", "text", "tags"),
    [
        ("en", "The old man lived in Rome.", "DET ADJ NOUN VERB ADP PROPN PUNCT"),
        ("en", "Many distributed systems fail.", "ADJ ADJ NOUN VERB PUNCT"),
        ("fr", "La vieille ville dort encore.", "DET ADJ NOUN VERB ADV PUNCT"),
        ("fr", "Marie mange trois pommes à Lyon.", "PROPN VERB NUM NOUN ADP PROPN PUNCT"),
    ],
)
def test_plain_sentences_are_tagged_right(ctx, reader, language, text, tags):
    """Simple sentences have the parts of speech that everybody gives them."""
    (sentence,) = reader.tagged(ctx, text, language)
    assert " ".join(sentence.tags) == tags


def test_a_long_sentence_is_read_in_parts(ctx, reader, rooms):
    """A text without a full stop is read in bounded parts, and nothing of it is lost."""
    parts = list(reader.tagged(ctx, "word " * 1000, "en"))
    assert max(len(part.tokens) for part in parts) == rooms.reading.LONGEST_SENTENCE
    assert sum(len(part.tokens) for part in parts) == 1000
    assert all(len(part.tokens) == len(part.tags) for part in parts)


@pytest.mark.parametrize(
    ("language", "text", "whole"),
    [
        ("en", "The new solar panels are for an old steel mill.", {"solar panels", "steel mill"}),
        ("fr", "Des panneaux solaires couvrent la mairie.", {"panneaux solaires", "mairie"}),
        ("fr", "La fusée Falcon 9 a décollé de Floride.", {"fusée Falcon 9", "Floride"}),
    ],
)
def test_noun_phrases_are_found(ctx, reader, rooms, language, text, whole):
    """Noun phrases come without article and without empty adjective, names with their number."""
    grammar = rooms.grammar.GRAMMARS[language]
    (sentence,) = reader.tagged(ctx, text, language)
    found = {
        text[sentence.tokens[one.start].start : sentence.tokens[one.end - 1].end]
        for one in rooms.noun_phrases.noun_phrases(sentence, grammar, (), 5)
        if one.kind is rooms.noun_phrases.Kind.WHOLE
    }
    assert found == whole


def test_the_bundled_models_say_what_they_are_made_of(rooms):
    """`meta.json` names versions, data, licences, seed and accuracy, which is good enough."""
    meta = json.loads((rooms.lexicon.FOLDER / "meta.json").read_text("utf-8"))
    assert {"seed", "versions", "treebanks", "word_lists", "licence"} <= meta.keys()
    assert all(one["licence"] for sets in meta["treebanks"].values() for one in sets)
    for measured in meta["measured"].values():
        assert measured["accuracy"] > 0.94
        assert measured["noun_phrase_f1"] > 0.93
    assert sum(path.stat().st_size for path in rooms.lexicon.FOLDER.iterdir()) < 4_000_000


def test_common_words_are_commoner_than_rare_ones(rooms):
    """The lexicon knows how common words are; a compound is as rare as its rarest part."""
    lexicon = rooms.lexicon.load("en")
    assert lexicon.common("The") > lexicon.common("water") > lexicon.common("turbine")
    assert lexicon.common("water-turbine") == lexicon.common("turbine")
    assert lexicon.common("xqzzk") == rooms.lexicon.RAREST


def test_forms_of_a_word_share_its_stem(rooms):
    """Singular and plural are one word, whatever their case."""
    english, french = rooms.stems.stemmer("en"), rooms.stems.stemmer("fr")
    assert english("Networks") == english("network")
    assert french("Élections") == french("élection")


def test_the_middle_of_a_star_is_central(ctx, rooms):
    """PageRank gives the middle of a star the most, its ends the same, and 1 in all."""
    edges = rooms.graphs.word_graph([0, 1, -1, 0, 2, -1, 0, 3], 4, 2)
    rank = rooms.graphs.pagerank(ctx, edges, np.ones(4), 0.85, 100)
    assert rank[0] > 2 * rank[1]
    assert rank[1] == pytest.approx(rank[2]) == pytest.approx(rank[3])
    assert rank.sum() == pytest.approx(1)
