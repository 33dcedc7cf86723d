"""The log says who came, left or is in quarantine: once each, and crowds by their number."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest

from runner.manifest import Manifest, from_document
from runner.orchestrator.arrivals import CROWD, WINDOW, Arrivals
from runner.orchestrator.catalog import Catalog
from runner.registry import Instance

pytestmark = pytest.mark.anyio


def a_manifest(summary: str = "Finds names.") -> Manifest:
    """Return a manifest of `ner` 1.1.0; another summary makes another one."""
    return from_document(
        {
            "apiVersion": "nlp-runner/v1", "name": "ner", "version": "1.1.0", "summary": summary,
            "handler": "nobody:imports", "output": {"type": "object"},
            "input": {"type": "object", "properties": {"text": {"type": "string"}}},
        }
    )  # fmt: skip


class Hall:
    """A registry that is a list, the catalog that looks at it, and a clock."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.manifests: dict[str, Manifest] = {}
        self.there: dict[str, Instance] = {}
        self.now = 0.0
        self._catalog = Catalog(self)  # type: ignore[arg-type]
        self._arrivals = Arrivals(lambda: self.now)
        self._caplog = caplog
        caplog.set_level(logging.INFO, "runner.orchestrator.arrivals")

    async def living(self) -> list[Instance]:
        return list(self.there.values())

    async def manifest(self, digest: str) -> Manifest:
        return self.manifests[digest]

    def comes(self, host: str, manifest: Manifest, state: str = "ready", slots: int = 1) -> None:
        """Let a worker announce itself."""
        self.manifests[manifest.digest] = manifest
        self.there[host] = Instance(
            f"ner@{host}", "ner", manifest.version, manifest.digest, state, slots,
            started_at=float(len(self.there)),
        )  # fmt: skip

    async def look(self) -> list[str]:
        """Look, and return what is said."""
        self._caplog.clear()
        await self._catalog.refresh(time.time())
        self._arrivals.look(self._catalog)
        return [f"{one.levelname} {one.getMessage()}" for one in self._caplog.records]


@pytest.fixture
def hall(caplog: pytest.LogCaptureFixture) -> Hall:
    """Give an empty hall."""
    return Hall(caplog)


async def test_a_worker_is_told_of_when_it_comes_and_when_it_leaves(hall: Hall) -> None:
    """One line each, and none for a heartbeat; with the last worker the service is told of too."""
    hall.comes("host-6", a_manifest(), "starting")
    assert await hall.look() == []
    hall.comes("host-6", a_manifest())
    assert await hall.look() == ["INFO ner 1.1.0: worker ner@host-6 is ready, 1 slot"]
    hall.comes("host-7", a_manifest(), slots=4)
    assert await hall.look() == ["INFO ner 1.1.0: worker ner@host-7 is ready, 4 slots"]
    hall.there["host-7"] = replace(hall.there["host-7"], busy=3)
    assert await hall.look() == []
    del hall.there["host-6"]
    assert await hall.look() == ["INFO ner 1.1.0: worker ner@host-6 left"]
    hall.there["host-7"] = replace(hall.there["host-7"], state="draining")
    assert await hall.look() == [
        "WARNING ner 1.1.0 can take no job: ner is stopping: its workers take no more jobs."
    ]
    hall.there.clear()
    assert await hall.look() == ["INFO ner 1.1.0: worker ner@host-7 left"]
    assert await hall.look() == []


async def test_who_cannot_be_used_is_a_warning(hall: Hall) -> None:
    """A quarantine and a broken handler are said with their reasons, on one line and once."""
    hall.comes("host-1", a_manifest())
    await hall.look()
    hall.comes("host-2", a_manifest("Another."))
    [line] = await hall.look()
    assert line.startswith("WARNING ner 1.1.0: worker ner@host-2 is in quarantine: version 1.1.0 ")
    assert line.endswith("raise the version")
    assert await hall.look() == []
    del hall.there["host-2"]
    hall.there["host-1"] = replace(
        hall.there["host-1"], state="unhealthy", error="no model\n  forged line"
    )
    told = await hall.look()
    assert "WARNING ner 1.1.0: worker ner@host-1 is unhealthy: no model forged line" in told
    assert not any("\n" in line for line in told)


async def test_a_crowd_is_told_by_its_number(hall: Hall) -> None:
    """Five hundred workers that come within a second are ten lines, and then a number."""
    said = []
    for ten in range(50):
        for number in range(10):
            hall.comes(f"host-{ten}-{number}", a_manifest())
        said += await hall.look()
        hall.now += 0.02
    assert len(said) == CROWD
    hall.there.clear()
    said = await hall.look()
    assert len(said) == CROWD + 1
    hall.now += WINDOW
    assert await hall.look() == [
        f"INFO and {500 - CROWD} more workers are ready",
        f"INFO and {500 - CROWD} more workers have left",
    ]
    hall.comes("host-6", a_manifest())
    assert await hall.look() == ["INFO ner 1.1.0: worker ner@host-6 is ready, 1 slot"]
