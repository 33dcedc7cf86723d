"""Trains the bundled model: `python -m handlers.ner.train DATA [--out FOLDER] [--seed N]`.

DATA is the folder with the corpora that `corpora.read` names. Besides spaCy this needs the packages
of `gazetteer.SOURCES`, the extra `train-ner`; `make train-ner DATA=folder` installs them.
The same seed, data and package versions give the same model, unless `--minutes` cuts it short.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import compile_infix_regex, fix_random_seed
from thinc.api import Adam, NumpyOps, set_current_ops

from handlers.ner import corpora, gazetteer
from handlers.ner.gazetteer import CITY, METROPOLIS, REGION, TERRITORY, TOWN, Gazetteer
from handlers.ner.lexicon import KEY
from handlers.ner.passage import LABELS, Passage
from handlers.ner.quaero import only_names

DATA = {
    "ewt": {"name": "UNER English-EWT, dev part", "licence": "CC BY-SA 4.0"},
    "pud": {"name": "UNER English-PUD", "licence": "CC BY-SA 3.0"},
    "btc": {"name": "Broad Twitter Corpus", "licence": "CC BY 4.0"},
    "gum": {
        "name": "GUM: academic, bio, court, interview, news, voyage",
        "licence": "CC BY 4.0; texts CC BY 4.0, CC BY-SA 3.0 or CC BY 2.5",
    },
    "newseye": {"name": "NewsEye French newspapers", "licence": "CC BY 4.0"},
    "europeana": {"name": "Europeana Newspapers, BnF", "licence": "CC0"},
    "frsemcor": {"name": "FrSemCor over Sequoia 9.1", "licence": "LGPL-LR"},
    "gsd": {
        "name": "UD French-GSD, dev and test, proper nouns typed by list",
        "licence": "CC BY-SA 4.0",
    },
    "fenec": {
        "name": "FENEC v1, six documents",
        "licence": "by document: public domain, CC BY-SA 4.0, LGPL-LR",
    },
}
# How often an epoch sees each set: scarce modern sets more, noisy old ones less.
WEIGHTS = {
    "ewt": 2.0, "pud": 2.0, "btc": 0.4, "gum": 1.0,
    "newseye": 0.6, "europeana": 0.2, "frsemcor": 1.5, "fenec": 3.0, "gsd": 1.0,
}  # fmt: skip
# Shares of documents never trained on: while developing, and in the model that ships.
DEVELOPMENT = {"ewt": 0.25, "pud": 0.25, "frsemcor": 0.15, "fenec": 1.0, "gum": 0.1}
HELD_OUT = {"ewt": 0.15, "pud": 0.15, "frsemcor": 0.08, "fenec": 0.34, "gum": 0.05}
ATTRIBUTES = ["PREFIX", "SUFFIX", "SHAPE"]
ROWS = [1000, 2500, 1000, 500, 200, 50, 200, 1500, 500, 5000]
LETTERS = "A-Za-zÀ-ÖØ-öø-ÿŒœ"


class FastOps(NumpyOps):
    """NumPy operations that multiply through NumPy, whose BLAS is twice as fast as thinc's own."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = numpy.random.Generator(numpy.random.SFC64(seed))

    def get_dropout_mask(self, shape, drop):
        """Draws which units stay, scaled to keep the sum, from a seeded fast generator."""
        if drop is None or drop <= 0:
            return numpy.ones(shape, dtype="float32")
        stay = self.chance.random(shape, dtype="float32") >= drop
        return stay.astype("float32") * numpy.float32(1.0 / (1.0 - drop))

    def gemm(self, x, y, out=None, trans1=False, trans2=False):
        """Multiplies two matrices, either transposed first."""
        return numpy.matmul(x.T if trans1 else x, y.T if trans2 else y, out=out)


@dataclass
class Score:
    """Counts of strict span matches."""

    right: int = 0
    found: int = 0
    gold: int = 0

    def add(self, found: set, gold: set) -> None:
        """Adds the spans of one passage."""
        self.right += len(found & gold)
        self.found += len(found)
        self.gold += len(gold)

    @property
    def f1(self) -> float:
        """F1 of the counts; 0.0 when nothing is right."""
        return 2 * self.right / (self.found + self.gold) if self.right else 0.0

    def report(self) -> dict[str, float]:
        """Precision, recall and F1, rounded to three places, with the gold count."""
        return {
            "p": round(self.right / self.found, 3) if self.found else 0.0,
            "r": round(self.right / self.gold, 3) if self.gold else 0.0,
            "f": round(self.f1, 3),
            "gold": self.gold,
        }


