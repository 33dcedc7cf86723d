"""The training data: where each set comes from, how often it is seen, what is held out of it."""

from __future__ import annotations

import random

from handlers.ner.passage import Passage

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
    "wikinews": {
        "name": "French Wikinews, 50 articles, names by list and by fr_core_news_md",
        "licence": "CC BY 2.5",
    },
    "fredsum": {
        "name": "FREDSum debates, names by list and by fr_core_news_md",
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
    "newseye": 0.3, "europeana": 0.1, "frsemcor": 1.5, "fenec": 3.0, "gsd": 1.0,
    "wikinews": 1.0,
    "fredsum": 0.25,
}  # fmt: skip
# Shares of documents never trained on: while developing, and in the model that ships.
DEVELOPMENT = {"ewt": 0.25, "pud": 0.25, "frsemcor": 0.15, "fenec": 1.0, "gum": 0.1}
HELD_OUT = {"ewt": 0.15, "pud": 0.15, "frsemcor": 0.08, "fenec": 0.34, "gum": 0.05}


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
