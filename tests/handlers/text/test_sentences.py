"""Sentences of English and French texts."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.handler import resolve
from runner.manifest import load

MANIFEST = load(Path(__file__).parents[3] / "manifests" / "extractive-summarization.yaml")


@pytest.fixture(scope="module")
def room() -> ModuleType:
    """Give the module, found the way the framework finds it."""
    resolve(MANIFEST)
    return sys.modules["handlers.text.sentences"]


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
