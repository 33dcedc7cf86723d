"""What `runner.scaffold` promises to whoever begins a new service."""

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from runner.errors import BadRequest
from runner.manifest import load, manifest_schema
from runner.scaffold import create
from runner.testing import check_examples, run

FILES = ["handlers/new_toy.py", "manifests/new-toy.yaml", "tests/handlers/test_new_toy.py"]


def files(folder: Path) -> list[str]:
    """Return every file below a folder, without the bytecode that an import leaves."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(str(path.relative_to(folder)) for path in found)


def command(*words: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a Python module in a folder, without leaving anything there."""
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def test_a_new_service_is_three_files(tmp_path):
    """Nothing else is written, and the paths of all three are returned."""
    paths = create("new-toy", tmp_path / "deep")
    assert sorted(str(p.relative_to(tmp_path / "deep")) for p in paths) == FILES
    assert files(tmp_path / "deep") == FILES


def test_its_tests_pass_at_once(tmp_path):
    """In an empty folder, `pytest` finds three tests and they pass."""
    create("new-toy", tmp_path)
    ran = command("pytest", "-p", "no:cacheprovider", folder=tmp_path)
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr
    assert files(tmp_path) == FILES


def test_its_manifest_is_sound_and_its_examples_hold(tmp_path):
    """The manifest loads, carries the name, and states examples that are true."""
    manifest = load(create("new-toy", tmp_path)[0])
    assert (manifest.name, manifest.type) == ("new-toy", "new_toy")
    assert manifest.handler == "handlers.new_toy:NewToy"
    assert len(manifest.examples) == 2
    assert check_examples(manifest) == []


def test_it_says_nothing_of_a_job_that_goes_well(tmp_path):
    """What succeeds is told with debug only, as by the runner itself."""
    path = create("quiet-toy", tmp_path)[0]
    ran = run(path, {"documents": ["a b"]})
    assert ran.status == "succeeded"
    assert not [event for event in ran.events if event.kind == "log"]


def test_two_services_live_in_one_folder(tmp_path):
    """A second service stands beside the first and disturbs nothing."""
    create("new-toy", tmp_path)
    second = create("other-toy", tmp_path)
    assert check_examples(second[0]) == []
    assert len(files(tmp_path)) == 6


def test_its_code_is_as_tidy_as_ours(tmp_path):
    """Handler and test pass the linter and the formatter with the settings of this project."""
    create("new-toy", tmp_path)
    settings = f"--config={Path(__file__).parents[1] / 'pyproject.toml'}"
    for words in (["check"], ["format", "--check"]):
        ran = command("ruff", *words, "--no-cache", settings, ".", folder=tmp_path)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_template_shows_every_key():
    """Whoever reads a new manifest has seen all that it may say, but for LinTO's callers."""
    document = load(resources.files("runner") / "templates" / "manifest.yaml").document
    keys = manifest_schema().document["properties"]
    assert document.keys() == keys.keys() - {"x-linto"} | {"x-note"}
    assert document["limits"].keys() == keys["limits"]["properties"].keys()
    assert document["steps"][0].keys() == keys["steps"]["items"]["properties"].keys()


def schema_line(manifest: Path) -> Path:
    """Return the schema that an editor finds through a manifest's first line."""
    first = manifest.read_text("utf-8").splitlines()[0]
    return manifest.parent / first.removeprefix("# yaml-language-server: $schema=")


def test_an_editor_finds_the_schema(tmp_path):
    """The first line leads to the schema of this checkout, or else to the installed one."""
    assert schema_line(create("new-toy", tmp_path)[0]).is_file()
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / "manifest.schema.json").touch()
    line = create("other-toy", tmp_path)[0].read_text().splitlines()[0]
    assert line.endswith("$schema=../runner/manifest.schema.json")


@pytest.mark.parametrize(
    "name",
    ["", "New", "new_toy", "-new", "new-", "a--b", "1st", "é", "../x", "a b", "a/b", "a" * 64],
)
def test_a_name_that_no_service_can_have_is_refused(tmp_path, name):
    """A bad name is told with a good one, and nothing is written."""
    with pytest.raises(BadRequest, match=r"is no name of a service.*such as word-count"):
        create(name, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["class", "import", "none", "true"])
def test_a_word_of_python_is_no_name(tmp_path, name):
    """A name that could not be the name of a module or a class is refused."""
    with pytest.raises(BadRequest, match=f"choose another, such as my-{name}"):
        create(name, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("taken", [*FILES, "handlers/new_toy/model.py"])
def test_nothing_is_ever_overwritten(tmp_path, taken):
    """If one of the files is there already, it stays as it is and none is written."""
    path = tmp_path / taken
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(BadRequest, match="exists already; nothing was written"):
        create("new-toy", tmp_path)
    assert files(tmp_path) == [taken]
    assert path.read_text() == "mine"


@pytest.mark.parametrize("blocked", ["manifests", "handlers", "tests"])
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, blocked):
    """A failure half-way takes back what was written, folders included."""
    (tmp_path / blocked).write_text("a file where a folder should be")
    with pytest.raises(BadRequest, match=r"cannot be written.*Nothing was written"):
        create("new-toy", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [blocked]
