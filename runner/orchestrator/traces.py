"""Spans of finished jobs on their way to an OpenTelemetry collector; alone knows OpenTelemetry."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from runner.errors import StoreUnavailable
from runner.orchestrator.dispatch import wanted
from runner.orchestrator.jobs import Job
from runner.orchestrator.queries import Transition
from runner.orchestrator.spans import Span, spans_of
from runner.traceparent import sampled

log = logging.getLogger(__name__)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""The environment variable that switches the export on; OpenTelemetry's own others hold too."""

EVERY = 2.0
"""Seconds between two batches."""

MOST = 4096
"""Finished jobs that may wait for a slow collector; more are not traced."""

BATCH = 256
LAST = 3.0
"""Seconds that the last batch gets when the orchestrator stops."""

History = Callable[[str], Awaitable[list[Transition]]]
"""Return the changes of a job."""


class Otel:
    """An OpenTelemetry exporter that takes our spans; `export` blocks and never raises."""

    def __init__(self, exporter: Any, environ: Mapping[str, str]) -> None:
        from opentelemetry.sdk.resources import Resource

        named = {} if "OTEL_SERVICE_NAME" in environ else {"service.name": "nlp-runner"}
        self._resource = Resource.create(named)
        self._exporter = exporter

    def export(self, jobs: Sequence[tuple[Job, Sequence[Transition]]]) -> None:
        """Send the spans of these jobs."""
        try:
            self._exporter.export(
                [self._read(span, job.trace_id) for job, history in jobs
                 for span in spans_of(job, history)]
            )  # fmt: skip
        except Exception:
            log.exception("spans were not exported")

    def close(self) -> None:
        """Give up what is under way."""
        self._exporter.shutdown()

    def _read(self, span: Span, trace_id: str) -> Any:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import ReadableSpan

        def context(span_id: str, *, remote: bool = False) -> Any:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            return trace.SpanContext(int(trace_id, 16), int(span_id, 16), remote, flags)

        code = trace.StatusCode.UNSET if span.error is None else trace.StatusCode.ERROR
        failed = {} if span.error is None else {"error.type": span.error}
        return ReadableSpan(
            span.name,
            context(span.span_id),
            context(span.parent_id, remote=True) if span.parent_id else None,
            self._resource,
            {**span.attributes, **failed},
            kind=trace.SpanKind[span.kind.upper()],
            status=trace.Status(code, span.error),
            start_time=int(span.began * 1e9),
            end_time=int(max(span.began, span.ended) * 1e9),
        )


def exporter(environ: Mapping[str, str]) -> Otel | None:
    """Return what sends spans where the environment says, or None where it says nothing."""
    if not environ.get(ENDPOINT):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning("%s is set, but nothing is traced without: pip install 'nlp-runner[otel]'",
                    ENDPOINT)  # fmt: skip
        return None
    return Otel(OTLPSpanExporter(), environ)


class Traces:
    """Collects jobs as they end, and exports their spans beside everything else.

    Nothing of it is in the way of a job. What a collector does not take is dropped, and said once.
    """

    def __init__(self, history: History, otel: Otel | None) -> None:
        self._history, self._otel = history, otel
        self._ended: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._dropped = 0

    def changed(self, job: Job) -> None:
        """Take in a job that has just ended, unless its caller wants no trace."""
        if self._otel is None or not job.finished or not sampled(job.traceparent):
            return
        if len(self._ended) >= MOST:
            if not self._dropped:
                log.warning("the collector of traces is too slow; some jobs are not traced")
            self._dropped += 1
            return
        self._ended.append(job)
        self._wake.set()

    async def run(self) -> None:
        """Export batches until cancelled."""
        while wanted():
            await self._wake.wait()
            self._wake.clear()
            while self._ended:
                await self.turn()
            self._dropped = 0
            await asyncio.sleep(EVERY)

    async def turn(self) -> None:
        """Export one batch."""
        if self._otel is None:
            return
        batch: list[tuple[Job, Sequence[Transition]]] = []
        while self._ended and len(batch) < BATCH:
            job = self._ended.popleft()
            history: Sequence[Transition] = ()
            if job.attempt > 1:
                with contextlib.suppress(StoreUnavailable):
                    history = await self._history(job.id)
            batch.append((job, history))
        if batch:
            await asyncio.to_thread(self._otel.export, batch)

    async def close(self) -> None:
        """Export what is left, if the collector takes it at once."""
        if self._otel is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.turn(), LAST)
            self._otel.close()
