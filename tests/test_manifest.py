"""What `runner.manifest` promises to authors, doors and the orchestrator."""

from pathlib import Path

import pytest

from runner.errors import InputInvalid, ManifestInvalid, Problem
from runner.manifest import Manifest, from_document, load, manifest_schema

GALLERY = Path(__file__).parent / "gallery"

SOUND = """\
apiVersion: nlp-runner/v1
name: word-count
version: 2.1.0
summary: Counts words.
languages: [en, fr]
handler: handlers.word_count:Counter
config:
  mode: {enum: [fast, good], default: good}
input:
  type: object
  required: [documents]
  properties:
    documents: {type: array, items: {type: string}}
    language: {type: string, default: en}
    options: {type: object, default: {}, properties: {deep: {type: boolean, default: false}}}
output:
  type: object
  properties:
    counts: {type: array, items: {type: integer}}
steps:
  - {name: count-words, weight: 2.5}
limits: {timeout: 90s, queue_timeout: 1.5h, max_body: 500kB, concurrency: 2}
examples:
  - input: {documents: [a b]}
    output: {counts: [2]}
"""


def write(folder: Path, text: str) -> Path:
    """Write a manifest into a folder."""
    path = folder / "word-count.yaml"
    path.write_text(text, "utf-8")
    return path


def problems(folder: Path, *changes: tuple[str, str]) -> list[Problem]:
    """Return the problems of the sound manifest after some changes of its text."""
    text = SOUND
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    with pytest.raises(ManifestInvalid) as caught:
        load(write(folder, text))
    return list(caught.value.problems)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """The sound manifest."""
    return load(write(tmp_path, SOUND))


def test_a_manifest_becomes_a_frozen_noun(manifest, tmp_path):
    """Everything a manifest says is an attribute, with defaults where it says nothing."""
    assert (manifest.name, manifest.type, manifest.major) == ("word-count", "word_count", 2)
    assert manifest.languages == ("en", "fr")
    assert manifest.requires == manifest.packages == ()
    assert manifest.path == tmp_path.resolve() / "word-count.yaml"
    with pytest.raises(AttributeError):
        manifest.name = "other"


def test_limits_are_read_with_their_units(manifest):
    """Times become seconds and sizes bytes; what is not said has its default."""
    limits = manifest.limits
    assert (limits.timeout, limits.queue_timeout, limits.startup) == (90.0, 5400.0, 300.0)
    assert (limits.max_body, limits.concurrency, limits.attempts) == (500_000, 2, 3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("60s", 60), ("10m", 600), ("24h", 86400), ("7d", 604800)],
)
def test_every_unit_of_time_is_known(tmp_path, text, seconds):
    """Minutes are not milliseconds."""
    path = write(tmp_path, SOUND.replace("timeout: 90s", f"timeout: {text}"))
    assert load(path).limits.timeout == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "size"), [("70B", 70), ("1.5MB", 1_500_000), ("1GB", 10**9)])
def test_every_unit_of_size_is_known(tmp_path, text, size):
    """Sizes are powers of ten."""
    path = write(tmp_path, SOUND.replace("500kB", text))
    assert load(path).limits.max_body == size


def test_a_step_has_a_title_and_a_weight(manifest, tmp_path):
    """A step without a title is titled by its name; no steps at all mean one step `run`."""
    [step] = manifest.steps
    assert (step.name, step.title, step.weight) == ("count-words", "Count words", 2.5)
    bare = SOUND.replace("steps:\n  - {name: count-words, weight: 2.5}\n", "")
    assert [step.name for step in load(write(tmp_path, bare)).steps] == ["run"]


