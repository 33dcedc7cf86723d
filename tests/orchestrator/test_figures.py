"""The orchestrator's figures are right for all services, whoever else looks at the same jobs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import specimens
from prometheus_client.parser import text_string_to_metric_families
from specimens import NOW, said

from runner import events
from runner.manifest import Manifest, from_document
from runner.metrics import Metrics
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.figures import Figures
from runner.orchestrator.jobs import Job, advance
from runner.orchestrator.store import Store
from runner.registry import Instance

pytestmark = pytest.mark.anyio


def a_manifest() -> Manifest:
    """Return the manifest of a service with two steps."""
    return from_document(
        {
            "apiVersion": "nlp-runner/v1",
            "name": "ner",
            "version": "1.0.0",
            "summary": "Finds names.",
            "handler": "nobody:imports",
            "input": {"type": "object", "properties": {"n": {"type": "integer"}}},
            "output": {"type": "object"},
            "steps": [{"name": "read"}, {"name": "tag"}],
        }
    )


MANIFEST = a_manifest()


class Hall:
    """A registry whose workers stand in a list."""

    def __init__(self, *living: Instance) -> None:
        self.workers = list(living)

    async def living(self) -> list[Instance]:
        return self.workers

    async def manifest(self, digest: str) -> Manifest:
        return MANIFEST


def a_worker(number: int, state: str = "ready", **fields: Any) -> Instance:
    return Instance(f"ner@{number}", "ner", "1.0.0", MANIFEST.digest, state, 2, **fields)


a_job = partial(specimens.a_job, manifest_digest=MANIFEST.digest, created_at=NOW, input_bytes=500)


def picture(*steps: tuple[str, float, float]) -> dict[str, Any]:
    named = [
        {"name": name, "title": name, "status": "succeeded", "started_at": began,
         "finished_at": ended}
        for name, began, ended in steps
    ]  # fmt: skip
    return {"percent": 100.0, "step": None, "steps": named}


def values(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return what a scrape says: (name, values of the labels by their names) -> value."""
    body, _ = metrics.render()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


class Desk:
    """One orchestrator's figures, on a database of its own or one that it shares."""

    def __init__(self, url: str, *living: Instance) -> None:
        self.store = Store(url, now=lambda: NOW, chance=lambda: 0.5)
        self.hall = Hall(*living)
        self.catalog = Catalog(self.hall)  # type: ignore[arg-type]
        self.metrics = Metrics()
        self.figures = Figures(self.metrics, self.catalog, self.store)
        self.metrics.collect(self.figures.samples)

    async def __aenter__(self) -> Desk:
        await self.store.open()
        await self.catalog.refresh(NOW)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def take(self, job: Job, *story: Any) -> None:
        """Take events in as the dispatcher does: what this store committed is counted here."""
        for event in story:
            for changed in await self.store.ingest([(job.id, event, b"")], NOW + 100):
                self.figures.changed(changed)
                if changed.finished:
                    self.figures.finished(changed)


@pytest.fixture
def url(tmp_path: Any) -> str:
    """Give the URL of an empty database."""
    return f"sqlite:///{tmp_path}/jobs.db"


async def test_a_finished_job_says_where_its_time_went(url: str) -> None:
    """Its wait, its run, each step and the size of its input are counted under its service."""
    async with Desk(url, a_worker(1)) as desk:
        job = a_job()
        await desk.store.submit((job, b""))
        steps = picture(("read", NOW + 3, NOW + 4), ("tag", NOW + 4, NOW + 9))
        await desk.take(
            job,
            said(events.Started, job, NOW + 3, worker="w"),
            said(events.Succeeded, job, NOW + 9, output={}, progress=steps),
        )
        told = values(desk.metrics)
        assert told["nlp_jobs_total", ("succeeded", "", "ner", "1.0.0")] == 1
        assert told["nlp_job_queue_seconds_sum", ("ner",)] == 3.0
        assert told["nlp_job_run_seconds_sum", ("ner",)] == 6.0
        assert told["nlp_step_seconds_sum", ("ner", "read")] == 1.0
        assert told["nlp_step_seconds_sum", ("ner", "tag")] == 5.0
        assert told["nlp_input_bytes_sum", ("ner",)] == 500


async def test_several_orchestrators_count_a_job_once(database_url: str) -> None:
    """Two that hear the same end, at once and again, have counted it once between them."""
    async with Desk(database_url, a_worker(1)) as one, Desk(database_url, a_worker(1)) as other:
        jobs = [a_job() for _ in range(20)]
        for job in jobs:
            await one.store.submit((job, b""))
        ends = [(job, said(events.Succeeded, job, NOW + 9, output={}, progress={})) for job in jobs]
        await asyncio.gather(*(desk.take(*end) for end in ends for desk in (one, other)))
        await asyncio.gather(*(other.take(*end) for end in ends))
        name = ("nlp_jobs_total", ("succeeded", "", "ner", "1.0.0"))
        assert sum(values(desk.metrics).get(name, 0.0) for desk in (one, other)) == len(jobs)


