"""Write a new service from the template: a manifest, a handler and its tests."""

from __future__ import annotations

import json
import keyword
import os
import re
from importlib import resources
from pathlib import Path

from runner.errors import BadRequest

SCHEMA_LINE = "# yaml-language-server: $schema="


def create(name: str, folder: Path) -> list[Path]:
    """Write a service that works at once into a folder, and return the three files.

    Raises `BadRequest` for a name that no service can have, and for files that exist already or
    cannot be written; nothing is written then.
    """
    stem, title = _names(name)
    texts = {
        folder / "manifests" / f"{name}.yaml": _template("manifest.yaml"),
        folder / "handlers" / f"{stem}.py": _template("handler.py.txt"),
        folder / "tests" / "handlers" / f"test_{stem}.py": _template("test_handler.py.txt"),
    }
    taken = [path for path in (*texts, folder / "handlers" / stem) if path.exists()]
    if taken:
        raise BadRequest(f"{taken[0]} exists already; nothing was written. Choose another name.")
    header = SCHEMA_LINE + _schema_for(folder)
    for path, text in texts.items():
        text = text.replace(f"{SCHEMA_LINE}manifest.schema.json", header)
        text = text.replace("my-service", name).replace("my_service", stem)
        texts[path] = text.replace("MyService", title)
    _write(texts)
    return list(texts)


def _names(name: str) -> tuple[str, str]:
    """Return the names of the module and the class of a service."""
    allowed = json.loads(_packaged("manifest.schema.json"))["properties"]["name"]
    if not re.fullmatch(allowed["pattern"], name) or len(name) > allowed["maxLength"]:
        raise BadRequest(
            f"`{name}` is no name of a service: write up to {allowed['maxLength']} lower-case "
            f"letters, digits and single dashes, the first a letter, such as word-count."
        )
    stem = name.replace("-", "_")
    title = "".join(part.capitalize() for part in name.split("-"))
    if keyword.iskeyword(stem) or keyword.iskeyword(title):
        raise BadRequest(f"`{name}` is a word of Python; choose another, such as my-{name}.")
    return stem, title


def _schema_for(folder: Path) -> str:
    """Return where an editor finds the schema of manifests, as seen from a manifest."""
    beside = folder / "runner" / "manifest.schema.json"
    with resources.as_file(resources.files("runner") / "manifest.schema.json") as installed:
        schema = (beside if beside.is_file() else installed).resolve()
    if schema.is_relative_to(folder.resolve()):
        return os.path.relpath(schema, folder.resolve() / "manifests")
    return str(schema)


def _write(texts: dict[Path, str]) -> None:
    """Write all files or none."""
    made: list[Path] = []
    for path, text in texts.items():
        try:
            for missing in [p for p in reversed(path.parents) if not p.exists()]:
                missing.mkdir()
                made.append(missing)
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(text)
        except OSError as error:
            for one in reversed(made):
                one.rmdir() if one.is_dir() else one.unlink()
            raise BadRequest(
                f"{path} cannot be written: {error.strerror}. Nothing was written."
            ) from error


def _template(name: str) -> str:
    return _packaged(f"templates/{name}")


def _packaged(name: str) -> str:
    return resources.files("runner").joinpath(name).read_text("utf-8")