def test_every_problem_is_told_at_once_with_its_line(tmp_path):
    """An author corrects everything in one go, each mistake at the line where it stands."""
    found = problems(
        tmp_path,
        ("name: word-count", "name: Word Count"),
        ("version: 2.1.0", "version: 2.1"),
        ("summary: Counts words.\n", ""),
        ("config:", "prot: 8080\nconfig:"),
        ("items: {type: string}", "items: {type: strin}"),
        ("counts: {type: array", "counts: {type: array, minItems: -1"),
        ("weight: 2.5", "weight: 0"),
        ("timeout: 90s", "timeout: 90 sec"),
        ("default: good", "default: slow"),
    )
    lines = {problem.pointer: problem.line for problem in found}
    assert lines == {
        "/name": 2,
        "/version": 3,
        "/summary": 1,
        "/prot": 6,
        "/config/mode/default": 8,
        "/input/properties/documents/items/type": 13,
        "/output/properties/counts/minItems": 19,
        "/steps/0/weight": 21,
        "/limits/timeout": 22,
    }
    assert all(problem.file == str(tmp_path / "word-count.yaml") for problem in found)


def test_a_problem_says_what_was_expected_and_found(tmp_path):
    """The printed error of a manifest reads: file, line, place, expected, found."""
    [problem] = problems(tmp_path, ("version: 2.1.0", "version: 2.1"))
    told = "word-count.yaml, line 3: `/version` has the wrong type; expected string, found number"
    assert str(problem).endswith(told)


@pytest.mark.parametrize(
    ("old", "new", "pointer", "line"),
    [
        ("  - {name: count-words", "  - {name: a}\n  - {name: a", "/steps/1/name", 22),
        ("timeout: 90s", "timeout: 0s", "/limits/timeout", 22),
        ("500kB", "0.1B", "/limits/max_body", 22),
        ("default: en", "default: 5", "/input/properties/language/default", 14),
        ("default: en", "default: de", "/input/properties/language/default", 14),
        ("deep: {type: boolean, default: false", "deep: {type: boolean, default: 0",
         "/input/properties/options/default/deep", 15),
        ("{documents: [a b]}", "{documents: [a b, 1]}", "/examples/0/input/documents/1", 24),
        ("{documents: [a b]}", "{documents: [], language: de}", "/examples/0/input/language", 24),
        ("{counts: [2]}", "{counts: [two]}", "/examples/0/output/counts/0", 25),
        ("{counts: [2]}", "{count: [2]}", "/examples/0/output/count", 25),
        ("{type: string, default: en}", "{$ref: 'http://127.0.0.1:9/a'}",
         "/input/properties/language/$ref", 14),
        ("type: object\n  required: [documents]", "type: array", "/input/type", 10),
        ("handler: handlers.word_count:Counter", "handler: word_count", "/handler", 6),
        ("[en, fr]", "[en, français]", "/languages/1", 5),
        ("apiVersion: nlp-runner/v1", "apiVersion: nlp-runner/v2", "/apiVersion", 1),
    ],
)  # fmt: skip
def test_a_mistake_is_found_where_it_is(tmp_path, old, new, pointer, line):
    """Mistakes that only the whole manifest shows are located as exactly as the simple ones."""
    found = [(problem.pointer, problem.line) for problem in problems(tmp_path, (old, new))]
    assert (pointer, line) in found


def test_a_mistake_is_told_once(tmp_path):
    """What the manifest's schema and the schema of schemas both refuse is one problem."""
    found = problems(
        tmp_path, ("properties:\n    documents", "properties: []\n  x-old:\n    documents")
    )
    assert [problem.pointer for problem in found] == ["/input/properties"]


def test_free_keys_are_free(tmp_path):
    """Keys that begin with `x-` hold anything, but for the one that we read ourselves."""
    manifest = load(write(tmp_path, SOUND + "x-mine: {route: [1, {a: b}]}\n"))
    assert manifest.document["x-mine"] == {"route": [1, {"a": "b"}]}


