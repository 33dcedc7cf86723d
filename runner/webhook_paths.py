"""Webhooks in an OpenAPI document: how they are asked for, what they say, what became of them."""

from __future__ import annotations

from runner import errors
from runner.components import (
    JSON,
    answer,
    get,
    header,
    json_content,
    moment,
    nullable,
    path_parameter,
    problems,
    ref,
)

WORDS = ("start", "completed", "succeeded", "failed", "canceled")

OPTIONS: list[JSON] = [
    {
        "name": "Webhook-URL",
        "in": "header",
        "description": "Whom to tell what becomes of the job; https and public, unless the "
        "operator allows more.",
        "schema": {"type": "string", "format": "uri", "maxLength": 2000},
    },
    {
        "name": "Webhook-Events",
        "in": "header",
        "description": f"What to tell, with commas between: {', '.join(WORDS)}. `completed` is "
        "any end; `start` is told for each attempt.",
        "schema": {"type": "string", "default": "completed"},
    },
]
"""What a submit may say about webhooks."""

DELIVERY: JSON = {
    "type": "object",
    "required": ["id", "event", "url", "status", "created_at", "next_attempt_at", "attempts"],
    "properties": {
        "id": {"type": "string", "description": "The `webhook-id`; the same in every attempt."},
        "event": {"enum": ["started", "succeeded", "failed", "canceled"]},
        "url": {"type": "string", "description": "Whom; the query is left out."},
        "status": {"enum": ["pending", "delivered", "failed"]},
        "created_at": moment("When there was something to tell."),
        "next_attempt_at": moment("When it is tried next."),
        "attempts": {
            "type": "array",
            "description": "The latest attempts, oldest first.",
            "items": {
                "type": "object",
                "properties": {
                    "attempt": {"type": "integer"},
                    "at": moment("When it began."),
                    "seconds": {"type": "number", "description": "How long it took."},
                    "status_code": nullable("integer", "What the receiver answered."),
                    "error": nullable("string", "Why it did not arrive."),
                },
            },
        },
        "links": {"type": "object"},
    },
}

EVENT: JSON = {
    "type": "object",
    "required": ["specversion", "id", "type", "source", "subject", "time", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "description": "The `webhook-id`."},
        "type": {
            "enum": [
                f"org.nlp-runner.job.{word}.v1"
                for word in ("started", "succeeded", "failed", "canceled")
            ]
        },
        "source": {"type": "string", "format": "uri-reference"},
        "subject": {"type": "string", "description": "The id of the job."},
        "time": moment("When it happened."),
        "datacontenttype": {"const": "application/json"},
        "data": ref("Job"),
    },
}


def webhook_paths() -> JSON:
    """Return the orchestrator's paths about webhooks."""
    job_id = path_parameter("id", "The id of a job.")
    listed = {"type": "array", "items": DELIVERY}
    return {
        "/v1/jobs/{id}/webhooks": {
            "parameters": [job_id],
            **get(
                "listWebhooks",
                "What a job has told or still has to tell, and how each attempt went",
                {
                    **answer(
                        {
                            "type": "object",
                            "required": ["webhooks"],
                            "properties": {"webhooks": listed},
                        }
                    ),
                    **problems(errors.JobUnknown, errors.StoreUnavailable),
                },
                "jobs",
            ),
        },
        "/v1/jobs/{id}/webhooks/{delivery}/replay": {
            "parameters": [job_id, path_parameter("delivery", "The id of a webhook.")],
            "post": {
                "operationId": "replayWebhook",
                "tags": ["jobs"],
                "summary": "Send a webhook again, with the id and the body that it had",
                "responses": {
                    "202": {"description": "It will be.", "content": json_content(DELIVERY)},
                    **problems(errors.JobUnknown, errors.WebhookUnknown, errors.StoreUnavailable),
                },
            },
        },
    }


def webhooks() -> JSON:
    """Return what the orchestrator sends: the `webhooks` of an OpenAPI 3.1 document."""
    signed = {
        "webhook-id": "The same for every attempt: use it to drop duplicates.",
        "webhook-timestamp": "Seconds since the epoch; refuse what is older than five minutes.",
        "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over id.timestamp.body; one "
        "for each secret, with spaces between (Standard Webhooks).",
    }
    return {
        "job": {
            "post": {
                "operationId": "jobWebhook",
                "tags": ["jobs"],
                "summary": "A job started or ended",
                "parameters": [
                    {"name": name, "in": "header", "required": True, **header("string", words)}
                    for name, words in signed.items()
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/cloudevents+json": {"schema": EVENT}},
                },
                "responses": {
                    "2XX": {"description": "Received. Anything else is tried again for a day."},
                    "410": {"description": "Tell no more about this job."},
                },
            }
        }
    }
