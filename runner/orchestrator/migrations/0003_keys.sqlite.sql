-- Who may ask: the keys of the HTTP API, without their secrets.
CREATE TABLE api_key (
    id TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    owner TEXT NOT NULL CHECK (owner <> ''),
    scopes TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION,
    revoked_at DOUBLE PRECISION,
    note TEXT NOT NULL
);
