-- Actions that people added; those that come with Riposte are in the program.
CREATE TABLE actions (
    name       TEXT PRIMARY KEY,
    version    BIGINT NOT NULL,                -- counts up with every change; the ETag
    document   TEXT NOT NULL,                  -- as it was given, JSON
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL
);

-- A command that is complete in itself: nothing is held when it is done.
ALTER TABLE commands ADD COLUMN one_shot BOOLEAN NOT NULL DEFAULT FALSE;

-- Policies that their breaker stopped, and when somebody started them again.
CREATE TABLE breakers (
    policy     TEXT PRIMARY KEY,
    is_open    BOOLEAN NOT NULL,               -- whether the policy is stopped
    reason     TEXT NOT NULL,
    changed_at BIGINT NOT NULL,                -- outcomes before a reset count no more
    changed_by TEXT NOT NULL
);

-- Agents that a response has not reached yet, because it goes out in waves.
CREATE TABLE waves (
    response_id TEXT NOT NULL,
    nth         BIGINT NOT NULL,
    agents      TEXT NOT NULL,                 -- ids, a JSON list
    due_at      BIGINT NOT NULL,
    PRIMARY KEY (response_id, nth)
);
CREATE INDEX waves_due ON waves (due_at);
ALTER TABLE responses ADD COLUMN one_shot BOOLEAN NOT NULL DEFAULT FALSE; -- its commands are
ALTER TABLE responses ADD COLUMN waves TEXT;   -- how it goes out, JSON; NULL: to all agents at once

-- More kinds of what can be protected.
CREATE TABLE protected_entries (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('ip', 'user', 'file', 'process', 'host', 'agent')),
    value      TEXT NOT NULL,                  -- canonical: an address, a network, an account, a path, a process, an agent's id
    policies   TEXT NOT NULL,                  -- names, a JSON list; empty: for every response
    reason     TEXT NOT NULL,
    expires_at BIGINT,                         -- NULL: until it is deleted
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
INSERT INTO protected_entries SELECT id, kind, value, policies, reason, expires_at, created_at, created_by FROM protected;
DROP TABLE protected;
