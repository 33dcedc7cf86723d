"""`python -m handlers.extractive_summarization.fit DATA`: fit the weights of the genres.

Needs rouge-score. Reads `summaries-fr-fredsum-dev` and `summaries-en-scitldr-dev` and writes the
weights for `genre.py` with the ROUGE that they reach: on all documents, and cross-validated on
debates and abstracts that they were not fitted on.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from scipy.optimize import minimize

from handlers.extractive_summarization import Summary
from handlers.extractive_summarization.genre import SPEECH, WRITING, Genre
from handlers.extractive_summarization.unit import Unit, units
from runner import Context

Matrix = NDArray[np.float64]
TOKEN = re.compile(r"[a-z0-9]+")
CALM = 0.03
"""The penalty of squared weights, for signs of variance 1. From 0.001 to 0.1 nothing changes."""
SHARPNESS = 3.0
"""Points of ROUGE by which a sentence must be better to be wanted e times as much."""


@dataclass(frozen=True, slots=True)
class Page:
    """A document: what is seen of its units, and how much people would want each of them."""

    group: str
    units: Sequence[Unit]
    seen: Matrix
    wanted: Matrix
    references: tuple[str, ...]


def debates(
    folder: Path, see: Callable[[str, str, Genre], tuple[list[Unit], Matrix]]
) -> list[Page]:
    """Return the debates; a unit is wanted by the share of the two annotators who took it.

    The annotators copied sentences and set the speaker's name before each, so a unit counts as
    taken when three of four pairs of its words stand in the lines of the summary.
    """
    pages = []
    for path in sorted((folder / "transcript").iterdir()):
        references = [
            (folder / "summary_extractive" / one / path.name).read_text("utf-8") for one in "12"
        ]
        found, seen = see(path.read_text("utf-8"), "fr", SPEECH)
        wanted = np.zeros(len(found))
        for reference in references:
            taken = {pair for line in reference.splitlines() for pair in pairs(line)}
            for place, unit in enumerate(found):
                own = pairs(re.sub(r"^[^:.]{1,60} : ", "", unit.text))
                wanted[place] += sum(pair in taken for pair in own) > 0.75 * max(1, len(own))
        wanted /= len(references)
        pages.append(Page(path.name.split("--")[0], found, seen, wanted, tuple(references)))
    return pages


def abstracts(
    folder: Path, see: Callable[[str, str, Genre], tuple[list[Unit], Matrix]]
) -> list[Page]:
    """Return the abstracts; a unit is wanted by its ROUGE with the best of the short summaries."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    pages = []
    for number, line in enumerate((folder / "dev.jsonl").read_text("utf-8").splitlines()):
        row = json.loads(line)
        found, seen = see(" ".join(one.strip() for one in row["source"]), "en", WRITING)
        rouge = np.zeros((len(found), 3))
        for place, unit in enumerate(found):
            for target in row["target"]:
                points = [100 * one.fmeasure for one in scorer.score(target, unit.text).values()]
                rouge[place] = np.maximum(rouge[place], points)
        pages.append(Page(str(number), found, seen, rouge, tuple(row["target"])))
    return pages


def pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs of neighbouring words."""
    words = TOKEN.findall(text.lower())
    return list(pairwise(words))


def yes_or_no(pages: Sequence[Page]) -> Matrix:
    """Return the weights of a logistic regression: is a unit taken or not?"""
    x = np.concatenate([page.seen - page.seen.mean(axis=0) for page in pages])
    y = np.concatenate([page.wanted for page in pages])
    deviation = x.std(axis=0) + 1e-9
    x = np.column_stack([x / deviation, np.ones(len(x))])

    def loss(weights: Matrix) -> tuple[float, Matrix]:
        z = x @ weights
        value = np.mean(np.logaddexp(0, z) - y * z)
        slope = x.T @ (1 / (1 + np.exp(-z)) - y) / len(y)
        return value, slope

    return minimize(loss, np.zeros(x.shape[1]), jac=True).x[:-1] / deviation


def which_one(pages: Sequence[Page]) -> Matrix:
    """Return the weights of a choice model: which unit of the document is taken?"""
    deviation = np.concatenate([page.seen for page in pages]).std(axis=0) + 1e-9
    goals = [softmax(page.wanted.mean(axis=1) / SHARPNESS) for page in pages]
    seen = [page.seen / deviation for page in pages]

    def loss(weights: Matrix) -> tuple[float, Matrix]:
        value, slope = CALM * (weights @ weights) / 2, CALM * weights
        for x, goal in zip(seen, goals, strict=True):
            chosen = softmax(x @ weights)
            value -= goal @ np.log(chosen + 1e-300) / len(seen)
            slope = slope + x.T @ (chosen - goal) / len(seen)
        return value, slope

    return minimize(loss, np.zeros(len(deviation)), jac=True).x / deviation


def softmax(sums: Matrix) -> Matrix:
    """Return shares of 1 whose ratios are e to the differences."""
    raised = np.exp(sums - sums.max())
    return raised / raised.sum()


def reach_abstract(page: Page, weights: Matrix) -> Matrix:
    """Return ROUGE-1, 2 and L of the best unit."""
    return page.wanted[int(np.argmax(page.seen @ weights))]


def reach_debate(page: Page, weights: Matrix) -> Matrix:
    """Return ROUGE-1, 2 and L of the best units, cut at the reference's number of words."""
    scorer = RougeScorer(["rouge1", "rouge2"])
    order = np.argsort(-(page.seen @ weights), kind="stable")
    points = np.zeros(2)
    for reference in page.references:
        size, kept, room = len(reference.split()), [], 0
        for place in order:
            if room >= size:
                break
            kept.append(int(place))
            room += page.units[place].size
        text = " ".join(" ".join(page.units[place].text for place in sorted(kept)).split()[:size])
        points += [100 * one.fmeasure for one in scorer.score(reference, text).values()]
    return points / len(page.references)


def main() -> None:
    """Read the command line, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=10)
    options = parser.parse_args()
    service = Summary(SimpleNamespace())
    ctx = Context(job_id="fit", service="fit", steps=(), emit=lambda event: None)

    def see(text: str, language: str, genre: Genre) -> tuple[list[Unit], Matrix]:
        found = units(ctx, text, language, None)
        wording, stem = service.wording[language], service.stem[language]
        signs = genre.see(ctx, text, found, wording, stem)
        return found, np.column_stack([signs[name] for name in genre.fitted])

    fredsum = debates(options.data / "summaries-fr-fredsum-dev", see)
    scitldr = abstracts(options.data / "summaries-en-scitldr-dev", see)
    report(SPEECH, fredsum, yes_or_no, reach_debate, options.folds)
    report(WRITING, scitldr, which_one, reach_abstract, options.folds)


def report(
    genre: Genre,
    pages: Sequence[Page],
    fit: Callable[[Sequence[Page]], Matrix],
    reach: Callable[[Page, Matrix], Matrix],
    folds: int,
) -> None:
    """Write the weights of a genre and what they reach; parts of one debate share a fold."""
    weights = fit(pages)
    names = dict(zip(genre.fitted, weights.round(2).tolist(), strict=True))
    known = np.mean([reach(page, weights) for page in pages], axis=0).round(2)
    groups = sorted({page.group for page in pages})
    points = []
    for fold in range(folds):
        out = set(groups[fold::folds])
        weights = fit([page for page in pages if page.group not in out])
        points += [reach(page, weights) for page in pages if page.group in out]
    unknown = np.mean(points, axis=0).round(2)
    sys.stdout.write(
        f"{genre.name}: {json.dumps(names)}\n  fitted on all {known}, cross-validated {unknown}\n"
    )


if __name__ == "__main__":
    main()
