"""What callers see of a job, a service and a worker: the JSON of the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.orchestrator.catalog import Entry, Member
from runner.orchestrator.jobs import Job
from runner.registry import Instance
from runner.stream import progress_data, when


def job_resource(
    job: Job,
    *,
    progress: dict[str, Any] | None = None,
    position: int | None = None,
    eta_seconds: float | None = None,
    parts: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a job as its callers see it; `progress` is the live picture of a running one.

    `position` counts the jobs of the service that stand before it, 0 for the next one. `parts` are
    the resources of a composite job's parts by their names.
    """
    here = f"/v1/jobs/{job.id}"
    picture = progress or job.progress
    family: dict[str, Any] = {}
    if job.parent_id is not None:
        family = {"parent": job.parent_id, "part": job.part}
    if parts is not None:
        family = {"parts": dict(parts)}
    return {
        "id": job.id,
        "service": job.service or None,
        "service_version": job.service_version or None,
        "manifest_digest": job.manifest_digest or None,
        **family,
        "status": job.status,
        "reason": job.reason,
        "progress": progress_data(picture) if picture else None,
        "position": position,
        "eta_seconds": None if eta_seconds is None else round(eta_seconds, 1),
        "attempt": job.attempt,
        "attempts": job.attempts,
        "priority": job.priority,
        "created_at": when(job.created_at),
        "started_at": when(job.started_at),
        "finished_at": when(job.finished_at),
        "updated_at": when(job.updated_at),
        "expires_at": when(job.expires_at),
        "deadline_at": when(job.deadline_at),
        "cancel_requested_at": when(job.cancel_requested_at),
        "cancel": cancel_receipt(job, picture),
        "reused_from": job.reused_from,
        "retry_of": job.retry_of,
        "error": job.error,
        "links": {
            "self": here,
            "result": f"{here}/result",
            "events": f"{here}/events",
            "cancel": f"{here}/cancel",
        },
    }


def cancel_receipt(job: Job, picture: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what became of a request to cancel a job, None where nobody asked.

    `step` is where the job was when it stopped, or is while it still runs.
    """
    if job.cancel_requested_at is None:
        return None
    steps = (picture or {}).get("steps") or ()
    at = (one["name"] for one in steps if one.get("status") in ("canceled", "failed", "running"))
    return {
        "requested_at": when(job.cancel_requested_at),
        "by": job.cancel_actor,
        "step": next(at, None),
        "ended": _how_canceled(job) if job.finished else None,
    }


def _how_canceled(job: Job) -> str:
    """Return how a job ended that somebody wanted to be canceled."""
    if job.status != "canceled":
        return "too_late"
    if job.composite:
        return "with_its_parts"
    error = job.error or {}
    if error.get("forced"):
        return "killed"
    if error.get("attempt_lost"):
        return "attempt_lost"
    return "before_start" if job.started_at is None else "at_checkpoint"


def ended(picture: dict[str, Any], status: str, at: float) -> dict[str, Any]:
    """Return a picture of progress in which nothing runs any more."""
    steps = []
    for step in picture.get("steps") or ():
        match step.get("status"):
            case "running":
                step = {**step, "status": status, "finished_at": at}
            case "pending":
                step = {**step, "status": "skipped"}
        steps.append(step)
    return {**picture, "step": None, "steps": steps}


def composite_resource(job: Job, parts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a composite job with the resources of its parts, which are the steps it takes."""
    steps = [
        {
            "name": name,
            "title": part["service"],
            "status": "pending" if part["status"] == "queued" else part["status"],
            "done": _percent(part),
            "total": 100.0,
            "started_at": part["started_at"],
            "finished_at": part["finished_at"],
        }
        for name, part in parts.items()
    ]
    percent = sum(map(_percent, parts.values())) / max(1, len(parts))
    etas = [part["eta_seconds"] for part in parts.values()]
    waits = [eta for eta in etas if eta is not None]
    whole = job_resource(job, parts=parts, eta_seconds=max(waits) if waits else None)
    return {**whole, "progress": {"percent": round(percent, 1), "step": None, "steps": steps}}


def _percent(part: Mapping[str, Any]) -> float:
    """Return how far a part is, 0 to 100; what has ended is at its end, however it ended."""
    if part["finished_at"] is not None:
        return 100.0
    return float((part["progress"] or {}).get("percent", 0.0))


def service_resource(entry: Entry, *, whole: bool = False) -> dict[str, Any]:
    """Return a service as its callers see it; `whole` adds the manifest itself."""
    manifest = entry.manifest
    here = f"/v1/services/{manifest.name}"
    resource = {
        "name": manifest.name,
        "type": manifest.type,
        "version": manifest.version,
        "manifest_digest": manifest.digest,
        "summary": manifest.summary,
        "languages": list(manifest.languages),
        "status": entry.status,
        "reason": None if entry.available else entry.why_unavailable(),
        "slots": sum(m.instance.slots for m in entry.members if m.usable),
        "seen_at": when(entry.seen_at),
        "warnings": list(dict.fromkeys(w for m in entry.members for w in m.instance.warnings)),
        "workers": [worker_resource(member) for member in entry.members],
        "links": {"self": here, "jobs": f"{here}/jobs"},
    }
    return {**resource, "manifest": manifest.document} if whole else resource


def worker_resource(member: Member) -> dict[str, Any]:
    """Return a worker as its callers see it; `error` says why it is not used, when it is not."""
    instance = member.instance
    return {
        "instance": instance.instance,
        "service": instance.service,
        "state": instance.state if not member.quarantined else "quarantined",
        "version": instance.version,
        "manifest_digest": instance.digest,
        "slots": instance.slots,
        "busy": instance.busy,
        "host": instance.host,
        "started_at": when(instance.started_at),
        "load_seconds": instance.load_seconds,
        "alias": instance.alias or None,
        "warnings": list(instance.warnings),
        "error": member.quarantined or instance.error,
    }


def linto_services(entries: list[Entry]) -> dict[str, list[dict[str, Any]]]:
    """Return the living services by type, in the shape LinTO's clients know (`/list-services`).

    Workers that their operator gave another name are a service of that name.
    """
    listed: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        named: dict[str, list[Instance]] = {}
        for member in entry.members:
            if member.usable:
                name = member.instance.alias or entry.manifest.name
                named.setdefault(name, []).append(member.instance)
        for name, instances in named.items():
            found = _linto_service(entry, name, instances)
            listed.setdefault(entry.manifest.type, []).append(found)
    return listed


def _linto_service(entry: Entry, name: str, instances: list[Instance]) -> dict[str, Any]:
    manifest = entry.manifest
    announced = dict.fromkeys(tag for i in instances for tag in i.languages or manifest.languages)
    return {
        "service_name": name,
        "service_type": manifest.type,
        "service_language": "|".join(announced) or "*",
        "queue_name": next((i.queue_name for i in instances if i.queue_name), name),
        "info": next((i.info for i in instances if i.info), manifest.summary),
        "instances": [
            {
                "host_name": i.instance,
                "last_alive": int(entry.seen_at),
                "version": i.version,
                "concurrency": i.slots,
            }
            for i in instances
        ],
    }
