"""Named entities against what people marked: strict span F1 over people, places, organisations.

A set is a folder `ner-<language>-…` with `*.iob2` files (Universal NER: columns id, form, tag, the
raw sentence in `# text`) or with pairs of `*.txt` and `*.ann` (FENEC: the outermost spans count).
Raw text goes through the service as it is served; a span counts when both borders and the type are
right (micro-averaged, as in CoNLL 2003). Of the sets that the model was trained on, only the
documents that its `meta.json` names as held out are measured; they were used to choose the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from handlers.ner.corpora import fenec, universal
from handlers.ner.passage import LABELS, Passage
from quality.figure import Figure
from runner.testing import run

MANIFEST = Path(__file__).parents[1] / "manifests" / "ner.yaml"
META = Path(__file__).parents[1] / "handlers" / "ner" / "model" / "meta.json"

TRAINED_AS = {"ewt": "ewt", "pud": "pud", "fenec": "fenec"}
"""What the training calls a set, by what its folder's name contains."""

BARS = {
    "ewt": (0.65, "the bar for web text; a plain spaCy CNN has 0.56"),
    "pud": (0.58, "the bar for encyclopedia; a plain spaCy CNN has 0.48"),
    "fenec": (0.52, "the bar for modern French; old newspapers alone give 0.40"),
}

BATCH = 500


def measure(service: str, data: Path) -> list[Figure]:
    """Return the F1 of each set, over all types and for each."""
    held = json.loads(META.read_text("utf-8"))["nlp_runner"]["held_out"]
    figures = []
    for folder in sorted(data.glob("ner-*")):
        passages = list(read(folder))
        name = next((kind for kind in TRAINED_AS if kind in folder.name), "")
        known = set(held.get(TRAINED_AS.get(name, ""), ()))
        seen = any(passage.document in known for passage in passages)
        if seen:
            passages = [passage for passage in passages if passage.document in known]
        if not passages:
            continue
        counts = score(passages, folder.name.split("-")[1])
        documents = len({passage.document for passage in passages})
        label = f"{folder.name}{' (held out)' if seen else ''}, {documents} documents"
        bar, against = BARS.get(name, (None, ""))
        for kind in ("all", *LABELS):
            goal, told = (bar, against) if kind == "all" else (None, "")
            measure = "strict F1" if kind == "all" else f"strict F1, {kind}"
            figures.append(Figure(service, label, measure, f1(*counts[kind]), goal, told, seen))
    return figures


def read(folder: Path) -> Iterator[Passage]:
    """Yield the passages of a set; nothing where its form is none of those that are measured."""
    for path in sorted(folder.glob("*.iob2")):
        yield from universal(path, folder.name)
    for path in sorted(folder.glob("*.ann")):
        yield from fenec(path.with_suffix(".txt"))


def score(passages: list[Passage], language: str) -> dict[str, list[int]]:
    """Return right, found and marked spans, for all types together and for each."""
    counts = {kind: [0, 0, 0] for kind in ("all", *LABELS)}
    for start in range(0, len(passages), BATCH):
        batch = passages[start : start + BATCH]
        outcome = run(MANIFEST, {"documents": [one.text for one in batch], "language": language})
        if outcome.error is not None:
            raise outcome.error
        for passage, answer in zip(batch, outcome.output["documents"], strict=True):
            entities = answer.get("entities", ())
            said = {(each["start"], each["end"], each["label"]) for each in entities}
            gold = {span for span in passage.spans if span[2] in LABELS}
            for kind, count in counts.items():
                ours = {span for span in said if kind in ("all", span[2])}
                theirs = {span for span in gold if kind in ("all", span[2])}
                count[0] += len(ours & theirs)
                count[1] += len(ours)
                count[2] += len(theirs)
    return counts


def f1(right: int, found: int, marked: int) -> float:
    """Return the harmonic mean of precision and recall."""
    return round(2 * right / (found + marked), 3) if right else 0.0
