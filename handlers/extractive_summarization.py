"""Summarises a document by its own most central sentences."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from summa.preprocessing.snowball import SnowballStemmer
from summa.preprocessing.stopwords import get_stopwords_by_language

from runner import Context, Service
from runner.language import ANY, detect

Bag = tuple[str, ...]
Vector = NDArray[np.float64]

# The languages by the names that summa gives them. It has no stop words for French, and TextRank is
# better off without: adding spaCy's list costs 4 points of ROUGE-2 on French debates.
NAMES = {"en": "english", "fr": "french"}
WORD = re.compile(r"[^\W\d_]{2,}")
KNOWN_STEMS = 50_000
"""Stems kept between documents, for each language: about 10 MB."""

DAMPING = 0.85
CHANGE = 1e-6
ROUNDS = 100


class Summary(Service):
    """Ranks the sentences of each document by TextRank and keeps the first of the ranking."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.ignored = {
            language: frozenset(get_stopwords_by_language(name).split())
            for language, name in NAMES.items()
        }
        self.stem: dict[str, Callable[[str], str]] = {
            language: lru_cache(KNOWN_STEMS)(SnowballStemmer(name).stem)
            for language, name in NAMES.items()
        }

    def __call__(
        self,
        ctx: Context,
        documents: list[str],
        language: str,
        ratio: float,
        sentences: int | None = None,
    ) -> dict[str, Any]:
        """Return the summary of each document; `sentences`, where given, wins over `ratio`."""
        answers = []
        with ctx.step("summarize") as step:
            for document in step.track(documents):
                spoken = detect(document, tuple(NAMES)) if language == ANY else language
                kept = self.summarize(ctx, document, spoken, ratio, sentences)
                summary = " ".join(sentence["text"] for sentence in kept)
                answers.append({"language": spoken, "summary": summary, "sentences": kept})
        return {"documents": answers}

    def summarize(
        self, ctx: Context, document: str, language: str, ratio: float, sentences: int | None
    ) -> list[dict[str, Any]]:
        """Return the kept sentences in document order, none of them twice."""
        spans, bags = [], []
        for start, end in split(document, language):
            ctx.check()
            if any(map(str.isalnum, document[start:end])):
                spans.append((start, end))
                bags.append(self.bag(ctx, document[start:end], language))
        if not spans:
            return []
        scores = rank(ctx, bags)
        wanted = max(1, round(ratio * len(spans))) if sentences is None else sentences
        kept: dict[Bag, int] = {}
        for index in sorted(range(len(spans)), key=lambda index: (-scores[index], index)):
            if len(kept) == wanted:
                break
            start, end = spans[index]
            kept.setdefault(bags[index] or (document[start:end],), index)
        return [
            {
                "index": index,
                "start": spans[index][0],
                "end": spans[index][1],
                "text": document[slice(*spans[index])],
                "score": scores[index],
            }
            for index in sorted(kept.values())
        ]

    def bag(self, ctx: Context, sentence: str, language: str) -> Bag:
        """Return the stems of a sentence's words, in order, without the ignored ones."""
        plain = unicodedata.normalize("NFC", sentence).replace("\u00ad", "").lower()
        stem, ignored = self.stem[language], self.ignored[language]
        bag = []
        for word in WORD.findall(plain):
            ctx.check()  # a transcript without punctuation may be one sentence of 100,000 words
            if word not in ignored:
                bag.append(stem(word))
        return tuple(bag)


# --- the ranking ---------------------------------------------------------------------------------


def rank(ctx: Context, bags: Sequence[Bag]) -> list[float]:
    """Return the TextRank score of each sentence in (0, 1], where 1 is the most central one.

    Sentences with equal bags are one node, as in summa. Nodes that share no word with any other get
    the lowest score, and all get 1 when no two nodes share a word. Source: Mihalcea and Tarau,
    "TextRank: Bringing Order into Texts", EMNLP 2004.
    """
    nodes: dict[Bag, int] = {}
    node = [nodes.setdefault(bag, len(nodes)) for bag in bags]
    likeness = Likeness(list(nodes))
    degrees = likeness.times(np.ones(len(nodes)))
    # Similarities are 0 or above 0.05, so anything smaller is what rounding left of a 0.
    linked = degrees > 1e-6
    share = np.divide(1.0, degrees, out=np.zeros(len(nodes)), where=linked)
    weights = np.full(len(nodes), 1 / len(nodes))
    for _ in range(ROUNDS):
        ctx.check()
        known = weights
        weights = DAMPING * likeness.times(known * share) + (1 - DAMPING) / len(nodes)
        if np.abs(weights - known).sum() < CHANGE:
            break
    scores = np.maximum(np.round(weights / weights.max(), 4), 0.0001).tolist()
    return [scores[index] for index in node]


