"""The orchestrator as an ASGI application: its doors put together with its life."""

from __future__ import annotations

from functools import partial

from starlette.applications import Starlette

from runner import http
from runner.orchestrator import bulk, linto, redelivery, retry, routes
from runner.orchestrator.doors import Door
from runner.orchestrator.home import Home
from runner.orchestrator.keys import ADMIN, CANCEL, OPEN, READ, SUBMIT
from runner.orchestrator.life import Orchestrator


def create(home: Home) -> Starlette:
    """Return the orchestrator as an ASGI application."""
    it = Orchestrator(home)
    on = partial(Door, it)
    table = [
        on("POST", "/v1/services/{name}/jobs", routes.submit_job, SUBMIT),
        on("POST", "/v1/services/{name}/jobs/bulk", bulk.submit_bulk, SUBMIT),
        on("POST", "/v1/jobs", routes.submit_parts, SUBMIT),
        on("POST", "/v1/jobs/{id}/retry", retry.retry_job, SUBMIT),
        on("GET", "/v1/jobs/{id}", routes.get_job, READ),
        on("GET", "/v1/jobs/{id}/result", routes.get_result, READ),
        on("GET", "/v1/jobs/{id}/events", routes.get_events, READ),
        on("POST", "/v1/jobs/{id}/cancel", routes.cancel_job, CANCEL),
        on("GET", "/v1/jobs/{id}/webhooks", redelivery.list_webhooks, READ),
        on("POST", "/v1/jobs/{id}/webhooks/{delivery}/replay", redelivery.replay_webhook, SUBMIT),
        on("DELETE", "/v1/jobs/{id}", routes.delete_job, CANCEL),
        on("GET", "/v1/jobs", routes.list_jobs, READ),
        on("GET", "/v1/services", routes.list_services, READ),
        on("GET", "/v1/services/{name}", routes.get_service, READ),
        on("GET", "/status/{id}", routes.get_job, READ),
        on("POST", "/nlp", linto.create_job, SUBMIT),
        on("GET", "/job/{id}", linto.get_job, READ, unknown=linto.unknown),
        on("GET", "/results/{id}", linto.get_results, READ),
        on("GET", "/job-log/{id}", linto.get_log, READ),
        on("GET", "/revoke/{id}", linto.revoke, CANCEL),
        on("GET", "/healthcheck", linto.healthcheck, OPEN),
        on("GET", "/list-services", routes.list_linto_services, READ),
        on("GET", "/livez", routes.livez, OPEN, always=True),
        on("GET", "/readyz", routes.readyz, OPEN),
        on("GET", "/healthz", routes.readyz, OPEN),
        on("GET", "/metrics", routes.get_metrics, READ),
        on("GET", "/openapi.json", routes.get_openapi, OPEN),
        on("GET", "/docs", routes.get_docs, OPEN),
        on("GET", "/", routes.discover, OPEN),
    ]
    it.scopes = {(verb, one.path): one.scope or ADMIN for one in table for verb in one.verbs}
    return http.application(table, observe=it.metrics.http, lifespan=it.live)
