"""What the service my-service promises."""

from pathlib import Path

from runner.testing import check_examples, run

MANIFEST = Path(__file__).parents[2] / "manifests" / "my-service.yaml"


def test_the_examples_hold():
    """Every example in the manifest gives the result it states."""
    assert check_examples(MANIFEST) == []


def test_short_words_may_be_left_out():
    """An operator chooses how long a word must be to count."""
    ran = run(MANIFEST, {"documents": ["a cat", "a"]}, config={"shortest": 2})
    assert ran.output == {"counts": [1, 0], "total": 1}


def test_empty_documents_are_refused():
    """A request without a single character is told so, and is not an error of the service."""
    ran = run(MANIFEST, {"documents": ["", ""]})
    assert (ran.status, ran.error.code) == ("failed", "input_rejected")
