"""What the services in `manifests/` promise about themselves."""

import tomllib
from pathlib import Path

import pytest

from runner.manifest import load

HOUSE = Path(__file__).parents[1]
MANIFESTS = sorted((HOUSE / "manifests").glob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_is_sound_and_named_like_its_file(path):
    """Every manifest loads, and its file, its service and its module have one name."""
    manifest = load(path)
    stem = path.stem.replace("-", "_")
    assert manifest.name == path.stem
    assert manifest.handler.partition(":")[0].split(".")[:2] == ["handlers", stem]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_has_its_handler_and_its_tests(path):
    """Beside every manifest there is a handler, a module or a package, and a file of tests."""
    stem = path.stem.replace("-", "_")
    module, package = HOUSE / "handlers" / f"{stem}.py", HOUSE / "handlers" / stem
    assert module.is_file() != package.is_dir()
    assert (HOUSE / "tests" / "handlers" / f"test_{stem}.py").is_file()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_shows_an_example(path):
    """Every service has an example: it is documentation and smoke test at once."""
    assert load(path).examples


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_requires_what_its_extra_installs(path):
    """`pip install nlp-runner[<service>]` gives exactly what the service's image gets."""
    extras = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    assert sorted(load(path).requires) == sorted(extras.get(path.stem, []))


def test_no_handler_is_an_orphan():
    """Every handler has its manifest; beside them stands only what several of them share."""
    handlers = {p.stem for p in (HOUSE / "handlers").iterdir() if not p.name.startswith(("_", "."))}
    assert handlers == {
        "text",
        *(path.stem.replace("-", "_") for path in MANIFESTS),
    }
