"""How a job stands in its row: columns, the words of the partial indexes, there and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from runner.orchestrator.jobs import Job
from runner.orchestrator.tables import JobRow

JSON_COLUMNS = frozenset({"progress", "error"})
FIXED = frozenset(
    {"id", "owner", "service", "attempts", "priority", "created_at", "input_bytes", "parent_id",
     "part", "retention", "deadline_at", "deadline_from", "idempotency_key", "reused_from",
     "retry_of"}
)  # fmt: skip
COLUMNS = tuple(JobRow._meta.sorted_field_names)
MOVING = tuple(name for name in COLUMNS if name not in FIXED)
"""The columns that an event can change."""

_CASTS = {"TEXT": "text", "INT": "integer", "BIGINT": "bigint", "DOUBLE": "double precision"}
TYPES = {field.name: _CASTS[field.field_type] for field in JobRow._meta.sorted_fields}
ALL = ", ".join(COLUMNS)

# The words of the partial indexes; SQLite uses one only where a query repeats them.
OPEN_JOBS = "status IN ('queued', 'running')"
WAITING_JOBS = "status = 'queued' AND dispatched_at IS NULL AND service <> ''"
MOVING_JOBS = "status IN ('queued', 'running') AND dispatched_at IS NOT NULL"
FINISHED_JOBS = "status IN ('succeeded', 'failed', 'canceled')"

INPUT = "(SELECT body FROM payload WHERE job_id = id AND kind = 'input')"

SELECT = f"SELECT {ALL} FROM job"


def row_of(job: Job, columns: Sequence[str]) -> list[Any]:
    """Return what these columns of the job's row hold."""
    row = [getattr(job, name) for name in columns]
    for index, name in enumerate(columns):
        if name in JSON_COLUMNS and row[index] is not None:
            # Escaped to ASCII: PostgreSQL takes no lone surrogates, and a worker may send them.
            row[index] = json.dumps(row[index])
    return row


def job_of(row: Sequence[Any]) -> Job:
    """Return the job that stands in a row of `ALL` columns."""
    fields = dict(zip(COLUMNS, row, strict=True))
    for name in JSON_COLUMNS:
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    return Job(**fields)


def jobs_of(rows: Iterable[Sequence[Any]]) -> list[Job]:
    """Return the jobs that stand in these rows."""
    return [job_of(row) for row in rows]
