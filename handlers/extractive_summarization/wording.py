"""The words by which a writer or a speaker shows what a sentence is for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

Pattern = re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Wording:
    """What to look for in one language, in lower case.

    In writing, a sentence `announces` what the text does, `proposes` something of its own, speaks
    of its `authors`, calls something new or by a name (`novelty`). In speech, it makes `demands` or
    enumerates them, turns to somebody (`address`), is about the conversation itself (`manners`).
    `voices` are the first and second person, by whose number speech is told from writing.
    """

    announces: Pattern
    proposes: Pattern
    authors: Pattern
    novelty: Pattern
    demands: Pattern
    address: Pattern
    manners: Pattern
    voices: Pattern

    @classmethod
    def of(cls, **patterns: str) -> Self:
        """Compile the patterns, each a list of alternatives that match whole words."""
        return cls(**{name: re.compile(text, re.VERBOSE) for name, text in patterns.items()})


# A sentence with a quotation announces what somebody else does.
QUOTED = re.compile(r"[\"«»“”]")
# A name in brackets: `a method (BERT) that`, `called ReLU (Rectified ...)`.
ACRONYM = re.compile(r"\([A-Z][A-Za-z]{0,30}[A-Z]")
# `Jordan Bardella : `, at the beginning of a line or of a unit.
SPEAKER = re.compile(r"[^\W\da-z_][^\n:.!?;]{0,60}[ \u00a0\u202f]?:\s")


def english() -> Wording:
    """Return the wording of English."""
    proposes = "propose|present|introduce|develop|describe|design|suggest"
    studies = "study|investigate|explore|consider|address|examine|analy[sz]e"
    shows = "show|demonstrate|prove|find|argue|observe|derive|establish|provide"
    return Wording.of(
        announces=rf"""\bwe\ (?:\w+\ ){{0,2}}(?:{proposes}|{studies}|{shows})\b | \bhere,?\ we\b
            | \b(?:this|our|the\ present)\ (?:\w+\ )?
              (?:paper|work|article|study|letter|note|survey)\b""",
        proposes=rf"\bwe\ (?:\w+\ ){{0,2}}(?:{proposes})\b",
        authors=r"\bwe\b",
        novelty=r"\b(?:called|named|termed|dubbed|namely|novel|new|simple|first)\b",
        demands=r"""\b(?:propos\w+ | creat(?:e|es|ed|ing) | increas\w+ | reduc\w+
            | rais(?:e|es|ed|ing) | lower\w* | cut | cuts | first(?:ly)? | second(?:ly)?
            | third(?:ly)? | finally | more\ than | less\ than | must | need\ to
            | we\ (?:want|will|should) | i\ (?:want|will) | in\ favou?r\ of | defend\w*
            | guarantee\w* | millions? | billions? | per\ ?cent) \b | %""",
        address=r"\b(?:you|your|yours)\b",
        manners=r"""\b(?:minutes? | tonight | good\ (?:evening|morning|afternoon) | hello
            | thanks? | sir | madam | mr | mrs | ms | interrupt\w* | answer\w* | let\ me
            | finish\w* | debates? | topic | figures | said | truth | by\ the\ way | you\ know
            | of\ course | sorry | excuse\ me | questions? | speak\w* | look | listen\w* | wait
            | moment | you\ (?:are|have)) \b""",
        voices=r"\b(?:i|me|my|you|your)\b",
    )


def french() -> Wording:
    """Return the wording of French."""
    proposes = "propos|présent|introduis|développ|décriv|suggér|concev"
    studies = "étudi|explor|examin|analys|considér|abord|trait"
    shows = "montr|démontr|prouv|établiss|constat|observ|souten|fourniss"
    return Wording.of(
        announces=rf"""\bnous\ (?:\w+\ ){{0,2}}(?:{proposes}|{studies}|{shows})e?ons\b
            | \b(?:cet|cette|ce|le\ présent|la\ présente|notre)\ (?:\w+\ )?
              (?:article|étude|travail|papier|mémoire|thèse|contribution)\b""",
        proposes=rf"\bnous\ (?:\w+\ ){{0,2}}(?:{proposes})e?ons\b",
        authors=r"\bnous\b",
        novelty=r"""\b(?:appelée?s? | nommée?s? | dénommée?s? | nouveaux? | nouvel(?:le)?s?
            | inédite?s? | première?)\b""",
        demands=r"""\b(?:propos\w+ | souhait\w+ | cré(?:er|ons|era|é) | augment\w+
            | bais(?:se|ser|sé)\w* | rédui\w+ | supprim\w+ | mettre\ en\ place
            | première?(?:ment)? | deuxième\w* | second\w* | troisième\w* | d['’]abord | ensuite
            | enfin | notamment | plus\ de | moins\ de | considèr\w+
            | (?:c['’]est|être)\ pourquoi | il\ faut | permett\w+ | nous\ voulons | je\ veux
            | je\ suis\ pour | défend\w+ | garanti\w+ | million\w* | milliard\w*
            | pour\ ?cent) \b | %""",
        address=r"\b(?:vous|votre|vos|tu|te|toi)\b",
        manners=r"""\b(?:minutes? | allez | soir | bonsoir | bonjour | merci | monsieur | madame
            | mme | interromp\w+ | répon\w+ | laissez | termine[rz]? | sujet | débats?
            | chiffres | avez\ dit | dites | vérité | voilà | d['’]ailleurs | savez | bien\ sûr
            | excusez | pardon | question | parole | regardez | écoutez | attendez
            | caricatur\w+ | polémique\w* | moment | vous\ (?:êtes|avez)) \b""",
        voices=r"\b(?:je|j['’]|moi|me|vous|votre|vos|tu|te)(?!\w)",
    )
