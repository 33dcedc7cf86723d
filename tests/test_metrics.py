"""What happens is counted under the names that dashboards know, and what vanished is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runner import metrics
from runner.events import Canceled, Event, Failed, Started, Step, Succeeded
from runner.metrics import Metrics


def samples(measured: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what a scrape says: (name, labels) -> value."""
    body, kind = measured.render()
    assert kind.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(measured: Metrics, name: str, **labels: str) -> float | None:
    return samples(measured).get((name, tuple(sorted(labels.items()))))


def story(job: str, *, seconds: float, end: type[Event] = Succeeded) -> list[Event]:
    """Return the events of one execution that took so long in its one step."""
    said = {"job": job, "service": "ner", "attempt": 1}
    steps = [{"name": "tag", "title": "Tag", "status": "succeeded", "started_at": 100.0,
              "finished_at": 100.0 + seconds}]  # fmt: skip
    picture = {"percent": 99.0, "step": "tag", "steps": steps}
    last = {"output": {}} if end is Succeeded else {"error": {"code": "timed_out"}}
    return [
        Started(**said, seq=1, at=100.0),
        Step(**said, seq=2, at=100.0 + seconds, step="tag", status="succeeded", progress=picture),
        end(**said, seq=3, at=100.0 + seconds, progress=picture, **last),
    ]


def test_an_execution_is_counted_with_its_outcome_and_time() -> None:
    """Jobs, their seconds and their steps' seconds add up under the agreed names."""
    measured = Metrics()
    for event in [*story("a", seconds=2.0), *story("b", seconds=4.0, end=Failed)]:
        measured.observe(event, version="1.0.0")
    common = {"service": "ner", "version": "1.0.0"}
    assert value(measured, "nlp_jobs_total", **common, outcome="succeeded", reason="") == 1
    assert value(measured, "nlp_jobs_total", **common, outcome="failed", reason="timed_out") == 1
    assert value(measured, "nlp_job_run_seconds_sum", service="ner") == 6.0
    assert value(measured, "nlp_step_seconds_sum", service="ner", step="tag") == 6.0


def test_what_runs_now_is_known() -> None:
    """The gauge rises with a start and falls with any end."""
    measured = Metrics()
    first, second = story("a", seconds=1.0), story("b", seconds=1.0, end=Canceled)
    for event in (first[0], second[0]):
        measured.observe(event)
    assert value(measured, "nlp_jobs_in_progress", service="ner") == 2
    for event in (first[-1], second[-1]):
        measured.observe(event)
    assert value(measured, "nlp_jobs_in_progress", service="ner") == 0


def test_a_request_that_never_started_is_counted_without_time() -> None:
    """An input that was refused counts as a failed job, and does not distort the times."""
    measured = Metrics()
    measured.observe(story("a", seconds=3.0, end=Failed)[-1])
    assert value(measured, "nlp_job_run_seconds_count", service="ner") is None
    assert value(measured, "nlp_jobs_in_progress", service="ner") is None
    labels = {"service": "ner", "version": "", "outcome": "failed", "reason": "timed_out"}
    assert value(measured, "nlp_jobs_total", **labels) == 1


def test_a_job_that_ended_elsewhere_is_counted() -> None:
    """The orchestrator counts what it was told, with the time a job waited."""
    measured = Metrics()
    labels = {"service": "ner", "version": "1.0.0", "outcome": "failed", "reason": "expired"}
    measured.finished(
        **labels, queue_seconds=30.0, run_seconds=None, steps={"tag": 2.0}, input_bytes=7
    )
    assert value(measured, "nlp_jobs_total", **labels) == 1
    assert value(measured, "nlp_job_queue_seconds_sum", service="ner") == 30.0
    assert value(measured, "nlp_job_run_seconds_count", service="ner") is None
    assert value(measured, "nlp_step_seconds_sum", service="ner", step="tag") == 2.0
    assert value(measured, "nlp_input_bytes_sum", service="ner") == 7


