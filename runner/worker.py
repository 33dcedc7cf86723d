"""The queue door of one service: consume its jobs, run each in the engine, say that it lives."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import redis

from runner import broker, events, wire
from runner.context import Stop
from runner.engine import Engine
from runner.errors import (
    Canceled,
    Interrupted,
    Poisoned,
    RunnerError,
    TimedOut,
    WorkerLost,
)
from runner.manifest import Manifest
from runner.registry import BEAT, Announcer, Instance

log = logging.getLogger(__name__)

WATCH = 0.5
"""Seconds between two looks of a busy process at its lease and its cancel flag, and of any child
at its parent."""

LISTEN = 0.25
"""Seconds that the heartbeat waits for news of a child before it looks around."""

GRACE = 5.0
"""Seconds that a handler gets to notice a cancel or its deadline before its process is ended."""

LOAD_FAILED = 3
"""Exit status of a worker whose handler cannot be used."""


@dataclass(frozen=True)
class Post:
    """Where a worker works: its Redis, its namespace, how many jobs at a time, how it stops."""

    url: str
    namespace: str
    concurrency: int
    shutdown_grace: float


def serve(manifest: Manifest, config: Mapping[str, Any], post: Post) -> int:
    """Serve one service from its queue until SIGTERM or SIGINT; return the exit status.

    On the first signal it takes no more jobs and finishes the running ones within the grace;
    what is not finished then is handed back as `interrupted`, to be run again elsewhere.
    """
    worker = _Parent(manifest, config, post)
    return worker.serve()


class _Parent:
    """The main process: it announces, listens to its children, and speaks for the dead."""

    def __init__(self, manifest: Manifest, config: Mapping[str, Any], post: Post) -> None:
        self.manifest, self.config, self.post = manifest, config, post
        self.name = f"{manifest.name}@{socket.gethostname()}-{os.getpid()}"
        self._reports, self._report = multiprocessing.Pipe(duplex=False)
        self._over = threading.Event()
        self._draining = threading.Event()
        self._served = False
        self._failed: str | None = None
        self._born = time.time()
        self._redis = wire.connect(post.url, self.name, timeout=5)
        self._announcer = Announcer(
            self._redis, post.namespace, manifest,
            Instance(
                self.name, manifest.name, manifest.version, manifest.digest, "starting",
                slots=post.concurrency, host=socket.gethostname(), pid=os.getpid(),
                started_at=self._born,
            ),
        )  # fmt: skip
        self._wire = wire.WorkerWire(self._redis, post.namespace)
        self._child = _Child(manifest, config, post, self.name, self._report)

    def serve(self) -> int:
        """Run until stopped."""
        limits = self.manifest.limits
        self._heart = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self._heart.start()
        try:
            status = broker.consume(
                url=self.post.url,
                namespace=self.post.namespace,
                service=self.manifest.name,
                digest=self.manifest.digest,
                instance=self.name,
                concurrency=self.post.concurrency,
                startup=limits.startup,
                hard_timeout=limits.timeout + 2 * GRACE,
                run=self._child.run,
                on_child=self._child.open,
                on_child_exit=self._child.close,
                on_lost=self._lost,
                on_stopping=self._stopping,
            )
        finally:
            self._over.set()
            self._heart.join(timeout=5)
        return LOAD_FAILED if self._failed else status

    def _live(self) -> None:
        """Announce every few seconds, and at once when a child says something new."""
        self._announce()
        told = time.monotonic()
        while not self._over.is_set():
            if self._reports.poll(LISTEN):
                self._hear(self._reports.recv())
            state = self._announcer.instance.state
            waited = time.time() - self._born
            if state == "starting" and waited > self.manifest.limits.startup:
                self._fail(f"the handler was not set up within {waited:.0f} s "
                           f"(`limits.startup` of the manifest)")  # fmt: skip
            elif state in ("starting", "ready") and self._draining.is_set():
                self._announce(state="draining")
            elif time.monotonic() - told > BEAT:
                self._announce(busy=broker.busy())
                told = time.monotonic()
        self._withdraw()

    def _hear(self, report: Mapping[str, Any]) -> None:
        match report:
            case {"ready": seconds} if self._announcer.instance.state == "starting":
                log.info("%s %s is ready after %.1f s, %d at a time", self.manifest.name,
                         self.manifest.version, seconds, self.post.concurrency)  # fmt: skip
                self._served = True
                self._announce(state="ready", load_seconds=seconds)
            case {"failed": reason}:
                self._fail(reason)

    def _fail(self, reason: str) -> None:
        """Say why nothing can be served, and stop."""
        if self._failed is None:
            self._failed = reason
            log.error("%s cannot be served: %s", self.manifest.name, reason)
            self._announce(state="unhealthy", error=reason[:4000])
            os.kill(os.getpid(), signal.SIGTERM)

    def _announce(self, **changes: Any) -> None:
        try:
            self._announcer.announce(**changes)
        except redis.RedisError as error:
            log.warning("the registry does not answer: %s", error)

    def _withdraw(self) -> None:
        """Leave the registry; a worker that failed leaves its reason there to be read."""
        if self._failed is None:
            try:
                self._announcer.withdraw()
            except redis.RedisError:
                log.warning("could not leave the registry; the key will expire by itself")

    def _stopping(self) -> None:
        """Let running work finish, but not for ever; before anything was served, end at once."""
        if self._draining.is_set():
            return
        self._draining.set()
        if self._served:
            grace = self.post.shutdown_grace
            _later(grace, lambda: os.kill(os.getpid(), signal.SIGQUIT))
            _later(grace + 2 * GRACE, lambda: self._quit(1))
        else:
            _later(0, lambda: self._quit(0))

    def _quit(self, status: int) -> None:
        """Leave without waiting for anybody; the children notice and end themselves."""
        self._over.set()
        self._heart.join(timeout=5)
        os._exit(LOAD_FAILED if self._failed else status)

    def _lost(self, job_id: str, attempt: int, why: str) -> None:
        """Tell the end of an attempt whose process cannot tell it any more."""
        error: RunnerError
        if why == "timed_out":
            limit = self.manifest.limits.timeout
            error = TimedOut(f"The handler ignored its deadline of {limit:g} s and was ended.")
        elif self._draining.is_set():
            error = Interrupted("The worker was stopped before the job had finished.")
        else:
            error = WorkerLost("The process that ran the handler died (killed, crashed or exited).")
        event = wire.lost(job_id, self.manifest.name, attempt, error.to_problem())
        try:
            self._wire.finish(event)
        except redis.RedisError as failure:
            log.warning("job %s: its end could not be told: %s", job_id, failure)


class _Child:
    """One prefork process: an engine, its end of the wire, and a watch beside the handler."""

    def __init__(
        self, manifest: Manifest, config: Mapping[str, Any], post: Post, instance: str,
        report: Connection,
    ) -> None:  # fmt: skip
        self.manifest, self.config, self.post = manifest, config, post
        self.instance = instance
        self._report = report
        self._engine: Engine | None = None

    def open(self) -> None:
        """Set the handler up in this process and prove it on an example.

        The process leaves its parent's group, so that a signal to the group reaches the parent
        only, which knows how to stop; the watch ends the process if the parent dies.
        """
        os.setpgid(0, 0)
        follow = threading.Thread(target=_follow, args=(os.getppid(),), daemon=True)
        follow.start()
        began = time.monotonic()
        try:
            engine = Engine(self.manifest, self.config)
            engine.smoke()
        except RunnerError as error:
            # Several children write to one pipe, and only short messages stay in one piece.
            self._report.send({"failed": str(error)[:900]})
            return
        self._wire = wire.WorkerWire(
            wire.connect(self.post.url, self.instance, timeout=5), self.post.namespace
        )
        self._watch = _Watch(self._wire, self.instance)
        self._stopped = False
        self._telling: _Telling | None = None
        self._engine = engine
        self._report.send({"ready": time.monotonic() - began})

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
        signal.signal(signal.SIGTERM, self._interrupted)  # Celery has set its own after `open`
        try:
            claim = self._wire.claim(job_id, attempt, self.instance)
        except redis.RedisError as error:
            log.warning("job %s could not be claimed: %s", job_id, error)
            threading.Event().wait(1.0)
            return False
        match claim.verdict:
            case "go":
                self._execute(self._engine, job_id, attempt, claim.input)
            case "canceled":
                canceled = Canceled(f"Canceled by {claim.actor} before it started.")
                self._end(events.Canceled, job_id, attempt, canceled)
            case "poisoned":
                poisoned = Poisoned(
                    f"The attempt was started {wire.MAX_STARTS} times and never came to an end."
                )
                self._end(events.Failed, job_id, attempt, poisoned)
            case _:
                log.info("job %s attempt %d is not wanted any more", job_id, attempt)
        if self._stopped:
            raise SystemExit(0)
        return True

    def _execute(self, engine: Engine, job_id: str, attempt: int, inputs: Any) -> None:
        began = time.monotonic()
        stop = Stop()
        self._telling = telling = _Telling(self._wire)
        limit = self.manifest.limits.timeout
        with self._watch.over(job_id, self.manifest.name, attempt, stop, limit):
            outcome = engine.run(
                job_id, inputs, emit=telling, attempt=attempt, stop=stop, worker=self.instance
            )
        self._telling = None
        log.info("job %s attempt %d %s after %.2f s%s", job_id, attempt, outcome.status,
                 time.monotonic() - began,
                 f": {outcome.error.code}" if outcome.error else "")  # fmt: skip

    def _end(self, kind: type[Any], job_id: str, attempt: int, error: RunnerError) -> None:
        event = kind(
            job=job_id, service=self.manifest.name, attempt=attempt, seq=1, at=time.time(),
            error=error.to_problem(),
        )  # fmt: skip
        _Telling(self._wire)(event)


class _Telling:
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


class _Watch:
    """A thread beside the handler: keeps the lease, hears a cancel, ends what does not listen."""

    def __init__(self, worker_wire: wire.WorkerWire, instance: str) -> None:
        self._wire, self._instance = worker_wire, instance
        self._lock = threading.Lock()
        self._round: _Round | None = None
        self._wake = threading.Event()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def over(self, job_id: str, service: str, attempt: int, stop: Stop, limit: float) -> _Round:
        """Watch over one execution: `with watch.over(...):`."""
        return _Round(self, job_id, service, attempt, stop, limit)

    def begin(self, round_: _Round) -> None:
        """Take up one execution."""
        with self._lock:
            self._round = round_
        self._wake.set()

    def end(self) -> None:
        """Let it go; waits for a look that is under way, so that no lease outlives its job."""
        with self._lock:
            self._round = None
        self._wake.clear()

    def interrupt(self, error: RunnerError) -> None:
        """Ask the watched execution, if there is one, to stop."""
        if self._round is not None:
            self._round.interrupt(error)

    def _look(self) -> None:
        pause = threading.Event()
        while True:
            self._wake.wait()
            pause.wait(WATCH)
            with self._lock:
                if self._round is not None:
                    self._round.look(self._wire, self._instance)


class _Round:
    """One watched execution."""

    def __init__(
        self, watch: _Watch, job_id: str, service: str, attempt: int, stop: Stop, limit: float
    ) -> None:
        self._watch = watch
        self._job, self._service, self._attempt = job_id, service, attempt
        self.stop, self._limit = stop, limit
        self._began = self._renewed = time.monotonic()
        self._asked: float | None = None

    def __enter__(self) -> None:
        self._watch.begin(self)

    def __exit__(self, *_: object) -> None:
        self._watch.end()

    def interrupt(self, error: RunnerError) -> None:
        """Ask the execution to stop; it has its grace from now on."""
        if self._asked is None:
            self._asked = time.monotonic()
        self.stop.request(error)

    def look(self, worker_wire: wire.WorkerWire, instance: str) -> None:
        """Renew the lease, pass on a cancel, and end a process that does not listen."""
        now = time.monotonic()
        try:
            wanted, actor = worker_wire.renew(self._job, self._attempt, instance)
        except redis.RedisError as failure:
            log.warning("job %s: the lease could not be renewed: %s", self._job, failure)
            wanted, actor = True, None
        if actor and self._asked is None:
            self.interrupt(Canceled(f"Canceled by {actor} while it was running."))
        if not wanted and self._asked is None:
            self.interrupt(Interrupted("A newer attempt has taken over."))
        if now - self._began > self._limit + GRACE:
            self._kill(worker_wire, events.Failed, TimedOut(
                f"The handler ran {now - self._began:.1f} s without a checkpoint; "
                f"`limits.timeout` of the manifest allows {self._limit:g} s, and its process was "
                f"ended {GRACE:g} s later.", clock="timeout"))  # fmt: skip
        elif self._asked is not None and now - self._asked > GRACE:
            error = self.stop.error or Canceled("Canceled.")
            kind = events.Canceled if isinstance(error, Canceled) else events.Failed
            self._kill(worker_wire, kind, error)

    def _kill(
        self, worker_wire: wire.WorkerWire, kind: Callable[..., events.Event], error: RunnerError
    ) -> None:
        """Tell the end in the handler's stead, then end this process; Celery makes a new one."""
        log.warning("job %s: the handler does not listen; its process is ended", self._job)
        event = kind(
            job=self._job, service=self._service, attempt=self._attempt, seq=0, at=time.time(),
            error={**error.to_problem(), "forced": True},
        )  # fmt: skip
        try:
            worker_wire.finish(event)
        finally:
            os._exit(1)


def _later(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def _follow(parent: int) -> None:
    """End this process when its parent is gone, even while its handler is still loading."""
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(2 * WATCH)
    os._exit(1)
