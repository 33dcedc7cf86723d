"""Counts and times what happens, in the words of Prometheus; alone knows prometheus-client."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily

from runner.events import Event, Started, Step

log = logging.getLogger(__name__)

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus-client shares numbers between processes."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Seconds: from a short text to a long book."""

SIZES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
"""Bytes: from a sentence to a library."""

Sample = tuple[str, str, Mapping[str, str], float]
"""One value of a gauge: its name, the sentence of the name, labels, value."""

Source = Callable[[], Iterable[Sample]]
"""Says what the gauges are at the moment of a scrape."""


_NONE: Mapping[str, float] = MappingProxyType({})


class Metrics:
    """The measurements of one process, or of all processes that share a directory.

    With `PROMETHEUS_MULTIPROC_DIR` set before Python started, `render` adds up all processes.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._shared = SHARED in os.environ
        self._registry = registry or CollectorRegistry()
        self._sources: list[Source] = []
        self._children: dict[tuple[Any, tuple[Any, ...]], Any] = {}
        self._started: dict[tuple[str, int], float] = {}
        self._registry.register(_Scraped(self._sources))
        if not self._shared:
            ProcessCollector(registry=self._registry)
        self._jobs = Counter(
            "nlp_jobs", "Executions that ended.", ("service", "version", "outcome", "reason"),
            registry=self._registry,
        )  # fmt: skip
        self._retries = Counter(
            "nlp_job_retries", "Attempts that ended and are followed by another one.",
            ("service", "reason"), registry=self._registry,
        )  # fmt: skip
        self._run_seconds = self._seconds(
            "nlp_job_run_seconds", "Time from start to end of an execution.", "service"
        )
        self._queue_seconds = self._seconds(
            "nlp_job_queue_seconds", "Time that a job's last attempt waited to start.", "service"
        )
        self._step_seconds = self._seconds(
            "nlp_step_seconds", "Time a step took.", "service", "step"
        )
        self._webhooks = Counter(
            "nlp_webhook_deliveries", "Tries to deliver a webhook.", ("outcome",),
            registry=self._registry,
        )  # fmt: skip
        self._dropped = Counter(
            "nlp_results_dropped", "Words of workers that were not believed.", ("reason",),
            registry=self._registry,
        )  # fmt: skip
        self._input_bytes = Histogram(
            "nlp_input_bytes", "Size of a job's input.", ("service",),
            registry=self._registry, buckets=SIZES,
        )  # fmt: skip
        self._http_seconds = self._seconds(
            "http_request_duration_seconds", "Time to answer a request.",
            "method", "route", "status",
        )  # fmt: skip

    # Made when they are first used: an orchestrator tells both of its workers, as a source.

    @functools.cached_property
    def _in_progress(self) -> Gauge:
        return Gauge(
            "nlp_jobs_in_progress", "Executions that run now.", ("service",),
            registry=self._registry, multiprocess_mode="livesum",
        )  # fmt: skip

    @functools.cached_property
    def _load_seconds(self) -> Gauge:
        return Gauge(
            "nlp_worker_load_seconds", "How long the handler took to load.", ("service",),
            registry=self._registry, multiprocess_mode="livemax",
        )  # fmt: skip

    def observe(self, event: Event, version: str = "") -> None:
        """Count an execution's event; `version` is the service's."""
        key = (event.job, event.attempt)
        if isinstance(event, Started):
            self._started[key] = event.at
            self._of(self._in_progress, event.service).inc()
        elif isinstance(event, Step):
            self._observe_step(event)
        elif event.final:
            error: dict[str, Any] = getattr(event, "error", {})
            reason = error.get("code", "")
            self._of(self._jobs, event.service, version, event.kind, reason).inc()
            began = self._started.pop(key, None)
            if began is not None:
                self._of(self._run_seconds, event.service).observe(max(0.0, event.at - began))
                self._of(self._in_progress, event.service).dec()

    def http(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is a template, never a path with an id in it."""
        self._of(self._http_seconds, method, route, status).observe(seconds)

    def finished(
        self,
        *,
        service: str,
        version: str,
        outcome: str,
        reason: str,
        queue_seconds: float,
        run_seconds: float | None,
        steps: Mapping[str, float] = _NONE,
        input_bytes: int | None = None,
    ) -> None:
        """Count a job that ended elsewhere; `run_seconds` is None when it never started.

        `steps` are the seconds that each of its steps took.
        """
        self._of(self._jobs, service, version, outcome, reason).inc()
        self._of(self._queue_seconds, service).observe(max(0.0, queue_seconds))
        if run_seconds is not None:
            self._of(self._run_seconds, service).observe(max(0.0, run_seconds))
        for step, seconds in steps.items():
            self._of(self._step_seconds, service, step).observe(max(0.0, seconds))
        if input_bytes is not None:
            self._of(self._input_bytes, service).observe(input_bytes)

    def retried(self, service: str, reason: str) -> None:
        """Count an attempt that is followed by another one; `reason` is what ended it."""
        self._of(self._retries, service, reason).inc()

    def webhook(self, outcome: str) -> None:
        """Count a try to deliver a webhook: `delivered`, `retried` or `failed`."""
        self._of(self._webhooks, outcome).inc()

    def dropped(self, reason: str) -> None:
        """Count a result that was not taken in: `unsealed` or `unreadable`."""
        self._of(self._dropped, reason).inc()

    def loaded(self, service: str, seconds: float) -> None:
        """Say how long this process took to load its handler."""
        self._of(self._load_seconds, service).set(seconds)

    def collect(self, source: Source) -> None:
        """Ask `source` for gauges at every scrape; what it no longer tells is gone."""
        self._sources.append(source)

    def render(self) -> tuple[bytes, str]:
        """Return the measurements as Prometheus text, and its content type."""
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
            registry.register(_Scraped(self._sources))
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def _of(self, metric: Any, *labels: Any) -> Any:
        """Return the metric's child with these labels; prometheus-client's own way is slow."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _seconds(self, name: str, sentence: str, *labels: str) -> Histogram:
        return Histogram(name, sentence, labels, registry=self._registry, buckets=BUCKETS)

    def _observe_step(self, event: Step) -> None:
        for step in event.progress["steps"]:
            if step["name"] == event.step and "finished_at" in step:
                seconds = max(0.0, step["finished_at"] - step["started_at"])
                self._of(self._step_seconds, event.service, event.step).observe(seconds)


class _Scraped:
    """A collector that keeps nothing: what its sources say now is what there is."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering does not ask the sources."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask every source; one that fails is left out, not the whole answer."""
        families: dict[str, GaugeMetricFamily] = {}
        for source in self._sources:
            try:
                samples = list(source())
            except Exception:
                log.exception("a source of measurements failed")
                continue
            for name, sentence, labels, value in samples:
                keys = sorted(labels)
                if name not in families:
                    families[name] = GaugeMetricFamily(name, sentence, labels=keys)
                families[name].add_metric([labels[key] for key in keys], value)
        yield from families.values()


@contextlib.contextmanager
def shared() -> Iterator[str]:
    """Let the processes started within share their numbers; yields the folder they share.

    A folder that the operator named is used, and kept.
    """
    named = os.environ.get(SHARED)
    if named:
        os.makedirs(named, exist_ok=True)
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="nlp-runner-metrics-") as folder:
        os.environ[SHARED] = folder
        try:
            yield folder
        finally:
            del os.environ[SHARED]


def forget(pid: int) -> None:
    """Drop the gauges of a process that ended; what it counted stays."""
    if SHARED in os.environ:
        multiprocess.mark_process_dead(pid)
