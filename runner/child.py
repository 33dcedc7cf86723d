"""One prefork process of a worker: it claims a job, runs it in the engine, tells what happens."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import redis

from runner import connection, events, logs, wire
from runner.context import Stop
from runner.engine import Engine
from runner.errors import Canceled, Interrupted, Poisoned, RunnerError
from runner.manifest import Manifest
from runner.seal import Seal
from runner.traceparent import trace_of
from runner.watch import Watch, follow

log = logging.getLogger(__name__)


class Child:
    """One prefork process: an engine, its end of the wire, and a watch beside the handler."""

    def __init__(
        self, manifest: Manifest, config: Mapping[str, Any], url: str, namespace: str,
        instance: str, report: Connection, seal: Seal,
    ) -> None:  # fmt: skip
        self.manifest, self.config = manifest, config
        self.instance, self._seal = instance, seal
        self._url, self._namespace = url, namespace
        self._report = report
        self._engine: Engine | None = None

    def open(self) -> None:
        """Set the handler up in this process and prove it on an example.

        The process leaves its parent's group, so that a signal to the group reaches the parent
        only, which knows how to stop; the watch ends the process if the parent dies.
        """
        os.setpgid(0, 0)
        threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
        began = time.monotonic()
        try:
            engine = Engine(self.manifest, self.config)
            engine.smoke()
        except RunnerError as error:
            # Several children write to one pipe, and only short messages stay in one piece.
            self._report.send({"failed": str(error)[:900]})
            return
        client = connection.connect(self._url, self.instance, timeout=5)
        self._wire = wire.WorkerWire(client, self._namespace, self.manifest.digest, self._seal)
        self._watch = Watch(self._wire, self.instance)
        self._stopped = False
        self._telling: Telling | None = None
        self._engine = engine
        for warning in engine.warnings:
            self._report.send({"warning": warning})
        self._report.send({"ready": time.monotonic() - began, "pid": os.getpid()})

    def _interrupted(self, *_: object) -> None:
        """Give up the running job, unless its end is being told: the parent waits no longer."""
        before, self._stopped = self._stopped, True
        if before or (self._telling and self._telling.ending):
            return
        self._watch.interrupt(Interrupted("The worker was stopped before the job had finished."))
        raise SystemExit(0)

    def close(self) -> None:
        """Let the handler give back what it took."""
        if self._engine is not None:
            self._engine.close()

    def run(self, job_id: str, attempt: int) -> bool:
        """Work on one message; False if this process cannot work at all."""
        if self._engine is None:
            return False
        with logs.about(job=job_id, service=self.manifest.name, attempt=attempt):
            return self._work(self._engine, job_id, attempt)

    def _work(self, engine: Engine, job_id: str, attempt: int) -> bool:
        signal.signal(signal.SIGTERM, self._interrupted)  # Celery has set its own after `open`
        try:
            claim = self._wire.claim(job_id, attempt, self.instance)
        except redis.RedisError as error:
            log.warning("job %s could not be claimed: %s", job_id, error)
            threading.Event().wait(1.0)
            return False
        match claim.verdict:
            case "go":
                with logs.about(trace_id=trace_of(claim.traceparent, job_id)):
                    self._execute(engine, job_id, attempt, claim)
            case "canceled":
                canceled = Canceled(f"Canceled by {claim.actor} before it started.")
                self._end(events.Canceled, job_id, attempt, canceled)
            case "poisoned":
                poisoned = Poisoned(
                    f"The attempt was started {wire.MAX_STARTS} times and never came to an end."
                )
                self._end(events.Failed, job_id, attempt, poisoned)
            case "forged":
                log.error(
                    "job %s attempt %d has not our seal and was not run; is WIRE_SECRET the same "
                    "everywhere?", job_id, attempt,
                )  # fmt: skip
            case _:
                log.info("job %s attempt %d is not wanted any more", job_id, attempt)
        if self._stopped:
            raise SystemExit(0)
        return True

    def _execute(self, engine: Engine, job_id: str, attempt: int, claim: wire.Claim) -> None:
        began = time.monotonic()
        stop = Stop()
        self._telling = telling = Telling(self._wire)
        limit = self.manifest.limits.timeout
        with self._watch.over(job_id, self.manifest.name, attempt, stop, limit):
            outcome = engine.run(
                job_id, claim.input, emit=telling, attempt=attempt, stop=stop,
                worker=self.instance, traceparent=claim.traceparent,
            )  # fmt: skip
        self._telling = None
        log.log(logging.DEBUG if outcome.status == "succeeded" else logging.INFO,
                "job %s attempt %d %s after %.2f s%s", job_id, attempt, outcome.status,
                time.monotonic() - began,
                f": {outcome.error.code}" if outcome.error else "")  # fmt: skip

    def _end(self, kind: type[Any], job_id: str, attempt: int, error: RunnerError) -> None:
        event = kind(
            job=job_id, service=self.manifest.name, attempt=attempt, seq=1, at=time.time(),
            error=error.to_problem(),
        )  # fmt: skip
        Telling(self._wire)(event)


class Telling:
    """The listener that puts an execution's events on the wire."""

    def __init__(self, worker_wire: wire.WorkerWire) -> None:
        self._wire = worker_wire
        self.ending = False

    def __call__(self, event: events.Event) -> None:
        """Publish the event; the last one is tried until the lease must be gone anyway."""
        if not event.final:
            try:
                self._wire.publish(event)
            except redis.RedisError as error:
                log.warning("job %s: %s was not told: %s", event.job, event.kind, error)
            return
        self.ending = True
        deadline = time.monotonic() + 2 * wire.LEASE
        pause = threading.Event()
        while True:
            try:
                if not self._wire.finish(event):
                    log.warning("job %s attempt %d: its end is not wanted any more", event.job,
                                event.attempt)  # fmt: skip
                return
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    log.error("job %s: its end could not be told: %s", event.job, error)
                    return
                pause.wait(1.0)
