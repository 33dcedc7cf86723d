CREATE TABLE job (
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    service TEXT NOT NULL,
    service_version TEXT NOT NULL,
    major INTEGER NOT NULL,
    manifest_digest TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
    reason TEXT,
    attempt INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    available_at DOUBLE PRECISION NOT NULL,
    dispatched_at DOUBLE PRECISION,
    started_at DOUBLE PRECISION,
    finished_at DOUBLE PRECISION,
    updated_at DOUBLE PRECISION NOT NULL,
    queue_deadline_at DOUBLE PRECISION,
    expires_at DOUBLE PRECISION,
    cancel_requested_at DOUBLE PRECISION,
    cancel_actor TEXT,
    worker TEXT,
    progress TEXT,
    error TEXT,
    input_bytes BIGINT NOT NULL,
    revision INTEGER NOT NULL
);

-- What waits for the conveyor, in the order in which it will go. The last columns let it be
-- counted without a look at the table.
CREATE INDEX job_dispatch ON job
    (service, manifest_digest, priority DESC, created_at, id, available_at, status, dispatched_at)
    WHERE status = 'queued' AND dispatched_at IS NULL;

-- How much is unfinished, and how many stand before a job.
CREATE INDEX job_open ON job (service, status, priority, created_at, id)
    WHERE status IN ('queued', 'running');

-- What the conveyor or a worker holds.
CREATE INDEX job_moving ON job (service, manifest_digest, status, dispatched_at)
    WHERE status IN ('queued', 'running') AND dispatched_at IS NOT NULL;

CREATE INDEX job_finished ON job (status, created_at, id, service)
    WHERE status IN ('succeeded', 'failed', 'canceled');

CREATE INDEX job_recent ON job (created_at, id);
CREATE INDEX job_by_service ON job (service, created_at, id);
CREATE INDEX job_by_owner ON job (owner, created_at, id);

CREATE TRIGGER job_finished_is_final BEFORE UPDATE OF status ON job
WHEN OLD.status IN ('succeeded', 'failed', 'canceled')
BEGIN
    SELECT RAISE(ABORT, 'a finished job keeps its status');
END;

CREATE TABLE payload (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('input', 'output')),
    body BLOB NOT NULL,
    PRIMARY KEY (job_id, kind)
);

CREATE TABLE transition (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    attempt INTEGER NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (job_id, revision)
) WITHOUT ROWID;

CREATE TABLE manifest (
    digest TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    seen_at DOUBLE PRECISION NOT NULL
);
