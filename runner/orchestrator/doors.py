"""Doors: the routes of the HTTP API, each with the scope that opens it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runner.errors import JobUnknown, StoreUnavailable
from runner.orchestrator.jobs import Job
from runner.orchestrator.keys import ADMIN, OPEN, Caller
from runner.orchestrator.life import Orchestrator
from runner.orchestrator.trouble import RETRY_AFTER

Endpoint = Callable[[Orchestrator, Request], Awaitable[Response]]


class Door(Route):
    """A route that asks who is there before its endpoint does anything.

    One that declares no `scope` opens to `admin` alone. Where the path has an `{id}`, that is the
    id of a job, and the job must be there for the caller; no endpoint can forget to look.
    `unknown` makes the answer where it is not, if that is another than a problem document.
    It is closed while the orchestrator waits for its database, unless it is open `always`.
    """

    def __init__(
        self, it: Orchestrator, method: str, path: str, endpoint: Endpoint,
        scope: str | None = None, *, unknown: Callable[[JobUnknown], Response] | None = None,
        always: bool = False,
    ) -> None:  # fmt: skip
        self.scope, self.verbs = scope, (method,)

        async def answer(request: Request) -> Response:
            if it.waits_for is not None and not always:
                raise StoreUnavailable(f"Still starting: {it.waits_for}", retry_after=RETRY_AFTER)
            caller = await it.gate.admit(request, scope or ADMIN)
            request.state.caller = caller
            try:
                if "id" in request.path_params and not caller.everywhere:
                    await job_for(it, caller, request.path_params["id"])
                response = await endpoint(it, request)
            except JobUnknown as error:
                if unknown is None:
                    raise
                response = unknown(error)
            if scope != OPEN:
                # Nobody between us and the caller may keep what is the caller's alone.
                kept = response.headers.get("cache-control", "no-store")
                response.headers["cache-control"] = kept.replace("no-cache", "private, no-cache")
            return response

        super().__init__(path, answer, methods=[method], name=getattr(endpoint, "__name__", path))


async def job_for(it: Orchestrator, caller: Caller, job_id: str) -> Job:
    """Return a job if it is there for the caller; raises `JobUnknown`, whichever it lacks.

    The one place that says which jobs are whose.
    """
    job = await it.dispatcher.following.job(job_id)
    if not caller.sees(job.owner):
        raise JobUnknown(f"There is no job `{job_id[:60]}`.")
    return job