async def test_attempts_that_are_followed_by_another_are_counted(url: str) -> None:
    """A retry counts with what ended the attempt; a cancel that comes meanwhile counts nothing."""
    async with Desk(url, a_worker(1)) as desk:
        job = a_job()
        await desk.store.submit((job, b""))
        lost = said(events.Failed, job, NOW + 5, error={"code": "worker_lost"}, progress=None)
        await desk.take(job, said(events.Started, job, NOW + 1, worker="w"), lost)
        [(again, _)] = await desk.store.claim("ner", MANIFEST.digest, 1, NOW + 1000)
        assert again.attempt == 2
        for changed in await desk.store.cancel(job, "ada", False, NOW + 101):
            desk.figures.changed(changed)
        told = values(desk.metrics)
        assert told["nlp_job_retries_total", ("worker_lost", "ner")] == 1
        assert not any(name == "nlp_jobs_total" for name, _ in told)


async def test_a_retry_waits_from_when_it_may_start(url: str) -> None:
    """Neither a long first attempt nor the pause after it is time in the queue."""
    async with Desk(url, a_worker(1)) as desk:
        job = a_job(attempt=2, available_at=NOW + 50, started_at=NOW + 51, finished_at=NOW + 60,
                    status="succeeded")  # fmt: skip
        desk.figures.finished(job)
        assert values(desk.metrics)["nlp_job_queue_seconds_sum", ("ner",)] == 1.0
        waits = a_job(attempt=2, available_at=NOW + 50)
        await desk.store.submit((waits, b""))
        assert await desk.store.queue_ages(NOW + 52) == {"ner": (1, 2.0)}


async def test_what_workers_invent_makes_no_series(url: str) -> None:
    """A step that no manifest declares, or a reason that no error of ours has, is not a label."""
    async with Desk(url, a_worker(1)) as desk:
        invented = picture(("evil", NOW, NOW + 1), ("tag", NOW, NOW + 1))
        desk.figures.finished(a_job(
            status="failed", reason="evil", started_at=NOW, finished_at=NOW + 1, progress=invented,
        ))  # fmt: skip
        assert "evil" not in desk.metrics.render()[0].decode()
        desk.figures.changed(a_job(attempt=2, error={"code": ["evil"]}))
        told = values(desk.metrics)
        assert told["nlp_job_retries_total", ("other", "ner")] == 1
        assert told["nlp_jobs_total", ("failed", "other", "ner", "1.0.0")] == 1
        assert told["nlp_step_seconds_count", ("ner", "tag")] == 1


async def test_workers_are_told_by_state_with_their_slots(url: str) -> None:
    """Alive by state, slots and busy of the ready, and the longest time to load: no means."""
    workers = [
        a_worker(1, busy=1, load_seconds=2.0), a_worker(2, busy=9, load_seconds=6.0),
        a_worker(3, "starting"), a_worker(4, "draining", busy=2),
    ]  # fmt: skip
    async with Desk(url, *workers) as desk:
        told = values(desk.metrics)
        states = {labels[1]: n for (name, labels), n in told.items() if name == "nlp_workers"}
        assert states == {"ready": 2, "starting": 1, "draining": 1}
        assert told["nlp_worker_slots", ("ner",)] == 4
        assert told["nlp_worker_busy", ("ner",)] == 4
        assert told["nlp_worker_load_seconds", ("ner",)] == 6.0
        desk.hall.workers = []
        await desk.catalog.refresh(NOW + 1)
        gone = values(desk.metrics)
        assert not any(name in ("nlp_workers", "nlp_worker_load_seconds") for name, _ in gone)


async def test_the_queue_is_told_even_of_a_service_that_nobody_knows(url: str) -> None:
    """Jobs wait, run and grow old in the figures, also when the registry has forgotten why."""
    async with Desk(url) as desk:
        waiting, running = a_job(created_at=NOW - 30, available_at=NOW - 30), a_job()
        await desk.store.submit((waiting, b""), (running, b""))
        await desk.store.ingest(
            [(running.id, said(events.Started, running, NOW, worker="w"), None)], NOW
        )
        await desk.figures.look()
        told = values(desk.metrics)
        assert told["nlp_queue_depth", ("ner",)] == 1
        assert told["nlp_queue_oldest_age_seconds", ("ner",)] > 30
        assert told["nlp_jobs_in_progress", ("ner",)] == 1


def test_a_part_that_moves_on_is_no_retry(url: str) -> None:
    """A job that starts, or waits for its first attempt, has not been tried again."""
    metrics = Metrics()
    figures = Figures(metrics, Catalog(Hall()), Store(url))  # type: ignore[arg-type]
    job = a_job()
    figures.changed(job)
    started = said(events.Started, job, NOW, worker="w")
    figures.changed(advance(job, started, NOW, lambda attempt: 0.0))
    assert not any(name == "nlp_job_retries_total" for name, _ in values(metrics))
