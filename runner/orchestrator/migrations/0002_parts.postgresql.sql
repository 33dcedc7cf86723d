-- Several services asked at once: a composite job, whose service is '', and its parts.
ALTER TABLE job ADD COLUMN parent_id TEXT REFERENCES job (id) ON DELETE CASCADE;
ALTER TABLE job ADD COLUMN part TEXT;

CREATE UNIQUE INDEX job_parts ON job (parent_id, part) WHERE parent_id IS NOT NULL;

-- A composite job never goes over the conveyor itself.
DROP INDEX job_dispatch;
CREATE INDEX job_dispatch ON job
    (service, manifest_digest, priority DESC, created_at, id, available_at, status, dispatched_at)
    WHERE status = 'queued' AND dispatched_at IS NULL AND service <> '';
