"""What the image of a service holds: its manifest, its handler, what handlers share, a starter."""

from __future__ import annotations

import compileall
import shutil
from collections.abc import Callable
from pathlib import Path

from runner import manifest as manifests
from runner.errors import ManifestInvalid
from runner.manifest import Manifest

ORCHESTRATOR = "orchestrator"
"""The image that holds no service: it takes the jobs of all of them."""

START = '#!/bin/sh\nexec nlp-runner {arguments} "$@"\n'
"""The script replaces itself by the process, so that signals reach it."""


def gather(service: str, house: Path, target: Path) -> None:
    """Copy into `target` what the image of `service` needs of the folder `house`.

    Beside the manifest and its handler these are `start`, and what `requires` (for pip) and
    `packages` (for apt) name, one a line. Raises `ManifestInvalid`.
    """
    requires: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    arguments = ORCHESTRATOR
    (target / "manifests").mkdir(parents=True)
    if service != ORCHESTRATOR:
        path = house / "manifests" / f"{service}.yaml"
        manifest = manifests.load(path)
        shutil.copy(path, target / "manifests")
        _copy_handler(manifest, house, target)
        requires, packages = manifest.requires, manifest.packages
        arguments = f"--manifest manifests/{service}.yaml"
    for name, lines in (("requires", requires), ("packages", packages)):
        (target / name).write_text("".join(f"{line}\n" for line in lines))
    start = target / "start"
    start.write_text(START.format(arguments=arguments))
    start.chmod(0o755)


def _copy_handler(manifest: Manifest, house: Path, target: Path) -> None:
    """Copy the handler and its neighbours, except those that are the handlers of others."""
    first, own = _place(manifest)
    if (house / f"{first}.py").is_file():
        shutil.copy(house / f"{first}.py", target)
    else:
        others = {name for folder, name in _handlers(house) if folder == first} - {own}
        shutil.copytree(house / first, target / first, ignore=_without(house / first, others))
    # The image's user can write no bytecode.
    compileall.compile_dir(target, quiet=1)


def _without(folder: Path, others: set[str]) -> Callable[[str, list[str]], set[str]]:
    def ignored(where: str, names: list[str]) -> set[str]:
        left_out = {name for name in names if Path(name).stem in others}
        return {"__pycache__"} | (left_out if Path(where) == folder else set())

    return ignored


def _handlers(house: Path) -> set[tuple[str, str]]:
    """Return the places of all handlers; a manifest that cannot be read names none."""
    found = set()
    for path in (house / "manifests").glob("*.yaml"):
        try:
            found.add(_place(manifests.load(path)))
        except ManifestInvalid:
            continue
    return found


def _place(manifest: Manifest) -> tuple[str, str]:
    """Return the first two names of the handler's module: `handlers`, `ner`."""
    first, _, rest = manifest.handler.partition(":")[0].partition(".")
    return first, rest.partition(".")[0]
