"""How a language builds noun phrases, and which words in them say nothing about a subject."""

from __future__ import annotations

from dataclasses import dataclass, field

PARTS = frozenset(["NOUN", "PROPN", "ADJ"])
NOUNS = frozenset(["NOUN", "PROPN"])

DATES = {
    "en": "monday tuesday wednesday thursday friday saturday sunday january february march april "
    "may june july august september october november december",
    "fr": "lundi mardi mercredi jeudi vendredi samedi dimanche janvier février mars avril mai juin "
    "juillet août septembre octobre novembre décembre heure heures minute minutes jour jours mois "
    "an ans année années semaine semaines matin soir nuit fois hier",
}
# Adjectives that go with every noun: `new method` is about a method, and not about novelty.
EMPTY = {
    "en": "able above-mentioned actual additional aforementioned alternative annual appropriate "
    "available basic best better big bigger broad certain challenging clear common "
    "comparable competitive considerable consistent corresponding crucial current different "
    "difficult distinct easy effective efficient entire essential existing experimental "
    "extensive famous few final first following former fourth full further future good "
    "great greater half high highest huge important improved increased increasing "
    "individual innovative interesting known large larger largest last late later latest "
    "latter least less likely little longer lot lower lowest main major many modern more "
    "most much necessary new next novel numerous obvious old older only original other "
    "overall own particular past poor popular possible potential practical present previous "
    "principal promising proper proposed recent recently-proposed related relevant "
    "remaining respective resulting same satisfactory second separate serious several "
    "significant similar simple simpler single small smaller so-called special specific "
    "straightforward strong subsequent substantial successful such sufficient suitable "
    "superior top traditional typical unique unknown useful usual valuable various very "
    "well-known whole wide widespread young",
    "fr": "actuel actuelle actuels ancien ancienne anciens anciennes autre autres bon bonne bons "
    "bonnes certain certaine certains certaines dernier dernière derniers dernières deuxième "
    "différent différente différents différentes divers diverses ensemble futur grand grande "
    "grands grandes gros grosse important importante importants importantes jeune jeunes "
    "longue long longs longues mauvais mauvaise meilleur meilleure même mêmes moindre multiple "
    "multiples nombreux nombreuses nouveau nouveaux nouvel nouvelle nouvelles pareil petit petite "
    "petits petites plein pleine possible précédent précédente premier première premiers "
    "premières prochain prochaine prochains prochaines principal principale principaux "
    "principales propre propres récent récente récents récentes second seconde seul seule seuls "
    "seules simple tel telle tels telles total totale tout toute tous toutes troisième unique "
    "vaste véritable vieille vieux vrai vraie",
}

# Nouns that count, measure or join, and say nothing by themselves: `a number of`, `à la suite de`.
HOLLOW = {
    "en": "aim amount aspect author billion bit case couple day detail end example fact form "
    "hour hundred idea instance issue kind lot manner million minute month number order paper part "
    "percent place point purpose range reason rest result second section set sort start step term "
    "thing thousand time today tomorrow total type use variety view way week work year yesterday",
    "fr": "aspect bout cas centaine cours côté date début dizaine ensemble exemple façon fait fin "
    "fois genre guise instant lieu majorité manière milliard millier million moment moyen niveau "
    "nombre objet ordre part partie personne plupart point question raison reste sens série sorte "
    "suite temps terme titre total tour type vue vingtaine",
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """The noun phrases of a language, and how keyphrases are made of them.

    `links` are the prepositions (and articles) inside a phrase; `adjective_last` says whether an
    adjective may follow its noun, `adjective_alone` whether it may stand for it. `lengths` says how
    much a phrase of so many words weighs, `name` the same for a name of one word; `early` is
    the number of words over which the beginning of a text counts as its beginning; `part` and
    `link` are the weight of a phrase that only ever stands inside a longer one.
    """

    links: frozenset[str]
    adjective_last: bool
    adjective_alone: bool
    lengths: tuple[float, ...]
    name: float
    early: float
    part: float
    link: float
    stop_words: frozenset[str]
    empty: frozenset[str] = field(repr=False)
    hollow: frozenset[str] = field(repr=False)

    def length(self, words: int, name: bool) -> float:
        """Return the weight of a phrase for its number of words."""
        if name and words == 1:
            return self.name
        return self.lengths[min(words, len(self.lengths)) - 1]


def plurals(words: str) -> frozenset[str]:
    """Return the words and their regular plurals."""
    return frozenset(form for word in words.split() for form in (word, f"{word}s"))


# The numbers for French are chosen on 50 French Wikinews articles, those for English after what is
# published of the lengths of keyphrases: Hulth, "Improved Automatic Keyword Extraction Given More
# Linguistic Knowledge", EMNLP 2003, where one in seven is a single word.
GRAMMARS = {
    "en": Grammar(
        links=frozenset(["of"]), adjective_last=False, adjective_alone=False,
        lengths=(0.4, 1.0, 1.25, 1.3, 1.2), name=0.7, early=50.0, part=0.3, link=0.15,
        stop_words=frozenset(DATES["en"].split()), empty=frozenset(EMPTY["en"].split()),
        hollow=plurals(HOLLOW["en"]),
    ),
    "fr": Grammar(
        links=frozenset(["de", "du", "des", "d'", "à", "au", "aux", "en"]),
        adjective_last=True, adjective_alone=True,
        lengths=(1.0, 0.9, 0.8, 0.7, 0.6), name=1.0, early=15.0, part=0.3, link=0.3,
        stop_words=frozenset(DATES["fr"].split()), empty=frozenset(EMPTY["fr"].split()),
        hollow=plurals(HOLLOW["fr"]),
    ),
}  # fmt: skip
