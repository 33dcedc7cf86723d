"""Summaries against those of people: ROUGE-1, 2 and L (F1) of the service as it is served.

Two kinds of sets, both scored by rouge-score, Google's port of the ROUGE script:

- `summaries-fr-fredsum-*`: debates in `transcript/` with the sentences that annotators chose in
  `summary_extractive/1` and `/2`. The service is asked for all sentences with their scores; the
  best ones are taken until they have the reference's number of words, put in document order and
  cut there: without one length for all, ROUGE rewards length. No stemming, the mean over the
  annotators.
- `summaries-en-scitldr-*`: abstracts in `*.jsonl` (`source`, `target`), summarised in one sentence.
  Stemmed, and of the several targets the one counts that is best for each measure, as in the paper
  (Cachola et al., "TLDR: Extreme Summarization of Scientific Documents", 2020). So scored, the
  sentences of the development set's `source_labels` reach 44.1 / 24.0 / 36.6 and its first ones
  30.1 / 11.5 / 23.7, where 44.4 / 23.8 / 36.7 and 31.3 / 12.3 / 25.0 were measured before; without
  stemming, or with the target of the best ROUGE-1 for all three, some of them are 1 to 4 lower.

The first and the longest sentences are cut, scored and printed in the same way. The bar is the best
of the two and of what was measured before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from quality.figure import Figure
from runner.engine import Engine
from runner.manifest import load

MANIFESTS = Path(__file__).parents[1] / "manifests"
COUNTED = ("rouge1", "rouge2")
NAMES = ("ROUGE-1", "ROUGE-2", "ROUGE-L")
KNOWN = {
    "fredsum": (69.5, 52.0, 53.0),
    "scitldr": (31.3, 12.3, 25.0),
}
"""What the longest sentences of debates and the first one of abstracts were measured to reach."""

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """A document with its sentences, the references, and the places in the service's order.

    The first and the longest sentences are sought among the first `given` ones.
    """

    sentences: Sequence[str]
    given: int
    order: Sequence[int]
    references: Sequence[str]


Score = Callable[[Case, Iterable[int]], Points]


def measure(service: str, data: Path) -> list[Figure]:
    """Return the figures of every set in a folder, or of the folder itself where it is one."""
    engine = Engine(load(MANIFESTS / f"{service}.yaml"))
    figures: list[Figure] = []
    try:
        for folder in (data, *sorted(data.glob("summaries-*"))):
            if (folder / "transcript").is_dir():
                cases = list(debates(engine, folder))
                figures += compare(service, folder, "fredsum", cases, at_length)
            elif "scitldr" in folder.name:
                cases = list(abstracts(engine, folder))
                figures += compare(service, folder, "scitldr", cases, in_one_sentence)
    finally:
        engine.close()
    return figures


def compare(
    service: str, folder: Path, kind: str, cases: Sequence[Case], score: Score
) -> list[Figure]:
    """Print what the first and the longest sentences reach, and return the service's figures."""
    label = f"{folder.name} ({len(cases)})"
    ours = mean(score(case, case.order) for case in cases)
    first = mean(score(case, range(case.given)) for case in cases)
    longest = mean(score(case, by_length(case.sentences[: case.given])) for case in cases)
    for name, points in (("first", first), ("longest", longest), ("ours", ours)):
        print(f"{label}, {name}: {' / '.join(f'{one:.1f}' for one in points)}", flush=True)
    rivals = {
        "first sentences, here": first,
        "longest sentences, here": longest,
        "best of these, measured before": np.array(KNOWN[kind]),
    }
    figures = []
    for place, name in enumerate(NAMES):
        against = max(rivals, key=lambda rival: rivals[rival][place])
        bar = round(float(rivals[against][place]), 1)
        value = float(ours[place])
        seen = folder.name.endswith("-dev")
        figures.append(Figure(service, label, name, value, bar, against, seen))
    return figures


def mean(points: Iterable[Points]) -> Points:
    """Return the mean over documents."""
    return np.mean(list(points), axis=0)


