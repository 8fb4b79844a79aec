-- What no response may touch, beside what is always protected.

CREATE TABLE protected (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('ip', 'user', 'agent')),
    value      TEXT NOT NULL,                  -- canonical: an address, a network, an account, an agent's id
    policies   TEXT NOT NULL,                  -- names, a JSON list; empty: for every response
    reason     TEXT NOT NULL,
    expires_at BIGINT,                         -- NULL: until it is deleted
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
