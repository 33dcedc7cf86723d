"""What became of a job's webhooks: the delivery log, and sending one again."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from runner.errors import WebhookUnknown
from runner.http import json_response
from runner.orchestrator.deliveries import Delivery
from runner.orchestrator.life import Orchestrator
from runner.stream import when


async def list_webhooks(it: Orchestrator, request: Request) -> Response:
    """List what a job has told or still has to tell, and how each try went."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    found = await it.store.deliveries.of_job(job.id)
    return json_response({"webhooks": [delivery_resource(one) for one in found]})


async def replay_webhook(it: Orchestrator, request: Request) -> Response:
    """Send a message again, with the id and the body that it had."""
    job = await it.dispatcher.following.job(request.path_params["id"])
    delivery_id = request.path_params["delivery"]
    known = delivery_id in {one.id for one in await it.store.deliveries.of_job(job.id)}
    if not known or not await it.store.deliveries.replay(job.id, delivery_id, time.time()):
        raise WebhookUnknown(f"The job has no webhook `{delivery_id[:80]}`.")
    it.deliverer.poke()
    found = await it.store.deliveries.of_job(job.id)
    return json_response(
        next(delivery_resource(one) for one in found if one.id == delivery_id), 202
    )


def delivery_resource(delivery: Delivery) -> dict[str, Any]:
    """Return a message as callers see it; the query of its URL, which may hold a token, is not."""
    url, _, query = delivery.url.partition("?")
    return {
        "id": delivery.id,
        "event": delivery.event,
        "url": f"{url}?…" if query else url,
        "status": delivery.status,
        "created_at": when(delivery.created_at),
        "next_attempt_at": when(delivery.due_at),
        "attempts": list(delivery.log),
        "links": {"replay": f"/v1/jobs/{delivery.job_id}/webhooks/{delivery.id}/replay"},
    }
