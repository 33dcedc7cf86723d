-- Whom a job tells of its changes, and what it has told or still has to tell.
CREATE TABLE webhook (
    job_id TEXT NOT NULL PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    traceparent TEXT
);

CREATE TABLE webhook_delivery (
    id TEXT NOT NULL PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    url TEXT NOT NULL,
    target TEXT NOT NULL,
    traceparent TEXT,
    body TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    log TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    due_at DOUBLE PRECISION
);

CREATE INDEX webhook_delivery_due ON webhook_delivery (due_at, id) WHERE status = 'pending';
CREATE INDEX webhook_delivery_of_job ON webhook_delivery (job_id, created_at);