def blank(lists: Gazetteer, width: int = 96, parts: int = 48, depth: int = 4) -> Language:
    """Makes the untrained pipeline, its tokenizer cutting at apostrophes and hyphens too."""
    nlp = spacy.blank("xx")
    infixes = [
        *nlp.Defaults.infixes,
        rf"(?<=[{LETTERS}]['’])(?=[{LETTERS}])",
        rf"(?<=[{LETTERS}0-9])[-‐–—](?=[{LETTERS}])",
        r"(?<=[a-zà-ÿ])[.!?](?=[A-ZÀ-Þ])",
        r"[/=<>()\[\]]",
    ]
    nlp.tokenizer.infix_finditer = compile_infix_regex(infixes).finditer
    lexicon = nlp.add_pipe("nlp_runner_lexicon", name="lexicon")
    lexicon.fill(lists.words(), lists.places, gazetteer.clusters(), gazetteer.bands())
    model = {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "ner",
        "extra_state_tokens": False,
        "hidden_width": 64,
        "maxout_pieces": 2,
        "use_upper": True,
        "nO": None,
        "tok2vec": {
            "@architectures": "spacy.Tok2Vec.v2",
            "embed": {
                "@architectures": "nlp_runner.LexicalHashEmbed.v1",
                "width": width,
                "attributes": ATTRIBUTES,
                "rows": ROWS,
                "parts": parts,
            },
            "encode": {
                "@architectures": "spacy.MaxoutWindowEncoder.v2",
                "width": width,
                "depth": depth,
                "window_size": 1,
                "maxout_pieces": 3,
            },
        },
    }
    ner = nlp.add_pipe("ner", config={"model": model})
    for label in LABELS:
        ner.add_label(label)
    return nlp


def split(
    sets: dict[str, list[Passage]], shares: dict[str, float], seed: int
) -> tuple[dict[str, list[Passage]], dict[str, list[Passage]]]:
    """Divides each set by whole documents into the part trained on and the part held out."""
    train: dict[str, list[Passage]] = {}
    held: dict[str, list[Passage]] = {}
    for name, passages in sets.items():
        documents = sorted({passage.document for passage in passages})
        random.Random(f"{seed} {name}").shuffle(documents)
        away = set(documents[: round(len(documents) * shares.get(name, 0.0))])
        train[name] = [passage for passage in passages if passage.document not in away]
        held[name] = [passage for passage in passages if passage.document in away]
    return train, held


def sentences(passage: Passage) -> list[Passage]:
    """Cuts a passage at its line breaks; a span across a break is left out."""
    parts = []
    cursor = 0
    for line in passage.text.split("\n"):
        spans = tuple(
            (start - cursor, end - cursor, label)
            for start, end, label in passage.spans
            if start >= cursor and end <= cursor + len(line)
        )
        if line.strip():
            parts.append(replace(passage, text=line, spans=spans))
        cursor += len(line) + 1
    return parts


def join(passages: Sequence[Passage], separator: str) -> Passage:
    """Runs passages together into one text, moving their spans along."""
    text: list[str] = []
    spans: list[tuple[int, int, str]] = []
    cursor = 0
    for passage in passages:
        spans.extend((s + cursor, e + cursor, label) for s, e, label in passage.spans)
        text.extend([passage.text, separator])
        cursor += len(passage.text) + len(separator)
    return replace(passages[0], text="".join(text).rstrip(), spans=tuple(spans))


def rewrite(passage: Passage, names: Iterable[str]) -> Passage:
    """Puts other names in the place of a passage's spans, in order."""
    text: list[str] = []
    spans: list[tuple[int, int, str]] = []
    cursor = length = 0
    for (start, end, label), name in zip(passage.spans, names, strict=True):
        between = passage.text[cursor:start]
        begin = length + len(between)
        text.extend([between, name])
        length = begin + len(name)
        spans.append((begin, length, label))
        cursor = end
    text.append(passage.text[cursor:])
    return replace(passage, text="".join(text), spans=tuple(spans))


