"""What we put in the place of parts of Celery and kombu, and why; each leans on their internals.

The reasons stand in docs/architecture.md ("The wire").
"""

from __future__ import annotations

import base64
import json
import logging
import queue
import re
import sys
from typing import Any

from celery.apps import worker as worker_program
from celery.concurrency.asynpool import RUN, AsynPool
from celery.concurrency.prefork import TaskPool
from celery.utils.dispatch import Signal
from celery.utils.log import get_multiprocessing_logger
from kombu.transport import redis as redis_transport

log = logging.getLogger(__name__)

TASK = "runner.run"
"""The one task that there is."""

child_gone = Signal(name="child_gone", providing_args={"pid", "exitcode"})
"""Sent in the parent when a child has ended, however it did."""


class Channel(redis_transport.Channel):
    """A channel that outlives what is not JSON in a queue, and keeps its client.

    kombu lets such a text end the whole worker, and the next one after it. It also makes a client
    for every command, which costs more than most commands.
    """

    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, RecursionError):
            log.error("what is no message of ours was taken out of the queue")
            raise queue.Empty from None


class Transport(redis_transport.Transport):
    """kombu's transport, which hands on only what this worker can read."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        if readable(message):
            super()._deliver(message, queue)
        else:
            log.error("what is no message of ours was taken out of the queue")


class Children(AsynPool):
    """Celery's prefork children, each heard to the end of what it was given."""

    def flush(self) -> None:
        """Drop jobs that are not known to run; at a stop, only those that no child was given."""
        given = {number: job for number, job in self._cache.items() if job._write_to}
        super().flush()
        if self._state != RUN:
            # Without these nobody hears their children, which wait 30 s for it before they leave.
            self._cache.update(given)

    def did_start_ok(self) -> bool:
        """Let the loop begin: it ends the worker at once if a child has died so early."""
        return True

    def _join_exited_workers(self, shutdown: bool = False) -> Any:
        """Tell of each child that has ended: Celery only starts another one."""
        before = list(self._pool)
        try:
            return super()._join_exited_workers(shutdown)
        finally:
            left = {child.pid for child in self._pool}
            for child in before:
                if child.pid not in left:
                    child_gone.send(sender=self, pid=child.pid, exitcode=child.exitcode)


def join_logs() -> None:
    """Let nothing be said beside the log.

    What the pool says is logged as all else, but not that a child has ended: `child_gone` tells
    that. What Celery prints at a stop is left out.
    """
    pool = get_multiprocessing_logger()
    pool.handlers[:] = logging.getLogger().handlers
    pool.addFilter(lambda record: "exited with" not in record.msg)
    say = worker_program.safe_say

    def say_elsewhere(text: str, f: Any = sys.__stderr__) -> None:
        if f is not sys.__stdout__:
            say(text, f)

    worker_program.safe_say = say_elsewhere


class Prefork(TaskPool):
    """Celery's prefork pool, of our children."""

    Pool = Children


def readable(message: Any) -> bool:
    """Tell whether a message is such as `Producer.send` writes; anybody may write to Redis."""
    try:
        headers, properties = message["headers"], message["properties"]
        body = json.loads(base64.b64decode(message["body"], validate=True))
        return (
            headers["task"] == TASK
            and ids_of(headers["id"]) is not None
            and not headers.get("eta")
            and message["content-type"] == "application/json"
            and message["content-encoding"] == "utf-8"
            and properties["body_encoding"] == "base64"
            and isinstance(properties["delivery_tag"], str)
            and isinstance(properties["delivery_info"], dict)
            and isinstance(body[1], dict)
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return False


def ids_of(task_id: str) -> tuple[str, int] | None:
    """Read (job, attempt) off the id of a message; that of another make has none."""
    job, _, attempt = task_id.rpartition(".")
    return (job, int(attempt)) if job and re.fullmatch("[0-9]{1,9}", attempt) else None