@pytest.mark.parametrize(
    ("text", "word"),
    [("", "wrong type"), ("[1]", "wrong type"), ("a: *x", "alias"), ("{", "not YAML")],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text, word):
    """Any file whatever ends in one kind of error that names the file."""
    with pytest.raises(ManifestInvalid, match=r"word-count\.yaml.*" + word):
        load(write(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    """A missing file, or a folder, is told like every other problem."""
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ManifestInvalid, match="cannot be read"):
            load(path)


def test_the_digest_ignores_how_a_manifest_is_written(manifest, tmp_path):
    """Remarks, quotes and the order of keys do not make another service."""
    lines = SOUND.splitlines()
    lines[1], lines[3] = "summary: 'Counts words.'  # indeed", '"name": word-count'
    assert load(write(tmp_path, "\n".join(lines))).digest == manifest.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [("words.", "word."), ("default: en", "default: fr"), ("[a b]", "[a c]"), ("90s", "91s")],
)
def test_the_digest_tells_contents_apart(manifest, tmp_path, old, new):
    """Whatever a manifest says differently makes it another one."""
    assert load(write(tmp_path, SOUND.replace(old, new))).digest != manifest.digest


def test_an_announced_manifest_is_the_same(manifest):
    """A manifest that travelled as JSON is equal in everything but its path."""
    again = from_document(manifest.document)
    assert (again.digest, again.path) == (manifest.digest, None)
    assert (again.steps, again.limits) == (manifest.steps, manifest.limits)


def test_a_hostile_announcement_is_refused():
    """Whatever arrives instead of a manifest ends in one kind of error."""
    deep: object = 1
    for _ in range(900):
        deep = {"a": deep}
    for hostile in (None, 5, [], {}, deep, {"x-a": deep}, {"x-a": "\ud800"}, {"x-a": [0] * 99999}):
        with pytest.raises(ManifestInvalid):
            from_document(hostile)


def test_an_accepted_input_is_complete(manifest):
    """Defaults are filled in, also nested ones, and the value given stays as it was."""
    value = {"documents": ["a"]}
    filled = {"documents": ["a"], "language": "en", "options": {"deep": False}}
    assert manifest.accept(value) == filled
    assert value == {"documents": ["a"]}


def test_the_language_is_looked_up():
    """A regional tag becomes the language the service offers, and the request stays as it was."""
    manifest, value = load(GALLERY / "languages.yaml"), {"language": "fr-CA"}
    assert manifest.accept(value) == {"language": "fr"}
    assert value == {"language": "fr-CA"}


def test_another_language_is_refused(manifest):
    """A language the service does not have is refused with those it has."""
    with pytest.raises(InputInvalid, match="expected en or fr") as caught:
        manifest.accept({"documents": [], "language": "de"})
    [problem] = caught.value.problems
    assert (problem.pointer, problem.code) == ("/language", "language_unsupported")


def test_a_language_is_looked_up_only_where_both_sides_have_one(tmp_path):
    """Without `languages` in the manifest, `language` is an input like any other."""
    manifest = load(write(tmp_path, SOUND.replace("languages: [en, fr]\n", "")))
    assert manifest.accept({"documents": [], "language": "tlh"})["language"] == "tlh"


@pytest.mark.parametrize("value", [None, 5, [], "text", {}, {"documents": "a"}, {"documents": {1}}])
def test_a_wrong_input_is_refused_in_one_way(manifest, value):
    """Whatever is sent, the answer is `input_invalid` with at least one problem."""
    with pytest.raises(InputInvalid) as caught:
        manifest.accept(value)
    assert caught.value.problems


def test_a_refusal_does_not_repeat_the_document(manifest):
    """The sentence of a refusal, which is logged, does not contain what was sent."""
    with pytest.raises(InputInvalid) as caught:
        manifest.accept({"documents": "the patient is called Ada"})
    detail = "`/documents` of the input has the wrong type; expected array."
    assert caught.value.detail == detail


def test_every_key_of_a_manifest_is_described():
    """The schema that editors show is the only description of keys, so it describes each."""
    keys = manifest_schema().document["properties"]
    steps, limits = keys["steps"]["items"]["properties"], keys["limits"]["properties"]
    assert [
        k for part in (keys, steps, limits) for k, v in part.items() if "description" not in v
    ] == []


@pytest.mark.parametrize("path", sorted(GALLERY.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_gallery_is_sound(path):
    """Even ill-behaved services have a good manifest, named like its file."""
    manifest = load(path)
    assert manifest.name == path.stem.replace("_", "-")
    assert manifest.handler.startswith(f"gallery.{path.stem}:")