def test_attempts_that_were_not_the_last_are_counted() -> None:
    """A retry counts under what made it necessary, and is not an ended job."""
    measured = Metrics()
    measured.retried("ner", "worker_lost")
    assert value(measured, "nlp_job_retries_total", service="ner", reason="worker_lost") == 1
    assert b"nlp_jobs_total{" not in measured.render()[0]


def test_gauges_of_a_process_leave_their_names_to_a_source_that_tells_them() -> None:
    """An orchestrator tells what runs and loads elsewhere, under the names of a single service."""
    measured = Metrics()
    names = ("nlp_jobs_in_progress", "nlp_worker_load_seconds")
    measured.collect(lambda: [(name, "Told.", {"service": "ner"}, 3.0) for name in names])
    for name in names:
        assert measured.render()[0].count(f"# TYPE {name} gauge".encode()) == 1
        assert value(measured, name, service="ner") == 3.0


def test_requests_are_timed_from_milliseconds_to_minutes() -> None:
    """The buckets tell a text of 5 ms from a book of 10 minutes."""
    measured = Metrics()
    measured.http("POST", "/run", 200, 0.004)
    measured.http("POST", "/run", 200, 599.0)
    labels = {"method": "POST", "route": "/run", "status": "200"}
    name = "http_request_duration_seconds_bucket"
    assert value(measured, name, **labels, le="0.005") == 1
    assert value(measured, name, **labels, le="300.0") == 1
    assert value(measured, name, **labels, le="600.0") == 2


def test_series_of_what_vanished_vanish() -> None:
    """A gauge that its source no longer tells is not in the next answer."""
    measured, alive = Metrics(), ["ner", "topics"]
    measured.collect(
        lambda: [("nlp_workers", "Living workers.", {"service": name}, 1.0) for name in alive]
    )
    assert value(measured, "nlp_workers", service="topics") == 1
    alive.remove("topics")
    assert value(measured, "nlp_workers", service="topics") is None
    assert value(measured, "nlp_workers", service="ner") == 1


def test_sources_may_share_a_name() -> None:
    """Two sources of one gauge give one family, as the format demands."""
    measured = Metrics()
    for name in ("a", "b"):
        measured.collect(lambda name=name: [("nlp_queue_depth", "Jobs.", {"service": name}, 2.0)])
    body, _ = measured.render()
    assert body.count(b"# TYPE nlp_queue_depth gauge") == 1
    assert value(measured, "nlp_queue_depth", service="b") == 2


def test_a_source_that_fails_does_not_take_the_others_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While a database is down, the other measurements are there, and the log says why."""
    measured = Metrics()
    measured.collect(lambda: [][1])
    measured.http("GET", "/", 200, 1.0)
    assert value(measured, "http_request_duration_seconds_count", method="GET", route="/",
                 status="200") == 1  # fmt: skip
    assert "a source of measurements failed" in caplog.text


def test_two_measurements_do_not_meet() -> None:
    """Nothing is global: two applications in one process count for themselves."""
    one, other = Metrics(), Metrics()
    one.loaded("ner", 2.0)
    assert value(one, "nlp_worker_load_seconds", service="ner") == 2.0
    assert value(other, "nlp_worker_load_seconds", service="ner") is None


COUNT = """
from runner.events import Started
from runner.metrics import Metrics
measured = Metrics()
measured.http("GET", "/", 200, 0.5)
measured.observe(Started(job="j", service="ner", attempt=1, seq=1, at=0.0))
print(measured.render()[0].decode())
"""


def test_processes_that_share_a_folder_add_up() -> None:
    """With several processes, any of them answers for all, and the dead leave no running jobs."""
    before = os.environ.get(metrics.SHARED)
    with metrics.shared() as folder:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", COUNT], capture_output=True, text=True, check=True
            )
        assert 'http_request_duration_seconds_count{method="GET",route="/",status="200"} 2.0' in (
            done.stdout
        )
        files = sorted(Path(folder).glob("gauge_livesum_*.db"))
        metrics.forget(int(files[0].stem.rpartition("_")[2]))
        assert len(list(Path(folder).glob("gauge_livesum_*.db"))) == 1
    assert os.environ.get(metrics.SHARED) == before
    assert not Path(folder).exists()
