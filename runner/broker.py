"""Job messages through Celery on Redis: one task, one queue per manifest and seal, and its rules.

The reasons stand in docs/architecture.md ("The wire"). A message carries ids, never documents.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import quote

import redis
from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, Reject, SecurityWarning
from celery.worker import state
from celery.worker.consumer.consumer import CONNECTION_ERROR, CONNECTION_RETRY
from celery.worker.request import Request
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from runner.errors import BrokerUnavailable
from runner.transport import TASK, Prefork, child_gone, ids_of, join_logs

log = logging.getLogger(__name__)

VISIBILITY = 30
"""Seconds after which Redis offers an unacknowledged message to another worker."""


def queue_name(service: str, digest: str, seal: str = "") -> str:
    """Return the queue of one manifest and one seal, by the fingerprint of that.

    A job only reaches workers that know its very digest and believe who sent it.
    """
    return f"q:{service}:{digest[:16]}" + (f":{seal}" if seal else "")


class Producer:
    """Puts job messages into queues and says which are still there; calls block up to seconds."""

    def __init__(self, url: str, namespace: str, client: redis.Redis, seal: str = "") -> None:
        self._app = _app(url, namespace, "producer", socket_timeout=2)
        self._app.conf.update(broker_pool_limit=4, broker_pool_acquire_timeout=3)
        # Whoever sends tries again by himself, and must not wait here for a Redis that is down.
        self._app.conf.broker_transport_options["max_retries"] = 0
        self._redis = client
        self._namespace, self._seal = namespace, seal

    def send(self, job_id: str, attempt: int, service: str, digest: str) -> None:
        """Publish one message. A failure means "unknown", never "not sent": the worker's claim
        and the fence on `(job, attempt)` make a second message harmless.

        Raises `BrokerUnavailable`.
        """
        try:
            self._app.send_task(
                TASK,
                kwargs={"v": 1, "job": job_id, "attempt": attempt, "service": service},
                task_id=f"{job_id}.{attempt}",
                queue=_queue(service, digest, self._seal),
                retry=False,
                ignore_result=True,
            )
        except (OperationalError, OSError, redis.RedisError) as error:
            raise BrokerUnavailable(f"Redis did not take the message: {error}") from error

    def pending(self, service: str, digest: str) -> set[tuple[str, int]]:
        """Return (job, attempt) of every message that waits in the queue or at a worker."""
        queue = f"{self._namespace}:{queue_name(service, digest, self._seal)}"
        pipe = self._redis.pipeline(transaction=False)
        pipe.lrange(queue, 0, -1)
        pipe.hvals(f"{self._namespace}:{service}:unacked")
        waiting, taken = pipe.execute()
        messages = [_job_of(raw) for raw in waiting]
        messages += [_job_of(raw, nested=True) for raw in taken]
        return {message for message in messages if message}

    def withdraw(self, service: str, digest: str, ids: Collection[tuple[str, int]]) -> None:
        """Take the messages of these (job, attempt) out of a queue, where no worker has them."""
        queue = f"{self._namespace}:{queue_name(service, digest, self._seal)}"
        waiting: list[Any] = self._redis.lrange(queue, 0, -1)
        for raw in waiting:
            message = _job_of(raw)
            if message and message in ids:
                self._redis.lrem(queue, 1, raw)

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()


def consume(
    *,
    url: str,
    namespace: str,
    service: str,
    digest: str,
    seal: str,
    instance: str,
    concurrency: int,
    startup: float,
    hard_timeout: float,
    run: Callable[[str, int], bool],
    on_child: Callable[[], None],
    on_child_exit: Callable[[], None],
    on_child_gone: Callable[[int, int | None], None],
    on_lost: Callable[[str, int, str], None],
    on_stopping: Callable[[], None],
    on_connected: Callable[[], None],
    on_trouble: Callable[[BaseException], None],
) -> int:
    """Consume one queue with `concurrency` prefork children until told to stop; return the status.

    In each child: `on_child` once after the fork, `run(job, attempt)` per message (False hands it
    back), `on_child_exit` at its end. In the parent: `on_child_gone(pid, exitcode)` when one has
    ended, `on_lost(job, attempt, why)` when it died at work (`worker_lost`) or ran past
    `hard_timeout` seconds (`timed_out`), `on_stopping` when SIGTERM or SIGINT came and running
    work is being finished, `on_connected` when it consumes for the first time, and
    `on_trouble(error)` when it has lost Redis or does not find it; it goes on trying.
    """
    app = _app(url, namespace, instance, socket_timeout=10, service=service)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=startup,
        worker_lost_wait=1.0,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_time_limit=hard_timeout,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
    )

    class TellingRequest(Request):
        """A request whose parent process says what its child no longer can."""

        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
            exception = getattr(exc_info.exception, "exc", exc_info.exception)
            ids = ids_of(self.id)
            if ids and not isinstance(exception, Reject):
                on_lost(*ids, "worker_lost")
            return super().on_failure(exc_info, *args, **kwargs)

        def on_timeout(self, soft: bool, timeout: float) -> Any:
            ids = ids_of(self.id)
            if ids and not soft:
                on_lost(*ids, "timed_out")
            return super().on_timeout(soft, timeout)

    @app.task(name=TASK, bind=True, Request=TellingRequest)
    def execute(task: Any, **message: Any) -> None:
        """Run one message; whatever the handler does has become an event before this returns."""
        job, attempt = message.get("job"), message.get("attempt")
        if not isinstance(job, str) or not isinstance(attempt, int):
            log.warning("a message that is none of ours was dropped")
        elif not run(job, attempt):
            raise Reject("this process cannot work", requeue=True)

    def child(**_: Any) -> None:
        on_child()

    def child_exit(**_: Any) -> None:
        on_child_exit()

    def gone(pid: int, exitcode: int | None, **_: Any) -> None:
        on_child_gone(pid, exitcode)

    def stopping(**_: Any) -> None:
        on_stopping()

    def connected(**_: Any) -> None:
        on_connected()

    def no_logging(**_: Any) -> None:
        """Keep Celery from configuring logging; ours is configured already."""

    signals.worker_process_init.connect(child, weak=False)
    signals.worker_process_shutdown.connect(child_exit, weak=False)
    child_gone.connect(gone, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    signals.worker_ready.connect(connected, weak=False)
    signals.setup_logging.connect(no_logging, weak=False)
    join_logs()
    logging.getLogger("celery.app.trace").addFilter(_without_trace)
    logging.getLogger("celery.worker.consumer.consumer").addFilter(_heard_by(on_trouble))
    app.amqp.queues.select_add(_queue(service, digest, seal))
    app.amqp.queues.select([queue_name(service, digest, seal)])
    # Celery's warning about root is about pickled messages; only JSON is read here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(
        hostname=instance,
        pool=Prefork,
        concurrency=concurrency,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel="WARNING",
    )
    # Nor about jobs whose connection is lost: they go on, and their claims keep others off.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    worker.start()
    return int(worker.exitcode or 0)


def _without_trace(record: logging.LogRecord) -> bool:
    """Log a message that is handed back in one line: nothing of ours has failed."""
    if record.exc_info and isinstance(record.exc_info[1], Reject):
        record.exc_info = None
    return True


def _heard_by(on_trouble: Callable[[BaseException], None]) -> Callable[[logging.LogRecord], bool]:
    """Let us say what Celery would say of a Redis that is not there."""

    def hear(record: logging.LogRecord) -> bool:
        match (record.msg, record.args):
            case (words, (_, BaseException() as error, _)) if words == CONNECTION_ERROR:
                on_trouble(error)
            case (_, (words, BaseException() as error)) if words == CONNECTION_RETRY:
                on_trouble(error)
            case _:
                return True
        return False

    return hear


def busy() -> int:
    """Return how many messages this worker's children work on now."""
    return len(state.active_requests)


def _app(
    url: str, namespace: str, name: str, *, socket_timeout: float, service: str = ""
) -> Celery:
    app = Celery("nlp-runner", broker=url, set_as_current=False, loader="app")
    app.conf.update(
        broker_transport="runner.transport:Transport",
        broker_transport_options={
            "visibility_timeout": VISIBILITY,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "unacked_key": f"{service}:unacked",
            "unacked_index_key": f"{service}:unacked_index",
            "unacked_mutex_key": f"{service}:unacked_mutex",
            "global_keyprefix": f"{namespace}:",
            "socket_timeout": socket_timeout,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "client_name": quote(name),
        },
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_create_missing_queues=False,
        enable_utc=True,
    )
    return app


def _queue(service: str, digest: str, seal: str) -> Queue:
    name = queue_name(service, digest, seal)
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def _job_of(raw: bytes, *, nested: bool = False) -> tuple[str, int] | None:
    """Read the ids off a raw message; what is not one of ours has none."""
    try:
        message = json.loads(raw)
        return ids_of((message[0] if nested else message)["headers"]["id"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None
