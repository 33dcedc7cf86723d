"""One request is found again everywhere: in the answer, the logs, the database and the figures."""

from __future__ import annotations

import http.server
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from stage import Part, Stage

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = f"00-{TRACE}-{SPAN}-01"
OTEL = importlib.util.find_spec("opentelemetry") is not None


class Collector(http.server.ThreadingHTTPServer):
    """A collector of traces that keeps the bodies it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Taking)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def said(self, text: str) -> bool:
        """Tell whether something of what was sent holds these bytes or this text."""
        return any(bytes.fromhex(text) in body for body in self.bodies)


class _Taking(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        collector: Any = self.server
        collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/v1/traces"
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Give a collector of traces that takes everything."""
    with Collector() as it:
        yield it
        it.shutdown()


@pytest.fixture(scope="module")
def stage(
    redis_url: str,
    until: Callable[..., Any],
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """Give a platform that logs for machines and says everything."""
    with Stage(redis_url, tmp_path_factory.mktemp("tracing"), until) as stage:
        told = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        stage.orchestrator(**told, **(sent if OTEL else {}))
        for name in ("logs", "transient", "counts_steps"):
            stage.worker(name, **told)
        stage.ready("logs", "transient", "counts_steps")
        yield stage
        stage.sound()


def about(part: Part, job_id: str) -> list[dict[str, Any]]:
    """Return what a part has logged of a job."""
    lines = [json.loads(line) for line in part.said().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("job") == job_id]


def test_a_callers_trace_goes_through_to_the_worker(stage: Stage) -> None:
    """The trace of the request is in the job, and in every line that anybody logs about it."""
    job = stage.submit(
        "logs", {"lines": 2}, traceparent=CALLER, prefer="wait=30",
        **{"x-request-id": "asked-by-ada"},
    )  # fmt: skip
    assert job["trace_id"] == TRACE
    orchestrator, worker = stage.parts[0], stage.parts[1]
    told = stage.until(lambda: len(lines := about(worker, job["id"])) >= 4 and lines)
    assert {line["message"] for line in told} >= {"line 1 of 2", "that was all"}
    heard = about(orchestrator, job["id"])
    for line in [*told, *heard]:
        assert (line["trace_id"], line["service"], line["attempt"]) == (TRACE, "logs", 1)
    accepted = [line for line in heard if line["message"].endswith("was accepted")]
    assert [line["request_id"] for line in accepted] == ["asked-by-ada"]
    assert [line["level"] for line in heard] == ["debug", "debug"]


def test_an_invalid_trace_is_as_none(stage: Stage) -> None:
    """The job has a trace of its own then: its id."""
    job = stage.submit("logs", {"lines": 0}, traceparent="00-nonsense-01", prefer="wait=30")
    assert job["status"] == "succeeded"
    assert job["trace_id"] == job["id"].replace("-", "")


def test_parts_are_in_the_trace_of_the_whole(stage: Stage) -> None:
    """Whoever asks several services at once finds all of it under one trace."""
    parts = {"a": {"service": "logs", "input": {"lines": 0}},
             "b": {"service": "transient", "input": {"succeed_on": 1}}}  # fmt: skip
    for headers, trace in (({"traceparent": CALLER}, TRACE), ({}, None)):
        answer = stage.http.post("/v1/jobs", json={"parts": parts}, headers=headers)
        whole = stage.finished(answer.json()["id"])
        trace = trace or whole["id"].replace("-", "")
        assert {whole["trace_id"], *(p["trace_id"] for p in whole["parts"].values())} == {trace}


def test_another_attempt_is_said(stage: Stage) -> None:
    """What made another attempt necessary is in the log and in the figures."""
    job = stage.submit("transient", {"succeed_on": 2}, prefer="wait=30")
    assert job["attempt"] == 2
    [line] = [x for x in about(stage.parts[0], job["id"]) if "waits for attempt" in x["message"]]
    assert line["level"] == "info"
    assert line["message"].endswith("waits for attempt 2 of 3: transient")
    assert sample(stage, "nlp_job_retries_total", service="transient", reason="transient") >= 1


def test_workers_figures_need_no_port_of_theirs(stage: Stage) -> None:
    """Steps, slots and loading of workers are in the orchestrator's own figures."""
    stage.run("counts-steps", {"documents": ["one two", "three"]})
    service = {"service": "counts-steps"}
    for step in ("read", "count", "write"):
        assert sample(stage, "nlp_step_seconds_count", step=step, **service) == 1
    assert sample(stage, "nlp_job_run_seconds_count", **service) == 1
    assert sample(stage, "nlp_worker_slots", **service) >= 1
    assert sample(stage, "nlp_worker_load_seconds", **service) > 0
    assert sample(stage, "nlp_workers", state="ready", **service) == 1


@pytest.mark.skipif(not OTEL, reason="the extra `otel` is not installed")
def test_spans_reach_a_collector(stage: Stage, collector: Collector) -> None:
    """With an endpoint in the environment, a finished job's trace arrives there by itself."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    stage.submit("logs", {"lines": 0}, traceparent=f"00-{trace}-{SPAN}-01", prefer="wait=30")
    stage.until(lambda: collector.said(trace), 15, "the spans")
    assert collector.said(b"attempt".hex())


def sample(stage: Stage, name: str, **labels: str) -> float:
    """Return a figure of the orchestrator's, 0 where there is none."""
    for family in text_string_to_metric_families(stage.http.get("/metrics").text):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return float(one.value)
    return 0.0