def by_length(sentences: Sequence[str]) -> list[int]:
    """Return the places of the sentences, that with most words first."""
    return sorted(range(len(sentences)), key=lambda place: -len(sentences[place].split()))


# --- debates --------------------------------------------------------------------------------------


def debates(engine: Engine, folder: Path) -> Iterator[Case]:
    """Yield the debates that somebody summarised."""
    for path in sorted((folder / "transcript").glob("*.txt")):
        summaries = sorted((folder / "summary_extractive").glob(f"*/{path.name}"))
        if not summaries:
            continue
        found = ask(engine, [path.read_text("utf-8")], language="fr", ratio=1)[0]["sentences"]
        order = sorted(range(len(found)), key=lambda place: -found[place]["score"])
        references = [one.read_text("utf-8") for one in summaries]
        yield Case([one["text"] for one in found], len(found), order, references)


def at_length(case: Case, order: Iterable[int]) -> Points:
    """Score the first sentences of an order, cut at the number of words of each reference."""
    order = list(order)
    tokenizer = DefaultTokenizer(use_stemmer=False)
    points = []
    for reference in case.references:
        text = cut(case.sentences, order, len(reference.split()))
        points.append(f1(tokenizer, reference, text))
    return np.mean(points, axis=0)


def cut(sentences: Sequence[str], order: Sequence[int], words: int) -> str:
    """Return so many words of the first sentences of an order, put in document order."""
    kept: list[int] = []
    size = 0
    for place in order:
        if size >= words:
            break
        kept.append(place)
        size += len(sentences[place].split())
    return " ".join(" ".join(sentences[place] for place in sorted(kept)).split()[:words])


# --- abstracts ------------------------------------------------------------------------------------


def abstracts(engine: Engine, folder: Path) -> Iterator[Case]:
    """Yield the abstracts with their sentences as the set has cut them."""
    lines = [
        line for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]
    rows = [json.loads(line) for line in lines if line.strip()]
    texts = [" ".join(one.strip() for one in row["source"]) for row in rows]
    for row, chosen in zip(rows, ask(engine, texts, language="en", sentences=1), strict=True):
        source = [one.strip() for one in row["source"]]
        # The service may cut differently, so its sentence stands behind those of the set.
        yield Case([*source, chosen["summary"]], len(source), [len(source)], row["target"])


def in_one_sentence(case: Case, order: Iterable[int]) -> Points:
    """Score the first sentence of an order by the target that is best for each measure."""
    tokenizer = DefaultTokenizer(use_stemmer=True)
    text = case.sentences[next(iter(order))]
    return np.max([f1(tokenizer, target, text) for target in case.references], axis=0)


def f1(tokenizer: DefaultTokenizer, reference: str, text: str) -> Points:
    """Return ROUGE-1, 2 and L in percent, of words as the tokenizer cuts and stems them.

    For L, rouge-score writes down a table of the words of both texts in Python, which takes seconds
    for a debate; the longest common subsequence has the same length however it is found.
    """
    scores = RougeScorer(list(COUNTED), tokenizer=tokenizer).score(reference, text)
    theirs, ours = (tokenizer.tokenize(one) for one in (reference, text))
    both = len(theirs) + len(ours)
    longest = 200 * common(theirs, ours) / both if both else 0.0
    return np.array([*(100 * scores[name].fmeasure for name in COUNTED), longest])


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    Source: Hyyrö, "Bit-parallel LCS-length computation revisited", 2004.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    everywhere = (1 << len(one)) - 1
    row = everywhere
    for word in other:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & everywhere
    return len(one) - row.bit_count()


def ask(engine: Engine, documents: list[str], **parameters: Any) -> list[dict[str, Any]]:
    """Return the service's result for each document, in requests of a hundred."""
    results: list[dict[str, Any]] = []
    for start in range(0, len(documents), 100):
        request = {"documents": documents[start : start + 100], **parameters}
        outcome = engine.run("quality", request, emit=lambda event: None, timeout=3600)
        if outcome.error is not None:
            raise outcome.error
        results += outcome.output["documents"]
    return results
