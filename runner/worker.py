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
from typing import Any

import redis

from runner import broker, connection, events, memory, pulse, wire
from runner.child import Child
from runner.errors import Interrupted, RunnerError, TimedOut, WorkerLost
from runner.handler import MAX_WARNINGS
from runner.manifest import Manifest
from runner.post import Post
from runner.registry import BEAT, Announcer, Instance
from runner.voice import Voice
from runner.watch import GRACE

log = logging.getLogger(__name__)

LISTEN = 0.25
"""Seconds that the heartbeat waits for news of a child before it looks around."""

LOAD_FAILED = 3
"""Exit status of a worker whose handler cannot be used."""

PATIENCE = 2.0
"""Seconds after which a handler that is set up and cannot work yet says what it waits for."""

STILLBORN = 3
"""So many processes in a row that died before they were ready mean that none will ever be."""


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
        self._ready: set[int] = set()
        self._stillborn = 0
        self._born = time.time()
        self._redis = connection.connect(post.url, self.name, timeout=5)
        self._voice = Voice(log)
        self._connected = threading.Event()
        self._silent = False  # the registry did not take what was told last
        self._waiting = False  # that we wait for Redis was said
        self._loaded: tuple[float, float] | None = None  # how long that took, and when it was
        self._told = time.monotonic()
        self._announcer = Announcer(
            # The pulse must not wait for a Redis that falls silent.
            connection.connect_briefly(post.url, self.name), post.namespace, manifest,
            Instance(
                self.name, manifest.name, manifest.version, manifest.digest, "starting",
                slots=post.concurrency, host=socket.gethostname(), pid=os.getpid(),
                started_at=self._born, alias=post.alias, info=post.info,
                languages=post.languages, queue_name=post.queue_name,
                seal=post.seal.fingerprint,
            ),
        )  # fmt: skip
        self._wire = wire.WorkerWire(self._redis, post.namespace, manifest.digest, post.seal)
        self._child = Child(
            manifest, config, post.url, post.namespace, self.name, self._report, post.seal
        )

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
                seal=self.post.seal.fingerprint,
                instance=self.name,
                concurrency=self.post.concurrency,
                startup=limits.startup,
                hard_timeout=limits.timeout + 2 * GRACE,
                run=self._child.run,
                on_child=self._child.open,
                on_child_exit=self._child.close,
                on_child_gone=self._gone,
                on_lost=self._lost,
                on_stopping=self._stopping,
                on_connected=self._connected.set,
                on_trouble=self._trouble,
            )
        finally:
            self._over.set()
            self._heart.join(timeout=5)
        return LOAD_FAILED if self._failed else status

    def _live(self) -> None:
        """Announce every few seconds, and at once when a child says something new."""
        self._announce()
        while not self._over.is_set():
            if self._reports.poll(LISTEN):
                self._hear(self._reports.recv())
            state = self._announcer.instance.state
            waited = time.time() - self._born
            due = time.monotonic() - self._told > BEAT
            loading = state == "starting" and self._loaded is None
            if loading and waited > self.manifest.limits.startup:
                self._fail(f"the handler was not set up within {waited:.0f} s "
                           f"(`limits.startup` of the manifest)")  # fmt: skip
            elif state in ("starting", "ready") and self._draining.is_set():
                log.info("%s takes no more jobs; those that run have %g s", self.manifest.name,
                         self.post.shutdown_grace)  # fmt: skip
                self._announce(state="draining")
            elif state == "starting" and self._loaded is not None:
                self._begin(*self._loaded, due)
            elif due:
                self._announce(busy=broker.busy())
        self._withdraw()

    def _hear(self, report: Mapping[str, Any]) -> None:
        match report:
            case {"ready": float(seconds), "pid": int(pid)}:
                self._ready.add(pid)
                self._stillborn = 0
                self._loaded = self._loaded or (seconds, time.monotonic())
            case {"gone": int(pid), "exitcode": exitcode}:
                self._bury(pid, exitcode)
            case {"warning": str(sentence)}:
                told = self._announcer.instance.warnings
                if sentence not in told and len(told) < MAX_WARNINGS:
                    log.warning("%s: %s", self.manifest.name, sentence)
                    self._announce(warnings=(*told, sentence))
            case {"failed": reason}:
                self._fail(reason)

    def _begin(self, seconds: float, since: float, due: bool) -> None:
        """Say that jobs are taken, once they are; before that, what they wait for."""
        starting = self._announcer.instance
        if self._connected.is_set() and (due or not self._silent):
            self._served = True
            if self._announce(state="ready", load_seconds=seconds):
                log.info("%s %s is ready after %.1f s, %d at a time", self.manifest.name,
                         self.manifest.version, seconds, self.post.concurrency)  # fmt: skip
                return
            self._announcer.instance = starting
        elif due:
            self._announce()
        if not self._waiting and (self._silent or time.monotonic() - since > PATIENCE):
            self._waiting = True
            log.info("%s %s loaded in %.1f s; waiting for Redis", self.manifest.name,
                     self.manifest.version, seconds)  # fmt: skip

    def _gone(self, pid: int, exitcode: int | None) -> None:
        """Pass on that a child has ended, behind what it said itself."""
        self._report.send({"gone": pid, "exitcode": exitcode})

    def _bury(self, pid: int, exitcode: int | None) -> None:
        """Say how a child died; Celery starts another one, which is no use if none gets ready."""
        if self._draining.is_set() or self._failed is not None:
            return
        name, how = self.manifest.name, memory.ended(exitcode)
        if pid in self._ready:
            self._ready.remove(pid)
            log.warning("%s: its process %d %s; another one takes its place", name, pid, how)
            return
        self._stillborn += 1
        if self._stillborn < STILLBORN:
            log.warning("%s: its process %d %s while it loaded; trying again", name, pid, how)
        else:
            self._fail(f"its process {how} while it loaded, {self._stillborn} times"
                       f"{memory.suspicion(exitcode) or '.'}")  # fmt: skip

    def _fail(self, reason: str) -> None:
        """Say why nothing can be served, and stop."""
        if self._failed is None:
            self._failed = reason
            log.error("%s cannot be served: %s", self.manifest.name, reason)
            self._announce(state="unhealthy", error=reason[:4000])
            os.kill(os.getpid(), signal.SIGTERM)

    def _trouble(self, error: BaseException) -> None:
        why = connection.trouble(self._redis, error, chosen=self.post.chosen)
        self._voice.say(f"{why} Trying again.")

    def _announce(self, **changes: Any) -> bool:
        """Tell the registry, and the pulse, which says ready only where the registry was told.

        A Redis that is lost later leaves the pulse as it is: a new container would not find it.
        """
        before = self._announcer.verdict
        self._beat(self._announcer.instance.state)
        try:
            self._announcer.announce(**changes)
        except redis.RedisError as error:
            self._silent = True
            self._trouble(error)
        else:
            if self._silent:
                self._voice.over("Redis answers again.")
            self._silent = False
        if not self._silent or self._announcer.instance.state != "ready":
            self._beat(self._announcer.instance.state)
        self._told = time.monotonic()
        if (verdict := self._announcer.verdict) != before:
            said = f"quarantined and sent no jobs: {verdict}" if verdict else "quarantined no more"
            log.warning("%s is %s", self.name, said)
        return not self._silent

    def _beat(self, state: str) -> None:
        """Give the pulse; who is sent nothing does not serve, unless it leaves or has failed."""
        shut_out = self._announcer.verdict and state in ("starting", "ready")
        pulse.beat("quarantined" if shut_out else state)

    def _withdraw(self) -> None:
        """Leave the registry; a worker that failed leaves its reason there to be read."""
        pulse.stop()
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
            error = TimedOut(
                f"The handler ran on past {limit:g} s, which `limits.timeout` of the manifest "
                f"allows, and was ended.", clock="timeout", seconds=limit, set_by="manifest",
            )  # fmt: skip
        elif self._draining.is_set():
            error = Interrupted("The worker was stopped before the job had finished.")
        else:
            error = WorkerLost("The process that ran the handler died (killed, crashed or exited).")
        event = events.for_the_silent(
            job_id, self.manifest.name, attempt, error.to_problem(), time.time()
        )
        try:
            self._wire.finish(event)
        except redis.RedisError as failure:
            log.warning("job %s: its end could not be told: %s", job_id, failure)


def _later(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
