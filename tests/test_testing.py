"""What `runner.testing` promises to authors who test their services."""

from pathlib import Path

import pytest

from runner.errors import HandlerInvalid, ManifestInvalid, SettingInvalid
from runner.manifest import load
from runner.testing import check_examples, differences, run

GALLERY = Path(__file__).parent / "gallery"


def test_a_run_tells_everything_that_happened():
    """A test sees status, output, error and events, and may pass a path, a text or a manifest."""
    for manifest in (path := GALLERY / "echo.yaml", str(path), load(path)):
        ran = run(manifest, {"text": "a"})
        assert (ran.status, ran.output, ran.error) == ("succeeded", {"text": "a"}, None)
        assert [event.kind for event in ran.events] == ["started", "succeeded"]


def test_a_service_that_cannot_be_used_is_an_error_of_the_test():
    """What is wrong before any request is raised, for there is no run to speak of."""
    with pytest.raises(HandlerInvalid):
        run(GALLERY / "fails_on_import.yaml", {})
    with pytest.raises(ManifestInvalid):
        run(GALLERY / "nothing.yaml", {})
    with pytest.raises(SettingInvalid):
        run(GALLERY / "echo.yaml", {"text": "a"}, config={"model": "x"})


@pytest.mark.parametrize("path", sorted(GALLERY.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_of_the_gallery_hold(path):
    """Every example in the gallery gives what it states."""
    if path.stem not in ("fails_on_import", "fails_in_setup", "dies_in_setup"):
        assert check_examples(path) == []


def test_a_result_that_is_not_the_stated_one_is_told_with_its_line(tmp_path):
    """An author reads where in the manifest the example stands that does not hold."""
    path = tmp_path / "echo.yaml"
    handler = "def run(ctx, text): return {'text': text, 'size': len(text)}\n"
    (tmp_path / "echoes.py").write_text(handler, "utf-8")
    path.write_text(
        "apiVersion: nlp-runner/v1\nname: echo\nversion: 1.0.0\nsummary: E.\nhandler: echoes:run\n"
        "input: {type: object, required: [text], properties: {text: {type: string}}}\n"
        "output: {type: object}\nexamples:\n  - input: {text: abc}\n"
        "    output:\n      text: abd\n      size: 3\n      more: 1\n",
        "utf-8",
    )
    assert [str(problem) for problem in check_examples(path)] == [
        f"{path}, line 13: `/examples/0/output/more` is missing from the result",
        f"{path}, line 11: `/examples/0/output/text` differs; expected 'abd', found 'abc'",
    ]


@pytest.mark.parametrize(
    ("stated", "got"),
    [
        ({"a": [1, "x", None, True]}, {"a": [1, "x", None, True]}),
        ([1, 2], (1, 2)),
        (0.5, 0.5004),
        (1000, 1000.9),
        (0.0, 1e-12),
        (-2, -2.0),
    ],
)
def test_a_result_may_differ_in_the_last_digits(stated, got):
    """Numbers within a thousandth are the same: models differ that much between machines."""
    assert list(differences(stated, got)) == []


@pytest.mark.parametrize(
    ("stated", "got", "places"),
    [
        (0.5, 0.501, [""]),
        (True, 1, [""]),
        (0, False, [""]),
        ("1", 1, [""]),
        (None, 0, [""]),
        ([1, 2], [1], [""]),
        ({}, [], [""]),
        ({"a": 1, "b/c": [1, {"d": 2}]}, {"b/c": [1, {"d": 3}], "e": 1}, ["/a", "/b~1c/1/d", "/e"]),
    ],
)
def test_every_difference_has_its_place(stated, got, places):
    """Whatever is not the same is told, all of it, by its JSON Pointer."""
    assert sorted(problem.pointer for problem in differences(stated, got)) == places


def test_an_example_that_fails_is_told_with_its_code(tmp_path):
    """An example that ends in an error says which."""
    (tmp_path / "breaks.py").write_text("def run(ctx): return {'a': 1 // 0}\n", "utf-8")
    path = tmp_path / "breaks.yaml"
    path.write_text(
        "apiVersion: nlp-runner/v1\nname: breaks\nversion: 1.0.0\nsummary: B.\n"
        "handler: breaks:run\ninput: {type: object, properties: {}}\noutput: {type: object}\n"
        "examples:\n  - input: {}\n",
        "utf-8",
    )
    [problem] = check_examples(path)
    assert (problem.pointer, problem.code, problem.line) == ("/examples/0", "handler_error", 9)
    assert "ZeroDivisionError" in problem.message
