-- What a request may say beside its input, what ends a job from outside, what erases it.
ALTER TABLE job ADD COLUMN retention DOUBLE PRECISION;
ALTER TABLE job ADD COLUMN deadline_at DOUBLE PRECISION;
ALTER TABLE job ADD COLUMN deadline_from TEXT;
ALTER TABLE job ADD COLUMN idempotency_key TEXT;
ALTER TABLE job ADD COLUMN fingerprint TEXT;
ALTER TABLE job ADD COLUMN reused_from TEXT;
ALTER TABLE job ADD COLUMN retry_of TEXT;

CREATE INDEX job_deadline ON job (deadline_at)
    WHERE status IN ('queued', 'running') AND deadline_at IS NOT NULL AND service <> '';
CREATE INDEX job_expiry ON job (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX job_by_key ON job (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX job_by_content ON job (owner, fingerprint, finished_at)
    WHERE status = 'succeeded' AND fingerprint IS NOT NULL;

-- One request that must happen once; its jobs name the key. The fingerprint is that of the request.
CREATE TABLE idempotency (
    owner TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (owner, idempotency_key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);
