"""The named entity service with its own trained model, on real sentences."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import spacy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from handlers.ner import BUNDLED, NamedEntities, load  # noqa: E402
from handlers.ner.pieces import LIMIT, batches, cut  # noqa: E402
from runner.context import Context, Stop  # noqa: E402
from runner.errors import Stopped  # noqa: E402

ENGLISH = "Barack Obama was born in Honolulu and studied at Harvard University."
FRENCH = "Marie Curie est née à Varsovie et a travaillé à Paris."


@pytest.fixture(scope="module")
def handler() -> NamedEntities:
    return NamedEntities(SimpleNamespace(model="bundled"))


def context(stop: Stop | None = None, events: list | None = None) -> Context:
    step = SimpleNamespace(name="tag", title="Find entities", weight=1)
    emit = events.append if events is not None else lambda event: None
    return Context(job_id="j", service="ner", steps=[step], emit=emit, stop=stop)


def ask(handler: NamedEntities, *documents: str, language: str = "*") -> list[dict]:
    return handler(context(), documents=list(documents), language=language)["documents"]


def pairs(document: dict) -> list[tuple[str, str]]:
    return [(entity["text"], entity["label"]) for entity in document["entities"]]


def test_english_names(handler):
    """People, places and organisations of an English sentence get their labels."""
    (document,) = ask(handler, ENGLISH)
    assert document["language"] == "en"
    assert pairs(document) == [
        ("Barack Obama", "PER"), ("Honolulu", "LOC"), ("Harvard University", "ORG"),
    ]  # fmt: skip


def test_french_names(handler):
    """The same model reads French, behind accents and after elided articles too."""
    document, elided = ask(handler, FRENCH, "Elle part pour l'Italie avec Paul d’Angers.")
    assert document["language"] == elided["language"] == "fr"
    assert pairs(document) == [("Marie Curie", "PER"), ("Varsovie", "LOC"), ("Paris", "LOC")]
    assert ("Italie", "LOC") in pairs(elided)


def test_documents_keep_their_order(handler):
    """Each result stands at its document's place, whatever shares a batch with it."""
    texts = [ENGLISH, "", FRENCH, "nothing to see here", ENGLISH] * 40
    results = ask(handler, *texts)
    assert len(results) == len(texts)
    assert [len(r["entities"]) for r in results[:5]] == [3, 0, 3, 0, 3]
    assert results[5:10] == results[:5]


def test_the_language_asked_for_is_the_language_told(handler):
    """A language given by the caller is not overruled by detection."""
    assert [d["language"] for d in ask(handler, ENGLISH, language="fr")] == ["fr"]


@pytest.mark.parametrize(
    "text",
    [
        "😀 Jean Dupont 🏔️ habite à Genève 🇨🇭.",
        "cafe\u0301 Rene\u0301 Descartes\r\n\r\nLa Haye\ttouraine",
        "\u200bLondon\u00a0Bridge ﬁnds İstanbul ẞtraße",
        "東京 に Emmanuel Macron が来た。 مصر Cairo",
        "\ufeff Paris \x00 Berlin \x1b London",
    ],
)
def test_offsets_are_code_points(handler, text):
    """document[start:end] is the entity's text, also after emoji, combining and control marks."""
    (document,) = ask(handler, text)
    assert document["entities"]
    for entity in document["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]


def test_a_long_document_is_read_to_its_end(handler):
    """Cutting a long text moves no offset, loses no piece and splits no sentence."""
    filler = "The weather was fine and nobody said anything about it. "
    text = (filler * 40 + ENGLISH + "\n\n") * 20
    assert len(text) > 4 * LIMIT
    (document,) = ask(handler, text)
    assert pairs(document).count(("Honolulu", "LOC")) == 20
    starts = [entity["start"] for entity in document["entities"]]
    assert starts == sorted(starts)
    assert all(text[e["start"] : e["end"]] == e["text"] for e in document["entities"])


@pytest.mark.parametrize("text", ["", "a", "a" * (3 * LIMIT), "mot " * LIMIT, "x\n\n" * LIMIT])
def test_pieces_put_together_are_the_text(text):
    """No character is lost or doubled between pieces, and none is longer than the limit."""
    pieces = list(cut(7, text))
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= LIMIT and piece.document == 7 for piece in pieces)
    assert all(text[p.start : p.start + len(p.text)] == p.text for p in pieces)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [p for group in batches(pieces) for p in group] == pieces


@pytest.mark.parametrize("mark", ["(", "a.", "'", "-", "https://a/", " ", "\n", "\u0301", "Paris-"])
def test_a_text_made_to_be_slow_is_not(handler, mark):
    """A long run without any space is read in time, so one request cannot hold a worker."""
    (document,) = ask(handler, mark * (20_000 // len(mark)))
    assert document["language"] in {"en", "fr"}


def test_memory_does_not_grow_with_new_words(handler):
    """Words of one request leave the vocabulary when it is over."""
    ask(handler, ENGLISH)
    before = len(handler.nlp.vocab.strings)
    ask(handler, " ".join(f"mot{number}inconnu" for number in range(3000)))
    assert len(handler.nlp.vocab.strings) - before < 300


def test_a_stop_is_seen_between_documents(handler):
    """A cancelled job ends at the next document instead of reading them all."""
    stop = Stop()
    stop.request()
    with pytest.raises(Stopped):
        handler(context(stop), documents=[ENGLISH], language="en")


def test_progress_counts_documents(handler):
    """A caller sees how many documents are done, of how many."""
    ctx = context()
    handler(ctx, documents=[ENGLISH, FRENCH], language="*")
    (step,) = ctx.picture()["steps"]
    assert (step["status"], step["done"], step["total"]) == ("succeeded", 2, 2)


def test_another_pipeline_has_its_labels_mapped(tmp_path):
    """PERSON and GPE become PER and LOC, and a type the service does not know is left out."""
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {"label": "PERSON", "pattern": "Ada"},
            {"label": "GPE", "pattern": "London"},
            {"label": "DATE", "pattern": "Monday"},
        ]
    )
    nlp.to_disk(tmp_path / "rules")
    handler = NamedEntities(SimpleNamespace(model=str(tmp_path / "rules")))
    (document,) = ask(handler, "Ada left London on Monday.", language="en")
    assert pairs(document) == [("Ada", "PER"), ("London", "LOC")]


def test_a_pipeline_without_entities_is_refused(tmp_path):
    """A model that could never find anything fails at start-up, and the message says why."""
    spacy.blank("en").to_disk(tmp_path / "empty")
    with pytest.raises(ValueError, match="finds no entities"):
        load(str(tmp_path / "empty"))


def test_the_model_tells_where_it_comes_from():
    """The shipped folder is small and names versions, data, licences, seed and scores."""
    meta = json.loads((BUNDLED / "meta.json").read_text(encoding="utf-8"))
    told = meta["nlp_runner"]
    assert told["versions"]["spacy"]
    assert isinstance(told["seed"], int)
    assert {"ewt", "pud", "frsemcor"} <= told["scores"].keys() <= told["data"].keys()
    assert all("licence" in source for source in told["data"].values())
    size = sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file())
    assert size < 8_000_000


def test_the_model_is_worth_shipping():
    """Held-out strict span F1, as noted at training, stays above what the service promises."""
    meta = json.loads((BUNDLED / "meta.json").read_text(encoding="utf-8"))
    scores = {name: row["all"]["f"] for name, row in meta["nlp_runner"]["scores"].items()}
    assert scores["ewt"] >= 0.65
    assert scores["pud"] >= 0.58
