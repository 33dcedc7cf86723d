"""Trains the bundled taggers: `python -m handlers.text.train_tagger DATA [--seed N]`.

DATA is the folder with the treebanks of `TREEBANKS`. Besides python-crfsuite this needs the
word lists of `SOURCES`, the extra `train-tagger`; `make train-tagger DATA=folder` installs them.
The same seed, data and package versions give the same models.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import platform
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pycrfsuite
import wordfreq

from handlers.text.lexicon import FOLDER, Lexicon, load
from handlers.text.noun_phrases import runs
from handlers.text.tagger import Features, stem
from handlers.text.tokens import Token, tokenize

TREEBANKS = {
    "en": {
        "ner-en-gum/dep/*.conllu": {
            "name": "GUM: academic, bio, court, interview, news, voyage",
            "licence": "CC BY 4.0; texts CC BY 4.0, CC BY-SA 3.0 or CC BY 2.5",
        },
    },
    "fr": {
        "pos-fr-sequoia/*.conllu": {"name": "UD French-Sequoia", "licence": "LGPL-LR"},
        "pos-fr-gsd-devtest/*.conllu": {
            "name": "UD French-GSD, dev and test",
            "licence": "CC BY-SA 4.0",
        },
    },
}
SOURCES = {
    "wordfreq": "how common words are, CC BY-SA 4.0; package Apache 2.0",
    "textblob": "Brill's English lexicon of the Brown corpus and the Penn Treebank, MIT",
    "spacy-lookups-data": "English words by class from WordNet, WordNet licence; French words by "
    "class and their forms; package MIT",
}
HELD_OUT = 10
"""Every tenth document (or block of sentences) is never trained on while measuring."""
LEAST_COMMON = 1.7
PTB = {"NN": "n", "NP": "N", "JJ": "a", "VB": "v", "RB": "r", "MD": "m", "IN": "i", "DT": "d",
       "CD": "c", "PR": "p", "WP": "p", "CC": "&", "UH": "u", "RP": "r", "WD": "p", "WR": "r",
       "TO": "i", "PD": "d", "EX": "p"}  # fmt: skip
KINDS = {"noun": "n", "adj": "a", "verb": "v", "adv": "r"}


@dataclass(frozen=True, slots=True)
class Sentence:
    """Tokens as the service cuts them, with the tags that the treebank gives them."""

    document: str
    tokens: tuple[Token, ...]
    tags: tuple[str, ...]


# --- the treebanks -------------------------------------------------------------------------------


def sentences(path: Path, language: str) -> Iterator[Sentence]:
    """Yield the sentences of a CoNLL-U file, cut by our own tokenizer."""
    document, count = path.stem, 0
    for block in path.read_text("utf-8").split("\n\n"):
        lines = block.split("\n")
        text = next((line[9:] for line in lines if line.startswith("# text = ")), "")
        rows = [line.split("\t") for line in lines if line[:1].isdigit()]
        document = next(
            (line.partition("= ")[2] for line in lines if line.startswith("# newdoc id")), document
        )
        if not rows:
            continue
        count += 1
        tokens = tuple(tokenize(text, 0, len(text), language))
        name = document if language == "en" else f"{path.stem}-{count // 20}"
        yield Sentence(name, tokens, tuple(labels(text, tokens, rows)))


def labels(text: str, tokens: Sequence[Token], rows: list[list[str]]) -> Iterator[str]:
    """Yield our tag of each token: that of the syntactic head among the words it covers."""
    words = list(located(text, rows))
    for token in tokens:
        inside = [row for start, end, row in words if start < token.end and end > token.start]
        if not inside:
            yield "X"
            continue
        ids = {row[0] for row in inside}
        solid = [row for row in inside if row[3] not in ("PUNCT", "SYM")] or inside
        head = next((row for row in solid if row[6] not in ids), solid[-1])
        yield label(head)


def label(row: list[str]) -> str:
    """Return the tag of a treebank's word."""
    tag, fine, relation = row[3], row[4], row[7]
    if fine in ("NNP", "NNPS"):
        return "PROPN"
    if tag == "VERB" and relation == "amod" and fine[:2] == "VB" and int(row[6]) > int(row[0]):
        return "ADJ"
    return tag


def located(text: str, rows: list[list[str]]) -> Iterator[tuple[int, int, list[str]]]:
    """Yield start, end and row of each word.

    The words of a contraction share its place (`du`), unless they are its parts (`dog` and `'s`).
    """
    place, stop, parts = 0, 0, False
    whole = (0, 0)
    for number, row in enumerate(rows):
        first, _, last = row[0].partition("-")
        if "." in first:
            continue
        if int(first) <= stop and not parts:
            yield *whole, row
            continue
        found = text.find(row[1], place)
        if found < 0:
            continue
        if not last:
            place = found + len(row[1])
            yield found, place, row
            continue
        stop = int(last)
        inside = rows[number + 1 : number + 2 + stop - int(first)]
        parts = "".join(word[1] for word in inside) == row[1]
        if not parts:
            whole = found, found + len(row[1])
            place = whole[1]


# --- the word lists ------------------------------------------------------------------------------


def package(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"training needs the package {name!r}")
    return Path(spec.submodule_search_locations[0])


def lookups(table: str) -> Any:
    """Return a table of spacy-lookups-data."""
    path = package("spacy_lookups_data") / "data" / f"{table}.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))


