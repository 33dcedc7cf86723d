"""What `runner.language` promises to requests and to texts."""

import subprocess
import sys

import pytest

from runner.language import detect, lookup

ENGLISH = "The committee met on Tuesday to discuss the harbour, which has been closed since March."
FRENCH = "La commission s'est réunie mardi pour parler du port, fermé depuis le mois de mars."
GERMAN = "Der Ausschuss hat am Dienstag über den Hafen gesprochen, der seit März geschlossen ist."


@pytest.mark.parametrize(
    ("tag", "offered", "found"),
    [
        ("fr", ["en", "fr"], "fr"),
        ("fr-FR", ["en", "fr"], "fr"),
        ("FR-be", ["en", "fr"], "fr"),
        ("fr-ca", ["fr", "fr-CA"], "fr-CA"),
        ("zh-Hant-TW", ["zh", "zh-Hant"], "zh-Hant"),
        ("fr", ["fr-CA"], None),
        ("de", ["en", "fr"], None),
        ("de", [], None),
    ],
)
def test_a_tag_finds_the_nearest_offered_language(tag, offered, found):
    """A tag finds the most specific offered language that covers it, in the offered spelling."""
    assert lookup(tag, offered) == found


def test_a_singleton_is_never_looked_up_alone():
    """Cutting a tag drops an extension's singleton together with what it introduced."""
    assert lookup("en-u-ca-gregory", ["en"]) == "en"
    assert lookup("x-fr-FR", ["fr", "x"]) is None


def test_any_language_can_be_offered_and_asked():
    """A service of any language takes every tag as it is, and `*` asked stays `*` everywhere."""
    assert lookup("gsw-CH", ["*"]) == "gsw-CH"
    assert lookup("fr-FR", ["*", "fr"]) == "fr"
    assert lookup("*", ["en", "fr"]) == "*"


@pytest.mark.parametrize("tag", ["", "-", "fr-", "fr_FR", "français", "en fr", "fr-*", "a" * 9])
def test_what_is_no_tag_is_refused(tag):
    """A malformed tag means no language, even to a service of any language."""
    assert lookup(tag, ["fr", "*"]) is None


def test_a_monstrous_tag_is_refused_at_once():
    """A tag of megabytes costs no more than its reading."""
    assert lookup("a-" * 5_000_000 + "a", ["a"]) is None


@pytest.mark.parametrize(("text", "code"), [(ENGLISH, "en"), (FRENCH, "fr"), (GERMAN, "de")])
def test_a_text_is_recognised(text, code):
    """A sentence is recognised among several languages, in whatever order they are offered."""
    assert detect(text, ["en", "fr", "de"]) == code
    assert detect(text, ["de", "fr", "en"]) == code


def test_only_an_offered_language_is_chosen():
    """A German text in a service of two other languages gets one of those two."""
    assert detect(GERMAN, ["en", "fr"]) in {"en", "fr"}


def test_the_answer_is_spelled_as_it_is_offered():
    """A regional tag is recognised by its language and given back whole; of two, the first."""
    assert detect(FRENCH, ["en-GB", "fr-CA"]) == "fr-CA"
    assert detect(FRENCH, ["en", "fr-CH", "fr-CA"]) == "fr-CH"
    assert detect("Styret møttes på tirsdag for å snakke om havnen.", ["en", "nb-NO"]) == "nb-NO"


@pytest.mark.parametrize("text", ["", " \n\t", "12 345 + 6 = ?", "…!?"])
def test_a_text_that_tells_nothing_gets_the_first_language(text):
    """An empty or wordless text means the first language offered, and `und` among any."""
    assert detect(text, ["fr", "en"]) == "fr"
    assert detect(text, ["en", "fr"]) == "en"
    assert detect(text, ["*"]) == "und"


def test_one_offered_language_needs_no_text():
    """With one language offered there is nothing to detect, whatever the text."""
    assert detect(FRENCH, ["en"]) == "en"
    assert detect("", ["fr-CA"]) == "fr-CA"


def test_any_offered_language_opens_every_language():
    """With `*` offered, the answer is any language, or the offered tag that covers it."""
    assert detect(GERMAN, ["*"]) == "de"
    assert detect(GERMAN, ["*", "de-AT"]) == "de-AT"


def test_unknown_languages_do_not_break_detection():
    """Languages the identifier has never seen are offered in vain, without an error."""
    assert detect(FRENCH, ["tlh", "fr"]) == "fr"
    assert detect(FRENCH, ["tlh", "qya"]) == "tlh"


def test_only_the_beginning_of_a_text_is_read():
    """Blanks before a text do not count, and what follows its beginning does not matter."""
    assert detect("\n" * 100_000 + FRENCH, ["en", "fr"]) == "fr"
    assert detect(FRENCH * 50 + ENGLISH * 10_000, ["en", "fr"]) == "fr"


def test_broken_text_is_still_text():
    """A lone surrogate, as broken clients send, does not stop the detection."""
    assert detect(FRENCH + "\ud83d", ["en", "fr"]) == "fr"


def test_nothing_offered_is_a_mistake_of_the_caller():
    """Detection among no languages says so instead of inventing one."""
    with pytest.raises(ValueError, match="offered"):
        detect(FRENCH, [])


def test_reading_manifests_does_not_load_the_identifier():
    """Importing the room and looking tags up loads no library, so every command stays fast."""
    code = (
        "import sys; from runner.language import lookup, detect; lookup('fr-FR', ['fr']);"
        "detect('abc', ['fr']); sys.exit('py3langid' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