class Likeness:
    """The similarities of all pairs of sentences, as a matrix that is never written down.

    The similarity of two different sentences is the number of words they share over the sum of the
    logarithms of their lengths. A megabyte of text has ten thousand sentences, so a hundred million
    pairs, but only some hundred different lengths: for the rows of one length, a product with the
    matrix is two products with the sparse table of sentences and words. Time grows with words times
    lengths, memory with words.
    """

    def __init__(self, bags: Sequence[Bag]) -> None:
        vocabulary: dict[str, int] = {}
        columns: list[int] = []
        ends = [0]
        for bag in bags:
            columns += {vocabulary.setdefault(word, len(vocabulary)) for word in bag}
            ends.append(len(columns))
        shape = (len(bags), max(1, len(vocabulary)))
        table = csr_matrix((np.ones(len(columns)), columns, ends), shape=shape)
        self._words = table.T.tocsr()
        self._lengths = np.log10([max(1, len(bag)) for bag in bags])
        self._own = self._over(np.diff(ends), 2 * self._lengths)
        rows = [np.flatnonzero(self._lengths == length) for length in np.unique(self._lengths)]
        self._groups = [(group, self._lengths[group[0]], table[group]) for group in rows]

    def times(self, vector: Vector) -> Vector:
        """Return the product of the matrix and a vector with one number a sentence."""
        product = np.empty_like(vector)
        for group, length, table in self._groups:
            product[group] = table @ (self._words @ self._over(vector, self._lengths + length))
        return np.maximum(product - self._own * vector, 0.0)

    @staticmethod
    def _over(counts: Vector, lengths: Vector) -> Vector:
        """Divide; two sentences of one word, whose logarithms are 0, are not similar at all."""
        return np.divide(counts, lengths, out=np.zeros(len(lengths)), where=lengths > 0)


# --- the sentences -------------------------------------------------------------------------------

