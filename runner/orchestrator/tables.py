"""The tables of the orchestrator as peewee models, and the migrations that make them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import peewee

from runner.errors import Unavailable
from runner.orchestrator.session import Session

MIGRATION_LOCK = 0x6E6C7072756E6E72
"""Key of the advisory lock on PostgreSQL under which one orchestrator migrates: `nlprunnr`."""


class JobRow(peewee.Model):
    """One job; its fields are those of `jobs.Job`, in that order."""

    id = peewee.TextField(primary_key=True)
    owner = peewee.TextField()
    service = peewee.TextField()
    service_version = peewee.TextField()
    major = peewee.IntegerField()
    manifest_digest = peewee.TextField()
    status = peewee.TextField()
    reason = peewee.TextField(null=True)
    attempt = peewee.IntegerField()
    attempts = peewee.IntegerField()
    priority = peewee.IntegerField()
    created_at = peewee.DoubleField()
    available_at = peewee.DoubleField()
    dispatched_at = peewee.DoubleField(null=True)
    started_at = peewee.DoubleField(null=True)
    finished_at = peewee.DoubleField(null=True)
    updated_at = peewee.DoubleField()
    queue_deadline_at = peewee.DoubleField(null=True)
    expires_at = peewee.DoubleField(null=True)
    cancel_requested_at = peewee.DoubleField(null=True)
    cancel_actor = peewee.TextField(null=True)
    worker = peewee.TextField(null=True)
    progress = peewee.TextField(null=True)
    error = peewee.TextField(null=True)
    input_bytes = peewee.BigIntegerField()
    revision = peewee.IntegerField()
    parent_id = peewee.TextField(null=True)
    part = peewee.TextField(null=True)
    retention = peewee.DoubleField(null=True)
    deadline_at = peewee.DoubleField(null=True)
    deadline_from = peewee.TextField(null=True)
    idempotency_key = peewee.TextField(null=True)
    fingerprint = peewee.TextField(null=True)
    reused_from = peewee.TextField(null=True)
    retry_of = peewee.TextField(null=True)

    class Meta:
        table_name = "job"


class PayloadRow(peewee.Model):
    """The input or the output of a job: JSON, compressed."""

    job_id = peewee.TextField()
    kind = peewee.TextField()
    body = peewee.BlobField()

    class Meta:
        table_name = "payload"
        primary_key = peewee.CompositeKey("job_id", "kind")


class TransitionRow(peewee.Model):
    """One change of a job; rows are only ever added."""

    job_id = peewee.TextField()
    revision = peewee.IntegerField()
    status = peewee.TextField()
    reason = peewee.TextField(null=True)
    attempt = peewee.IntegerField()
    at = peewee.DoubleField()
    actor = peewee.TextField()

    class Meta:
        table_name = "transition"
        primary_key = peewee.CompositeKey("job_id", "revision")


class ManifestRow(peewee.Model):
    """The last valid copy of an announced manifest."""

    digest = peewee.TextField(primary_key=True)
    name = peewee.TextField()
    document = peewee.TextField()
    seen_at = peewee.DoubleField()

    class Meta:
        table_name = "manifest"


class ApiKeyRow(peewee.Model):
    """One key of the HTTP API; its fields are those of `keys.Key`, its scopes in one text."""

    id = peewee.TextField(primary_key=True)
    hash = peewee.TextField()
    owner = peewee.TextField()
    scopes = peewee.TextField()
    created_at = peewee.DoubleField()
    expires_at = peewee.DoubleField(null=True)
    revoked_at = peewee.DoubleField(null=True)
    note = peewee.TextField()

    class Meta:
        table_name = "api_key"


class WebhookRow(peewee.Model):
    """Whom a job tells of which events."""

    job_id = peewee.TextField(primary_key=True)
    url = peewee.TextField()
    events = peewee.TextField()
    traceparent = peewee.TextField(null=True)

    class Meta:
        table_name = "webhook"


class WebhookDeliveryRow(peewee.Model):
    """One message to somebody outside; its fields are those of `deliveries.Delivery`."""

    id = peewee.TextField(primary_key=True)
    job_id = peewee.TextField()
    event = peewee.TextField()
    url = peewee.TextField()
    target = peewee.TextField()
    traceparent = peewee.TextField(null=True)
    body = peewee.TextField()
    status = peewee.TextField()
    attempts = peewee.IntegerField()
    failures = peewee.IntegerField()
    log = peewee.TextField()
    created_at = peewee.DoubleField()
    due_at = peewee.DoubleField(null=True)

    class Meta:
        table_name = "webhook_delivery"


class IdempotencyRow(peewee.Model):
    """One request that must happen once, by the key that its caller gave it."""

    owner = peewee.TextField()
    idempotency_key = peewee.TextField()
    fingerprint = peewee.TextField()
    created_at = peewee.DoubleField()

    class Meta:
        table_name = "idempotency"
        primary_key = peewee.CompositeKey("owner", "idempotency_key")


class SchemaVersionRow(peewee.Model):
    """One applied migration; the highest version is that of the database."""

    version = peewee.IntegerField(primary_key=True)
    name = peewee.TextField()
    applied_at = peewee.DoubleField()

    class Meta:
        table_name = "schema_version"


MODELS = (
    JobRow,
    PayloadRow,
    TransitionRow,
    ManifestRow,
    ApiKeyRow,
    IdempotencyRow,
    WebhookRow,
    WebhookDeliveryRow,
    SchemaVersionRow,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema, for one engine."""

    version: int
    name: str
    script: str


def migrations(engine: str) -> list[Migration]:
    """Return the migrations for `sqlite` or `postgresql` in their order."""
    found = []
    for file in resources.files("runner.orchestrator").joinpath("migrations").iterdir():
        match = re.fullmatch(rf"(\d+)_(\w+)\.{engine}\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def migrate(session: Session, now: float) -> None:
    """Bring the database to this code's schema; several orchestrators may do so at once.

    Raises `Unavailable` when the database is of a newer release.
    """
    if session.postgresql:
        # A neighbour's migration, or ours, may take longer than an ordinary statement is given.
        session.run("SET LOCAL statement_timeout = 0")
        session.run("SET LOCAL lock_timeout = 0")
        session.rows("SELECT pg_advisory_xact_lock(?)", MIGRATION_LOCK)
    session.run(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL PRIMARY KEY, "
        "name TEXT NOT NULL, applied_at DOUBLE PRECISION NOT NULL)"
    )
    applied = {version for (version,) in session.rows("SELECT version FROM schema_version")}
    known, reached = migrations(session.engine), max(applied, default=0)
    if reached > known[-1].version:
        raise Unavailable(
            f"The database has schema version {reached}, and this release of nlp-runner knows "
            f"versions up to {known[-1].version}; start the newer release that made it, or name "
            f"another database."
        )
    for migration in known:
        if migration.version not in applied:  # a lower number may have come later
            for statement in _statements(migration.script, session.engine):
                session.run(statement)
            session.run(
                "INSERT INTO schema_version (version, name, applied_at) VALUES (?, ?, ?)",
                migration.version, migration.name, now,
            )  # fmt: skip


def _statements(script: str, engine: str) -> Iterator[str]:
    """Split a script for SQLite, whose driver takes one statement at a time in a transaction."""
    if engine == "postgresql":
        yield script
        return
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
