"""`python -m quality DATA`: measure the services, print a table, write the figures as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from importlib import import_module, metadata
from pathlib import Path

from quality.figure import Figure

MEASURES = {
    "ner": "quality.entities",
    "keyword-extraction": "quality.keyphrases",
    "keyphrase-extraction": "quality.keyphrases",
    "extractive-summarization": "quality.summaries",
    "topic-modeling": "quality.topics",
}
"""Which module measures a service, by `measure(service, data) -> list[Figure]`."""


def table(figures: list[Figure]) -> str:
    """Return the figures as a Markdown table, a star at those that the data was chosen on."""
    lines = [
        "| service | data | measure | ours | to beat | |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for one in figures:
        value = f"{one.value:.{1 if one.value > 1 else 3}f}{'*' if one.seen else ''}"
        bar = "" if one.bar is None else f"{one.bar:g}"
        row = (one.service, one.data, one.measure, value, bar, one.against)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m quality", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with the data sets")
    parser.add_argument("--service", choices=MEASURES, action="append", help="only this one")
    parser.add_argument("--out", type=Path, default=Path(".nlp-runner/quality.json"))
    options = parser.parse_args()
    figures: list[Figure] = []
    for service in options.service or MEASURES:
        start = time.monotonic()
        figures += import_module(MEASURES[service]).measure(service, options.data)
        print(f"{service}: {time.monotonic() - start:.0f} s", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "version": metadata.version("nlp-runner"),
        "python": platform.python_version(),
        "figures": [asdict(one) for one in figures],
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    print(f"\n{table(figures)}\n\n* used to choose or to train something\n\n{options.out}")


if __name__ == "__main__":
    main()