@dataclass
class Variation:
    """Makes a fresh variant of a passage: other names, other case, other neighbours."""

    lists: Gazetteer
    chance: random.Random
    swap: float = 0.4
    places: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {
            "common": self.lists.spelled(TERRITORY, METROPOLIS),
            "rare": self.lists.spelled(REGION, CITY, TOWN),
        }

    def person(self, language: str, like: str) -> str:
        """Makes a person up with as many words as the one replaced."""
        given, surnames = self.lists.people[language]
        words = len(like.split())
        if words == 1:
            return self.chance.choice(given if self.chance.random() < 0.5 else surnames)
        return f"{self.chance.choice(given)} {self.chance.choice(surnames)}"

    def name(self, passage: Passage, span: tuple[int, int, str]) -> str:
        """Returns another name for a span, or its own."""
        start, end, label = span
        own = passage.text[start:end]
        if label not in LABELS:
            return own
        plain = own[:1].isupper() and len(own.split()) <= 2 and own.replace(" ", "").isalpha()
        if self.chance.random() < 0.05 and len(own.upper()) == len(own):
            return own.upper()
        if not plain or label == "ORG" or self.chance.random() > self.swap:
            return own
        if label == "PER":
            return self.person(passage.language, own)
        if passage.language == "fr" and passage.text[max(0, start - 2) : start] in {"l'", "d'"}:
            return own
        kind = "common" if self.chance.random() < 0.5 else "rare"
        return self.chance.choice(self.places[kind])

    def vary(self, passage: Passage) -> Passage:
        """Swaps names and now and then the case of the whole passage."""
        names = [self.name(passage, span) for span in passage.spans]
        passage = rewrite(passage, names)
        roll = self.chance.random()
        if roll < 0.03 and len(passage.text.lower()) == len(passage.text):
            return replace(passage, text=passage.text.lower())
        if roll < 0.06 and len(passage.text.upper()) == len(passage.text):
            return replace(passage, text=passage.text.upper())
        if roll < 0.12:
            return replace(passage, text=passage.text.replace("'", "’"))
        return passage

    def epoch(self, sets: dict[str, list[Passage]]) -> list[Passage]:
        """Draws every set by its weight, one to four sentences of a document at a time."""
        drawn: list[Passage] = []
        for name, passages in sets.items():
            index = 0
            whole: list[Passage] = []
            while index < len(passages):
                count = self.chance.choice((1, 1, 2, 3, 4)) if name != "europeana" else 1
                group = [passages[index]]
                while (
                    len(group) < count
                    and index + len(group) < len(passages)
                    and passages[index + len(group)].document == group[0].document
                    and name != "btc"
                ):
                    group.append(passages[index + len(group)])
                index += len(group)
                whole.append(join(group, self.chance.choice((" ", " ", "\n"))))
            weight = WEIGHTS[name]
            while weight > 0:
                drawn.extend(p for p in whole if weight >= 1 or self.chance.random() < weight)
                weight -= 1
        self.chance.shuffle(drawn)
        return [self.vary(passage) for passage in drawn]


def example(nlp: Language, passage: Passage, chance: random.Random | None = None) -> Example:
    """Makes a training example; spans that no token borders fit are left undecided.

    With a generator, the lists forget one name in seven, so that context counts as well.
    """
    doc = nlp.make_doc(passage.text)
    nlp.get_pipe("lexicon")(doc)
    words = [token.text for token in doc]
    reference = Doc(nlp.vocab, words=words, spaces=[bool(token.whitespace_) for token in doc])
    known, unsure = [], set()
    for start, end, label in passage.spans:
        span = reference.char_span(start, end, label=label) if label in LABELS else None
        if span is None:
            wide = reference.char_span(start, end, alignment_mode="expand")
            unsure.update(range(wide.start, wide.end) if wide else ())
        else:
            known.append(span)
    unsure.difference_update(i for span in known for i in range(span.start, span.end))
    for span in known if chance else ():
        if chance.random() < 0.15:
            doc.user_data[KEY][span.start : span.end, 0] &= 1
            doc.user_data[KEY][span.start : span.end, 1] = 0
    undecided = [reference[i : i + 1] for i in sorted(unsure)]
    reference.set_ents(known, missing=undecided, default="outside")
    return Example(doc, reference)


def evaluate(nlp: Language, passages: Sequence[Passage]) -> dict[str, dict[str, float]]:
    """Scores raw text by strict spans: all labels together under `all`, then each label."""
    scores = {"all": Score()} | {label: Score() for label in LABELS}
    docs = nlp.pipe((p.text for p in passages), batch_size=64)
    for passage, doc in zip(passages, docs, strict=True):
        gold = set(passage.spans)
        found = {(e.start_char, e.end_char, e.label_) for e in doc.ents}
        scores["all"].add(found, gold)
        for label in LABELS:
            of_label = [{span for span in spans if span[2] == label} for spans in (found, gold)]
            scores[label].add(*of_label)
    return {name: score.report() for name, score in scores.items()}


