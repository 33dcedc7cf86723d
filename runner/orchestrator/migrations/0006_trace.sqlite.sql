-- The trace that a job's caller placed it in: the W3C header `traceparent`.
ALTER TABLE job ADD COLUMN traceparent TEXT;