LINE = re.compile(r"[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
BLANKS = re.compile(r"\s*+")
# Quotes, brackets and note marks (`[12]`) behind the full stop still belong to the sentence.
END = re.compile(r"([.!?…]++)(?:[\"'”’»)\]]|[ \u00a0\u202f]?(?:»|\[\d[\d ,–-]{0,10}\]))*+")
LAST_WORD = re.compile(r"[^\s'’(\[«“\"/–—]*$")
NEXT_WORD = re.compile(r"[\s\"'“‘«(\[*•–—-]*+([^\W\d_]*+)")
STRAY = frozenset(["", *".!?…"])
LONGEST_ABBREVIATION = 20
NUMERAL = re.compile(r"\d+|[IVXLC]+")
DOTTED = re.compile(r"(?:\w{1,2}\.-?)+\w{1,2}")  # U.S, Ph.D, J.-C, a.m

TITLES = {
    "en": "Mr Mrs Ms Dr Drs Prof Rev Hon Gen Col Maj Capt Cmdr Lt Sgt Cpl Pvt Sen Rep Gov Pres "
    "Supt Messrs St Mt Ft Adm Brig Insp Fr Msgr",
    "fr": "M MM Mr Mme Mmes Mlle Mlles Me Mgr Dr Drs Pr St Ste Sts Stes Gén Col Cdt Cap Lt Adj Vve",
}
# These stand before what they announce, so the sentence goes on.
ANNOUNCERS = {
    "en": "vol vols eds eq cf vs v approx ca e.g i.e eg ie viz al esp incl dept jan feb apr jun "
    "jul aug sept oct nov dec",
    "fr": "vol chap éd cf env ex p.ex c.-à-d coll réf tél av apr ap bd boul janv févr fév avr juil "
    "sept oct nov déc",
}
# These do so only before a number: `no. 5`, `art. 12`, but `She said no. He left.`
COUNTERS = {
    "en": "p pp no nos fig figs art sec ch c op ver",
    "fr": "p pp n no nos t fig art al ch",
}
# These may also end a sentence, which shows in a following word that begins one.
LOOSE = "inc ltd co corp llc jr sr bros cie sté ave"
STARTERS = {
    "en": "a after all also an and another as at because before both but by during each even every "
    "few finally first for from he her here his how however i if in it its later many meanwhile "
    "more most my no nobody not now of on once one only or other our over she since so some such "
    "that the their then there these they this those though through thus to today under until we "
    "what when where whether which while who why with without yes yet you your",
    "fr": "à afin ainsi alors après au aucun aujourd aussi autre aux avant avec beaucoup c car ce "
    "cela celle celui cependant certains ces cet cette ceux chaque comme d dans de depuis des dès "
    "deux donc du elle elles en enfin ensuite entre est et il ils j je l la le les leur leurs lors "
    "lorsque mais malgré même n ni nos notre nous on or ou où par pendant personne plus plusieurs "
    "pour pourquoi pourtant puis puisque qu quand quant que quel quelle quelques qui s sa sans se "
    "selon ses seul si sinon son sous sur tous tout toute toutefois un une vers voici voilà vos "
    "votre vous y",
}
# After an initial these are more often a part of the name: J. Le Goff, P. de Gaulle.
PARTICLES = "de des du la le les"


def split(text: str, language: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each sentence in code points; no sentence crosses a line.

    Measured on the borders inside lines of GUM (English), Sequoia and GSD (French): F1 99, 98 and
    99, where spaCy's rules reach 95, 91 and 98.
    """
    shortened = Abbreviations(language)
    lower = text.islower()
    for line in LINE.finditer(text):
        start, stop = line.start(), line.start() + len(line.group().rstrip())
        start = blanks(text, start, stop)
        for mark in END.finditer(text, start, stop):
            end = mark.end()
            if end == stop or not text[end].isspace():
                continue
            word = follower(text, end, stop)
            if word in STRAY or (word[0].islower() and not lower):
                continue
            if mark.group(1) == "." and shortened.at(text, start, mark.start(), word):
                continue
            yield start, end
            start = blanks(text, end, stop)
        if start < stop:
            yield start, stop


class Abbreviations:
    """What a language shortens with a full stop that does not end the sentence."""

    def __init__(self, language: str) -> None:
        self.titles = frozenset(TITLES[language].split())
        self.announcers = frozenset(ANNOUNCERS[language].split())
        self.counters = frozenset(COUNTERS[language].split())
        self.loose = frozenset(LOOSE.split())
        self.starters = frozenset(STARTERS[language].split())
        self.names = self.starters - frozenset(PARTICLES.split())

    def at(self, text: str, start: int, stop: int, follower: str) -> bool:
        """Tell whether the full stop at `stop` only shortens the word before it.

        `start` is where the sentence begins, `follower` the word or the digit behind the full stop.
        """
        found = LAST_WORD.search(text, max(start, stop - LONGEST_ABBREVIATION), stop)
        word = found.group() if found else ""
        low = word.lower()
        if word in self.titles or (word.isupper() and word.capitalize() in self.titles):
            return True
        if low in self.announcers or (low in self.counters and follower.isdigit()):
            return True
        if stop - len(word) == start and NUMERAL.fullmatch(word):
            return True  # the number of a heading or of an item
        if len(word) == 1 and word.isupper():
            return follower.lower() not in self.names
        if low in self.loose or DOTTED.fullmatch(word):
            return follower.lower() not in self.starters
        return False


def follower(text: str, start: int, stop: int) -> str:
    """Return the next word behind quotes, brackets and dashes, or the character there is instead.

    A letter with a full stop is an initial (`J. A. Smith`) and comes with it.
    """
    found = NEXT_WORD.match(text, start, stop)
    word, end = (found.group(1), found.end()) if found else ("", start)
    if len(word) == 1 and text.startswith(".", end):
        return f"{word}."
    return word or text[end : min(end + 1, stop)]


def blanks(text: str, start: int, stop: int) -> int:
    """Return where the white space that begins at `start` ends."""
    found = BLANKS.match(text, start, stop)
    return found.end() if found else start
