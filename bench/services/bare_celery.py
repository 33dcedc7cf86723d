"""The floor of the whole job: the same work as a Celery task, its result through Redis.

`python -m bench.services.bare_celery URL` is its worker: one prefork child, without what costs.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning

from bench.services.echo import run
from runner.broker import VISIBILITY

TASK = "bench.echo"


def create(url: str) -> Celery:
    """Return the application, with the settings under which our own jobs travel."""
    app = Celery("bare", broker=url, backend=url, set_as_current=False, loader="app")
    app.conf.update(
        broker_transport_options={
            "visibility_timeout": VISIBILITY,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        broker_pool_limit=32,
        broker_connection_retry_on_startup=True,
        task_serializer="json",
        accept_content=["json"],
        result_serializer="json",
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
    )

    @app.task(name=TASK)
    def echo(**inputs: Any) -> dict[str, Any]:
        """Do the work."""
        return run(None, **inputs)

    return app


def main(url: str) -> int:
    """Work until SIGTERM."""
    # Celery's warning about root is about pickled messages; only JSON is read here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = create(url).Worker(
        pool="prefork",
        concurrency=1,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel="WARNING",
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
