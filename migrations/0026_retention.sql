-- Legal holds: what no retention removes. Released ones are deleted; the audit log has them.

CREATE TABLE legal_holds (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    reason     TEXT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('response', 'policy', 'agent', 'target', 'time')),
    value      TEXT NOT NULL,     -- a response's or an agent's id, a policy's name, a target in canonical form; empty: times only
    since      BIGINT NOT NULL,   -- of a range of times, inclusive; 0: from the beginning
    until      BIGINT NOT NULL,   -- exclusive; the largest number: without end
    first_id   TEXT NOT NULL,     -- the same two bounds as ids of alerts, which begin with the time of receipt
    last_id    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    seal       BYTEA
);