def learn(
    nlp: Language,
    train: dict[str, list[Passage]],
    held: dict[str, list[Passage]],
    lists: Gazetteer,
    seed: int,
    epochs: int,
    minutes: float | None,
) -> dict:
    """Trains until the epochs or the minutes are over and returns the averaged weights."""
    chance = random.Random(seed)
    variation = Variation(lists, chance)
    first = [example(nlp, p) for name in train for p in train[name][:40]]
    nlp.initialize(lambda: first)
    optimizer = Adam(
        0.001, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0, use_averages=True
    )  # fmt: skip
    ner = nlp.get_pipe("ner")
    start = time.monotonic()
    for epoch in range(epochs):
        examples = [example(nlp, passage, chance) for passage in variation.epoch(train)]
        optimizer.learn_rate = 0.002 * (1 - epoch / epochs) if epoch else 0.001
        losses: dict[str, float] = {}
        for batch in batches(examples, min(2000, 600 + 400 * epoch)):
            ner.update(batch, sgd=optimizer, drop=0.25, losses=losses)
        spent = (time.monotonic() - start) / 60
        with nlp.use_params(optimizer.averages):
            row = {name: evaluate(nlp, part)["all"]["f"] for name, part in held.items() if part}
        print(f"epoch {epoch + 1}, {spent:.1f} min, loss {losses['ner']:.0f}: {row}", flush=True)
        if minutes and spent * (epoch + 2) / (epoch + 1) > minutes:
            print(f"stopped after epoch {epoch + 1} of {epochs}: another would pass {minutes} min")
            break
    return optimizer.averages


def batches(examples: Sequence[Example], limit: int) -> Iterable[list[Example]]:
    """Groups examples in order into batches of about `limit` tokens."""
    batch: list[Example] = []
    size = 0
    for item in examples:
        batch.append(item)
        size += len(item.x)
        if size >= limit:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def describe(
    nlp: Language,
    scores: dict[str, dict],
    held: dict[str, list[Passage]],
    options: argparse.Namespace,
) -> None:
    """Notes in the pipeline's meta what the model was made from and how well it does."""
    nlp.meta["name"] = "names"
    nlp.meta["version"] = "1.0.0"
    nlp.meta["description"] = "People, places and organisations in English and French texts"
    nlp.meta["license"] = "CC BY-SA 4.0 and LGPL-LR, after the training data"
    own = ("spacy", "thinc", "numpy")
    nlp.meta["nlp_runner"] = {
        "seed": options.seed,
        "epochs": options.epochs,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in (*own, *gazetteer.SOURCES)},
        "data": DATA,
        "lists": gazetteer.SOURCES,
        "held_out": {
            name: sorted({passage.document for passage in part})
            for name, part in held.items()
            if part
        },
        "measure": "strict span precision, recall and F1 on held-out documents, raw text in",
        "scores": scores,
    }


def table(scores: dict[str, dict]) -> str:
    """Lays scores out as lines of text: set, label, precision, recall, F1, gold spans."""
    lines = [f"{'set':10} {'label':5} {'P':>6} {'R':>6} {'F1':>6} {'gold':>5}"]
    for name, rows in scores.items():
        for label, row in rows.items():
            figures = " ".join(f"{row[key]:6.3f}" for key in ("p", "r", "f"))
            lines.append(f"{name:10} {label:5} {figures} {row['gold']:5}")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, trains, prints the score table and writes the model."""
    parser = argparse.ArgumentParser(description="Train the bundled entity model.")
    parser.add_argument("data", type=Path, help="the folder with the corpora")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--minutes", type=float, help="stop early rather than pass this time")
    parser.add_argument("--development", action="store_true", help="hold out more, to compare")
    options = parser.parse_args()
    fix_random_seed(options.seed)
    set_current_ops(FastOps(options.seed))
    lists = gazetteer.gather()
    sets = corpora.read(options.data, lists)
    train, held = split(sets, DEVELOPMENT if options.development else HELD_OUT, options.seed)
    # What is held out keeps its numbers and addresses: the scores are those of the set as it is.
    train = {
        name: [line for passage in part for line in sentences(only_names(passage))]
        for name, part in train.items()
    }
    nlp = blank(lists)
    averages = learn(nlp, train, held, lists, options.seed, options.epochs, options.minutes)
    with nlp.use_params(averages):
        scores = {name: evaluate(nlp, part) for name, part in held.items() if part}
        describe(nlp, scores, held, options)
        nlp.to_disk(options.out, exclude=["vocab"])
    print(table(scores))


if __name__ == "__main__":
    main()
