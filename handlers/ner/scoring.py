"""How many names a pipeline finds with the right borders and label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spacy.language import Language

from handlers.ner.passage import LABELS, Passage


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


def table(scores: dict[str, dict]) -> str:
    """Lays scores out as lines of text: set, label, precision, recall, F1, gold spans."""
    lines = [f"{'set':10} {'label':5} {'P':>6} {'R':>6} {'F1':>6} {'gold':>5}"]
    for name, rows in scores.items():
        for label, row in rows.items():
            figures = " ".join(f"{row[key]:6.3f}" for key in ("p", "r", "f"))
            lines.append(f"{name:10} {label:5} {figures} {row['gold']:5}")
    return "\n".join(lines)