def classes(language: str) -> dict[str, str]:
    """Return which parts of speech a word can be, the most frequent one first where known."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for table in (lookups(f"{language}_lemma_index"), lookups(f"{language}_lemma_exc")):
        for name, words in table.items():
            if name in KINDS:
                for word in words:
                    kinds[word.lower()].add(KINDS[name])
    first: dict[str, str] = {}
    if language == "en":
        path = package("textblob") / "en" / "en-lexicon.txt"
        for line in path.read_text("utf-8").splitlines():
            word, _, tag = line.strip().partition(" ")
            if word and not word.startswith(";;;") and tag[:2] in PTB:
                kind = "N" if tag.startswith("NNP") else PTB[tag[:2]]
                if word.islower() or word.lower() not in first:
                    first[word.lower()] = kind
    merged = {}
    for word in kinds.keys() | first.keys():
        rest = kinds.get(word) or kinds.get(stem(word), set())
        lead = first.get(word, "")
        merged[word] = (f"{lead}|" if language == "en" else "") + "".join(sorted(rest))
    return merged


def word_list(language: str) -> Iterator[str]:
    """Yield the lines of the bundled word list: word, classes, ten times its commonness."""
    frequencies = wordfreq.get_frequency_dict(language, "best")
    known = classes(language)
    wanted = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
    for word in sorted(frequencies.keys() | known.keys()):
        common = math.log10(frequencies[word]) + 9 if word in frequencies else 0.0
        if common >= LEAST_COMMON and wanted.fullmatch(word):
            yield f"{word}\t{known.get(word, '')}\t{round(common * 10)}\n"


def write_words(language: str) -> None:
    """Write the bundled word list, the same bytes for the same lists."""
    text = "".join(word_list(language)).encode()
    (FOLDER / f"{language}.words.gz").write_bytes(gzip.compress(text, 9, mtime=0))


# --- training ------------------------------------------------------------------------------------


def variants(sentence: Sentence, chance: random.Random) -> Sentence:
    """Return a sentence as it is, or as somebody writes who shouts or has no capitals."""
    draw = chance.random()
    if draw > 0.12:
        return sentence
    change = str.lower if draw < 0.08 else str.title
    tokens = tuple(Token(change(one.form), one.start, one.end) for one in sentence.tokens)
    return Sentence(sentence.document, tokens, sentence.tags)


def fit(lexicon: Lexicon, training: Iterable[Sentence], path: Path, seed: int) -> None:
    """Train a model and write it to the path."""
    features, chance = Features(lexicon), random.Random(seed)
    trainer = pycrfsuite.Trainer(verbose=False)
    trainer.select("lbfgs")
    trainer.set_params(
        {
            "c1": 0.35,
            "c2": 0.01,
            "max_iterations": 150,
            "feature.minfreq": 2,
            "feature.possible_transitions": True,
        }
    )
    for sentence in training:
        one = variants(sentence, chance)
        trainer.append(list(features.of([token.form for token in one.tokens])), one.tags)
    trainer.train(str(path))


def accuracy(lexicon: Lexicon, path: Path, held_out: Iterable[Sentence]) -> dict[str, float]:
    """Return the share of right tags, and F1 of the noun phrases' words and borders."""
    tagger, features = pycrfsuite.Tagger(), Features(lexicon)
    tagger.open(str(path))
    right = total = both = found = stated = 0
    for sentence in held_out:
        tags = tagger.tag(list(features.of([token.form for token in sentence.tokens])))
        right += sum(map(str.__eq__, tags, sentence.tags))
        total += len(tags)
        ours, theirs = set(runs(tags)), set(runs(sentence.tags))
        both, found, stated = both + len(ours & theirs), found + len(ours), stated + len(theirs)
    return {
        "tokens": total,
        "accuracy": round(right / total, 4),
        "noun_phrases": stated,
        "noun_phrase_f1": round(2 * both / (found + stated), 4),
    }


def train(language: str, data: Path, seed: int) -> dict[str, Any]:
    """Train and measure the model of a language; the one that ships sees all sentences."""
    write_words(language)
    lexicon = load(language)
    everything: list[Sentence] = []
    for pattern in TREEBANKS[language]:
        paths = sorted(data.glob(pattern))
        if not paths:
            raise FileNotFoundError(f"{data / pattern}: expected the treebank there, found nothing")
        for path in paths:
            everything += sentences(path, language)
    documents = sorted({sentence.document for sentence in everything})
    away = set(documents[HELD_OUT // 2 :: HELD_OUT])
    path = FOLDER / f"{language}.pos.crfsuite"
    fit(lexicon, (one for one in everything if one.document not in away), path, seed)
    measured = accuracy(lexicon, path, (one for one in everything if one.document in away))
    fit(lexicon, everything, path, seed)
    return measured


def main() -> None:
    """Read the command line, train both taggers and write what they are made of."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with the treebanks")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    measured = {language: train(language, options.data, options.seed) for language in TREEBANKS}
    packages = ["python-crfsuite", *SOURCES]
    meta = {
        "description": "Parts of speech and commonness of English and French words",
        "licence": "CC BY-SA 4.0 and LGPL-LR, after the training data",
        "seed": options.seed,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "treebanks": {language: list(sets.values()) for language, sets in TREEBANKS.items()},
        "word_lists": SOURCES,
        "held_out": f"one document (French: 20 sentences) of {HELD_OUT}; then trained on all",
        "measured": measured,
    }
    text = json.dumps(meta, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / "meta.json").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
