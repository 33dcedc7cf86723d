"""Finished jobs reach a collector as spans, and a collector that is away disturbs nobody."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import specimens

from runner.orchestrator import traces
from runner.orchestrator.jobs import Job, new_id
from runner.orchestrator.queries import Transition
from runner.orchestrator.spans import spans_of
from runner.orchestrator.traces import Otel, Traces

pytestmark = pytest.mark.anyio

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"


def a_job(**fields: Any) -> Job:
    """Return a job that has ended, with an id that makes a trace."""
    ended = {"created_at": 10.0, "started_at": 12.0, "finished_at": 16.5, "updated_at": 16.5}
    return specimens.a_job(**{"id": new_id(), "status": "succeeded", **ended, **fields})


async def no_history(job_id: str) -> list[Transition]:
    """Stand in where no job has been tried twice."""
    raise AssertionError("the history was asked for")


class Memory:
    """An exporter that keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []

    def export(self, spans: list[Any]) -> None:
        self.batches.append(spans)

    def shutdown(self) -> None:
        pass


@pytest.fixture
def memory() -> Any:
    """Give OpenTelemetry's own exporter into memory, where the extra `otel` is installed."""
    module = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter",
        reason="the extra `otel` is not installed",
    )
    return module.InMemorySpanExporter()


async def test_spans_reach_the_collector(memory: Any) -> None:
    """Ids, parents, times, states and names arrive as OpenTelemetry knows them."""
    job = a_job(traceparent=f"{CALLER}1", status="failed", reason="timed_out")
    it = Traces(no_history, Otel(memory, {}))
    it.changed(job)
    await it.turn()
    found = {span.name: span for span in memory.get_finished_spans()}
    assert len(found) == len(spans_of(job))
    whole, attempt = found["job ner"], found["attempt"]
    assert f"{whole.context.trace_id:032x}" == job.trace_id == CALLER.split("-")[1]
    assert f"{whole.parent.span_id:016x}" == CALLER.split("-")[2]
    assert attempt.parent.span_id == whole.context.span_id
    assert (whole.start_time, whole.end_time) == (10_000_000_000, 16_500_000_000)
    assert whole.status.status_code.name == "ERROR"
    assert whole.attributes["error.type"] == "timed_out"
    assert (whole.kind.name, attempt.kind.name) == ("SERVER", "CONSUMER")
    assert whole.resource.attributes["service.name"] == "nlp-runner"
    assert found["queue"].status.status_code.name == "UNSET"
    assert '"name": "attempt"' in attempt.to_json()


async def test_a_retried_job_tells_all_its_attempts(memory: Any) -> None:
    """The history is asked for only where it has something to say."""
    job = a_job(attempt=2)

    async def history(job_id: str) -> list[Transition]:
        assert job_id == job.id
        return [
            Transition(1, "queued", None, 1, 10.0, ""),
            Transition(2, "running", None, 1, 10.5, "w"),
            Transition(3, "queued", "worker_lost", 2, 11.0, "w"),
        ]

    it = Traces(history, Otel(memory, {}))
    it.changed(job)
    await it.turn()
    names = [span.name for span in memory.get_finished_spans()]
    assert names == ["job ner", "submit", "queue", "attempt", "queue", "attempt"]


async def test_whoever_wants_no_trace_has_none(memory: Any) -> None:
    """A job that goes on, and one whose caller says that its trace is not kept, are not told."""
    it = Traces(no_history, Otel(memory, {}))
    it.changed(a_job(status="running"))
    it.changed(a_job(traceparent=f"{CALLER}0"))
    await it.turn()
    assert memory.get_finished_spans() == ()


async def test_a_slow_collector_costs_traces_and_nothing_else(
    memory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond what may wait, jobs are not traced, which is said once."""
    it = Traces(no_history, Otel(memory, {}))
    for _ in range(traces.MOST + 10):
        it.changed(a_job())
    assert len([r for r in caplog.records if "too slow" in r.message]) == 1
    await it.turn()
    assert len(memory.get_finished_spans()) == traces.BATCH * 4


async def test_a_broken_exporter_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    """An exporter that raises is said in the log; the next batch is tried as if nothing were."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    memory = Memory()
    broken = Otel(memory, {})
    memory.export = None  # type: ignore[method-assign,assignment]
    it = Traces(no_history, broken)
    it.changed(a_job())
    await it.turn()
    assert "spans were not exported" in caplog.text
    await it.close()


async def test_nothing_is_traced_unless_asked_for() -> None:
    """Without an endpoint in the environment there is no exporter, and jobs are let go at once."""
    assert traces.exporter({}) is None
    it = Traces(no_history, None)
    it.changed(a_job())
    await it.turn()
    await it.close()


def test_an_endpoint_makes_an_exporter(caplog: pytest.LogCaptureFixture) -> None:
    """With an endpoint there is one, or a line in the log that says what to install."""
    with caplog.at_level(logging.WARNING):
        made = traces.exporter({traces.ENDPOINT: "http://127.0.0.1:4318"})
    if made is None:
        assert "nlp-runner[otel]" in caplog.text
    else:
        made.close()
