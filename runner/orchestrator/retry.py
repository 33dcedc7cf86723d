"""Ask again for what a finished job was asked: a new job from the input that is kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from runner import payload
from runner.errors import JobErased, JobUnfinished
from runner.orchestrator import callback
from runner.orchestrator.admission import Asked
from runner.orchestrator.composite import ask
from runner.orchestrator.intake import Taken
from runner.orchestrator.jobs import Job
from runner.orchestrator.life import Orchestrator
from runner.orchestrator.parameters import preferred_wait
from runner.orchestrator.routes import accepted
from runner.orchestrator.terms import Terms, terms_of


async def retry_job(it: Orchestrator, request: Request) -> Response:
    """Commit a job like one that has finished, and answer as for a new one."""
    terms = terms_of(request)
    preferred = preferred_wait(request, it.home.max_wait)
    terms = replace(terms, webhook=callback.asked(request, it.home.outgoing))
    old = await it.dispatcher.following.job(request.path_params["id"])
    if "priority" not in request.query_params:
        terms = replace(terms, priority=old.priority)
    if terms.deadline is None and old.deadline_from == "request" and old.deadline_at is not None:
        terms = replace(terms, deadline=old.deadline_at - old.created_at)
    # Of a composite job only what did not succeed is worked on again.
    terms = replace(terms, reuse=terms.reuse and old.composite and old.status != "succeeded")
    terms = terms.about("retry", old.id)
    taken = await it.dispatcher.admission.replay(terms)
    if taken is None:
        if not old.finished:
            raise JobUnfinished(f"The job is {old.status}.", job_status=old.status)
        taken = await again(it, old, terms)
    return await accepted(it, request, taken, preferred)


async def again(it: Orchestrator, old: Job, terms: Terms) -> Taken:
    """Commit what was asked, of the manifests that are served now; raises what a submit raises."""
    if not old.composite:
        asked = await _asked(it, old)
        return await it.dispatcher.admission.submit(asked, terms, retry_of=old.id)
    parts = {str(part.part): await _asked(it, part) for part in await it.store.parts(old.id)}
    note = await it.store.payload(old.id, "input")
    return await it.dispatcher.admission.submit_parts(
        parts, payload.unpack(note) if note else {}, terms, retry_of=old.id
    )


async def _asked(it: Orchestrator, job: Job) -> Asked:
    manifest = it.catalog.serving(job.service)
    packed = await it.store.payload(job.id, "input")
    if packed is None:
        raise JobErased("The input of the job has been erased.")
    return await asyncio.to_thread(ask, manifest, payload.unpack(packed))
