"""The documentation says what the code does: its words, its links and its commands are checked."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from runner import errors, signature
from runner.cli import cli
from runner.manifest import manifest_schema
from runner.orchestrator.webhooks import DELAYS
from runner.testing import run

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    """Return every command line of the shell blocks, without its remark."""
    lines = "\n".join(blocks(text, "sh")).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links(path: Path) -> None:
    """Every relative link leads to a file of the repository, and to a place that is in it."""
    targets = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", path.read_text("utf-8"))
    found = [(path.parent / t if t else path, place) for t, place in targets if "://" not in t]
    assert [str(file) for file, _ in found if not file.exists()] == []
    assert [place for file, place in found if place and place not in places(file)] == []


def places(path: Path) -> set[str]:
    """Return what a link to a page may name behind its #: its headings, and its anchors."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


def test_every_manifest_key_is_documented() -> None:
    """docs/manifest.md names every key of the manifest's schema."""
    properties = manifest_schema().document["properties"]
    text = page("docs/manifest.md")
    nested = {f"limits.{key}" for key in properties["limits"]["properties"]}
    nested |= {f"steps[].{key}" for key in properties["steps"]["items"]["properties"]}
    nested |= {f"examples[].{key}" for key in properties["examples"]["items"]["properties"]}
    assert [key for key in {*properties, *nested} if f"`{key}`" not in text] == []


def test_the_manifest_shown_is_valid(tmp_path: Path) -> None:
    """The manifest in docs/manifest.md passes `nlp-runner check`."""
    (tmp_path / "shown.yaml").write_text(blocks(page("docs/manifest.md"), "yaml")[0], "utf-8")
    assert nlp_runner("check", "shown.yaml", cwd=tmp_path).returncode == 0


def test_every_command_and_flag_is_documented() -> None:
    """docs/cli.md names every command; a flag stands there or in docs/settings.md."""
    text = page("docs/cli.md") + page("docs/settings.md")
    assert isinstance(cli, click.Group)
    names = list(cli.commands)
    under = [f"{c.name} {sub}" for c in cli.commands.values() for sub in getattr(c, "commands", ())]
    flags = {flag for command in [cli, *cli.commands.values()] for flag in long_flags(command)}
    names += under
    assert [name for name in names if f"nlp-runner {name}" not in text] == []
    assert [flag for flag in sorted(flags) if flag not in text] == []


def long_flags(command: click.Command) -> Iterator[str]:
    for sub in command.commands.values() if isinstance(command, click.Group) else ():
        yield from long_flags(sub)
    for parameter in command.params:
        yield from (option for option in parameter.opts if option.startswith("--"))


def all_codes(base: type[errors.RunnerError] = errors.RunnerError) -> Iterator[str]:
    yield base.code
    for sub in base.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield from all_codes(sub)


def test_every_error_code_is_documented() -> None:
    """docs/http-api.md names every code that a caller can meet."""
    offline = {"manifest_invalid", "handler_invalid", "setting_invalid", "unavailable"}
    text = page("docs/http-api.md")
    assert [code for code in set(all_codes()) - offline if f"`{code}`" not in text] == []


def test_every_room_is_in_the_drawing() -> None:
    """docs/architecture.md names every room of the package."""
    rooms = [path.stem for path in (ROOT / "runner").rglob("*.py") if "__" not in path.stem]
    assert [room for room in rooms if f"`{room}`" not in page("docs/architecture.md")] == []


def test_the_answer_shown_is_the_real_one() -> None:
    """The README's request gets the output that the README shows."""
    shown = json.loads(blocks(page("README.md"), "json")[0])
    request = re.search(r"-d '([^']+)' \S+/v1/services/ner/jobs", page("README.md"))
    assert request is not None
    answer = run(ROOT / "manifests" / "ner.yaml", json.loads(request[1]))
    assert answer.output == shown["output"]


def test_a_service_in_five_minutes(tmp_path: Path) -> None:
    """The README's commands make a service that passes its check, and the handler shown is it."""
    steps = [c for c in commands(page("README.md")) if c.startswith("nlp-runner ")]
    first = [shlex.split(step)[1:] for step in steps[:2]]
    assert [step[0] for step in first] == ["new", "check"]
    for step in first:
        result = nlp_runner(*step, cwd=tmp_path)
        assert result.returncode == 0, result.stderr


def test_the_verification_shown_is_right() -> None:
    """The lines of docs/webhooks.md take what we sign, and nothing else."""
    names: dict[str, Any] = {}
    exec(blocks(page("docs/webhooks.md"), "python")[0], names)
    old, new = (f"whsec_{letter * 32}" for letter in "AB")
    headers = signature.headers("x", b"{}", time.time(), signature.secrets(f"{new} {old}"))
    assert names["verify"](old, headers, b"{}")
    assert names["verify"](new, headers, b"{}")
    assert not names["verify"](new, headers, b"{ }")
    assert not names["verify"](f"whsec_{'C' * 32}", headers, b"{}")
    late = signature.headers("x", b"{}", time.time() - 400, signature.secrets(old))
    assert not names["verify"](old, late, b"{}")


def test_the_plan_of_retries_is_the_one_documented() -> None:
    """docs/webhooks.md tells the real seconds, minutes and hours between tries."""
    units = {"s": 1, "min": 60, "h": 3600}
    said = re.search(r"tried again (.*?)\nlater", page("docs/webhooks.md"))
    assert said is not None
    found = re.findall(r"(\d+) (s|min|h)\b", said[1])
    assert [int(number) * units[unit] for number, unit in found] == list(DELAYS)


@pytest.mark.parametrize("name", ["README.md", "docs/services.md"])
def test_every_service_says_how_it_runs(name: str) -> None:
    """Three lines for each: on the command line, its image, a container of that."""
    said = commands(page(name))
    for path in sorted((ROOT / "manifests").glob("*.yaml")):
        service = path.stem
        first = said.index(f"nlp-runner --manifest manifests/{service}.yaml")
        assert said[first + 1 : first + 3] == [
            f"docker build -f Dockerfile.base --build-arg SERVICE={service} "
            f"-t nlp-runner/{service} .",
            f"docker run -p 127.0.0.1:8000:8000 nlp-runner/{service}",
        ]


def test_make_targets_exist() -> None:
    """Every `make` command of the documentation is a target of the Makefile."""
    makefile = page("Makefile")
    said = {
        m for path in PAGES for m in re.findall(r"^make ([a-z-]+)", path.read_text("utf-8"), re.M)
    }
    assert [target for target in said if f"\n{target}:" not in makefile] == []


def test_the_french_readme_says_the_same() -> None:
    """Both READMEs show the same commands and the same answer."""
    assert commands(page("README.fr.md")) == commands(page("README.md"))
    assert blocks(page("README.fr.md"), "json") == blocks(page("README.md"), "json")


def nlp_runner(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment: dict[str, Any] = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
