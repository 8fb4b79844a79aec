-- Which managers run on this ledger. Each run of a manager holds a lease and renews it, by the database's own clock. One manager
-- at a time is supported, so there is one row; several will have a row each.
CREATE TABLE nodes (
    id          TEXT PRIMARY KEY,   -- which manager; `manager` as long as there is only one
    incarnation TEXT NOT NULL,      -- this run of it, a UUID
    name        TEXT NOT NULL,      -- for people: host, process, address
    started_at  BIGINT NOT NULL,    -- since when it holds the lease
    lease_until BIGINT NOT NULL     -- until when it is taken to be alive, unless it renews the lease
);
-- The run of the manager that may write. A run that finds another one here was superseded and writes nothing any more.
ALTER TABLE audit_head ADD COLUMN holder TEXT;

-- Whose signature the agents of this ledger believe: the public half of the key that signs orders.
CREATE TABLE signing_keys (
    kid         TEXT PRIMARY KEY,   -- its id, as in a command's header
    public_key  TEXT NOT NULL,      -- Ed25519, base64url
    adopted_at  BIGINT NOT NULL,    -- when this ledger took it
    retired_at  BIGINT              -- when another one took its place; NULL: the one that signs
);

-- What is written to see whether anything can be written; one row.
CREATE TABLE probes (
    id     BIGINT PRIMARY KEY,
    at     BIGINT NOT NULL,         -- when it was written last
    filler BYTEA NOT NULL           -- as large as an ordinary request
);
