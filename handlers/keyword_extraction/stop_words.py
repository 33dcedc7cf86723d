"""Words that are no keywords, however often they come."""

from __future__ import annotations

from yake import KeywordExtractor

ELIDED = ("qu’", "jusqu’", "lorsqu’", "puisqu’", "quoiqu’")

# Forms of auxiliaries and connectives that yake's French list lacks: in debates and interviews they
# rank as high as the subject.
FRENCH_FUNCTION_WORDS = """
ait aient avons avez avions aviez aurai auras aurons aurez aurais aurait aurions auriez auraient
sommes êtes étions étiez serai seras serons serez serais serait serions seriez seraient sois soit
soyons soyez soient furent faites faire faisait ferait fera faut faudra faudrait fallait pouvez
pouvait pourra pourrait pourraient pouvoir dois devait devrait devraient devoir veut veux voulez
veulent voulait voudrait vouloir sais sait savez savent savoir dit dites disent disait aller allez
allait voir vois voit alors déjà également enfin ensuite lors maintenant notamment parce parfois
peut-être presque puis seulement souvent tandis est-ce est-il est-elle a-t-il a-t-elle dit-il
dit-elle c'est-à-dire oui
"""


def stop_words(language: str) -> frozenset[str]:
    """Return the stop words of a language: those of the yake package, and more for French."""
    words = frozenset(KeywordExtractor(lan=language).stopword_set)
    return words.union(ELIDED, FRENCH_FUNCTION_WORDS.split()) if language == "fr" else words
