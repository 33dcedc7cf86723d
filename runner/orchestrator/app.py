"""The orchestrator as an ASGI application: its routes put together with its life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runner import http
from runner.orchestrator import linto, routes
from runner.orchestrator.life import Home, Orchestrator


def create(home: Home) -> Starlette:
    """Return the orchestrator as an ASGI application."""
    it = Orchestrator(home)

    def on(method: str, path: str, endpoint: Callable[..., Any]) -> Route:
        async def answer(request: Request) -> Response:
            response: Response = await endpoint(it, request)
            return response

        return Route(path, answer, methods=[method], name=endpoint.__name__)

    table = [
        on("POST", "/v1/services/{name}/jobs", routes.submit_job),
        on("POST", "/v1/jobs", routes.submit_parts),
        on("GET", "/v1/jobs/{id}", routes.get_job),
        on("GET", "/v1/jobs/{id}/result", routes.get_result),
        on("GET", "/v1/jobs/{id}/events", routes.get_events),
        on("POST", "/v1/jobs/{id}/cancel", routes.cancel_job),
        on("DELETE", "/v1/jobs/{id}", routes.delete_job),
        on("GET", "/v1/jobs", routes.list_jobs),
        on("GET", "/v1/services", routes.list_services),
        on("GET", "/v1/services/{name}", routes.get_service),
        on("GET", "/status/{id}", routes.get_job),
        on("POST", "/nlp", linto.create_job),
        on("GET", "/job/{id}", linto.get_job),
        on("GET", "/results/{id}", linto.get_results),
        on("GET", "/job-log/{id}", linto.get_log),
        on("GET", "/revoke/{id}", linto.revoke),
        on("GET", "/healthcheck", linto.healthcheck),
        on("GET", "/list-services", routes.list_linto_services),
        on("GET", "/livez", routes.livez),
        on("GET", "/readyz", routes.readyz),
        on("GET", "/healthz", routes.readyz),
        on("GET", "/metrics", routes.get_metrics),
        on("GET", "/openapi.json", routes.get_openapi),
        on("GET", "/docs", routes.get_docs),
        on("GET", "/", routes.discover),
    ]
    return http.application(table, observe=it.metrics.http, lifespan=it.live)
