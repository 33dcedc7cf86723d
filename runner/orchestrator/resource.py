"""What callers see of a job, a service and a worker: the JSON of the HTTP API."""

from __future__ import annotations

from typing import Any

from runner.orchestrator.catalog import Entry, Member
from runner.orchestrator.jobs import Job
from runner.stream import progress_data, when


def job_resource(
    job: Job,
    *,
    progress: dict[str, Any] | None = None,
    position: int | None = None,
    eta_seconds: float | None = None,
) -> dict[str, Any]:
    """Return a job as its callers see it; `progress` is the live picture of a running one.

    `position` counts the jobs of the service that stand before it, 0 for the next one.
    """
    here = f"/v1/jobs/{job.id}"
    picture = progress or job.progress
    return {
        "id": job.id,
        "service": job.service,
        "service_version": job.service_version,
        "manifest_digest": job.manifest_digest,
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
        "cancel_requested_at": when(job.cancel_requested_at),
        "error": job.error,
        "links": {
            "self": here,
            "result": f"{here}/result",
            "events": f"{here}/events",
            "cancel": f"{here}/cancel",
        },
    }


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
        "error": member.quarantined or instance.error,
    }


def linto_services(entries: list[Entry]) -> dict[str, list[dict[str, Any]]]:
    """Return the living services by type, in the shape LinTO's clients know (`/list-services`)."""
    listed: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        usable = [m.instance for m in entry.members if m.usable]
        if usable:
            manifest = entry.manifest
            listed.setdefault(manifest.type, []).append(
                {
                    "service_name": manifest.name,
                    "service_type": manifest.type,
                    "service_language": "|".join(manifest.languages) or "*",
                    "queue_name": manifest.name,
                    "info": manifest.summary,
                    "instances": [
                        {
                            "host_name": i.instance,
                            "last_alive": int(entry.seen_at),
                            "version": i.version,
                            "concurrency": i.slots,
                        }
                        for i in usable
                    ],
                }
            )
    return listed
