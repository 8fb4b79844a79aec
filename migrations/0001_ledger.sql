-- The ledger, in the portable subset of SQLite and PostgreSQL. Ids are UUIDv7 as text; times are milliseconds since
-- 1970-01-01 UTC; what is JSON is text. Once landed, a migration is never edited: the next file changes it.

CREATE TABLE alerts (
    id          TEXT PRIMARY KEY,              -- ours; its time is when the alert was received
    dedupe      BYTEA NOT NULL UNIQUE,         -- 128 bits of what makes it the same alert again
    pipeline    TEXT NOT NULL,                 -- who sent it
    time        BIGINT NOT NULL,               -- when it happened, by the pipeline's clock
    agent_id    TEXT,                          -- the pipeline's id of the agent it comes from
    rule_id     TEXT NOT NULL,
    rule_level  BIGINT NOT NULL,
    raw         BYTEA NOT NULL                 -- as it came: a codec byte, then the bytes; the rest is read from it
);

CREATE TABLE policies (
    name        TEXT PRIMARY KEY,
    version     BIGINT NOT NULL,               -- counts up with every change, over deletion too
    document    TEXT NOT NULL,                 -- the policy as JSON
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);

CREATE TABLE policy_versions (
    name        TEXT NOT NULL,
    version     BIGINT NOT NULL,
    document    TEXT,                          -- NULL: deleted with this version
    changed_at  BIGINT NOT NULL,
    changed_by  TEXT NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE enrollment_tokens (
    id          TEXT PRIMARY KEY,
    hash        BYTEA NOT NULL,                -- SHA-256 of the secret
    labels      TEXT NOT NULL,                 -- given to every agent that enrols with it
    uses        BIGINT NOT NULL CHECK (uses > 0),
    uses_left   BIGINT NOT NULL CHECK (uses_left >= 0),
    expires_at  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    created_by  TEXT NOT NULL
);

CREATE TABLE agents (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    public_key   TEXT NOT NULL,                -- Ed25519, base64url
    labels       TEXT NOT NULL,
    platform     TEXT NOT NULL,
    version      TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    enrolled_at  BIGINT NOT NULL,
    revoked_at   BIGINT,
    last_seen_at BIGINT,                       -- written in batches, so up to a minute old
    last_seq     BIGINT NOT NULL DEFAULT 0     -- the number of its newest command
);
-- One living agent per name: who holds a stolen enrolment token must not take over another host's responses.
CREATE UNIQUE INDEX agents_name ON agents (name) WHERE revoked_at IS NULL;

CREATE TABLE responses (
    id             TEXT PRIMARY KEY,
    alert_id       TEXT,                       -- NULL: made by hand
    policy         TEXT,
    policy_version BIGINT,
    action         TEXT NOT NULL,
    target_kind    TEXT,                       -- NULL with target_value: there was nothing to aim at
    target_value   TEXT,
    arguments      TEXT NOT NULL,
    agents         TEXT NOT NULL,              -- ids, a JSON list
    until          BIGINT,                     -- NULL: until lifted by hand
    state          TEXT NOT NULL CHECK (state IN
        ('awaiting_approval', 'active', 'ended', 'rejected', 'lapsed', 'observed', 'spared')),
    reason         TEXT,                       -- why it was spared, or why it ended
    detail         TEXT NOT NULL,              -- the same in a sentence
    requested_by   TEXT NOT NULL,
    note           TEXT NOT NULL,              -- the reason a person gave
    trace          TEXT,                       -- traceparent of the request
    created_at     BIGINT NOT NULL,
    ended_at       BIGINT,
    CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX responses_alert ON responses (alert_id) WHERE alert_id IS NOT NULL;
CREATE INDEX responses_state ON responses (state, id);
CREATE INDEX responses_due ON responses (until) WHERE state = 'active' AND until IS NOT NULL;

CREATE TABLE effects (
    id              TEXT PRIMARY KEY,
    agent_id        TEXT NOT NULL,
    action          TEXT NOT NULL,
    target_kind     TEXT NOT NULL,
    target_value    TEXT NOT NULL,
    arguments       TEXT NOT NULL,             -- of the newest apply
    desired         TEXT NOT NULL CHECK (desired IN ('in_force', 'absent')),
    actual          TEXT NOT NULL CHECK (actual IN ('unknown', 'in_force', 'absent', 'drifted')),
    actual_seq      BIGINT NOT NULL,           -- number of the command whose result says so
    until           BIGINT,                    -- of the longest hold; NULL: until lifted by hand
    failed_reverts  BIGINT NOT NULL DEFAULT 0, -- in a row; more than none is an incident
    next_revert_at  BIGINT,                    -- when a failed revert is tried again
    created_at      BIGINT NOT NULL,
    changed_at      BIGINT NOT NULL,
    UNIQUE (agent_id, action, target_kind, target_value)
);
CREATE INDEX effects_retry ON effects (next_revert_at) WHERE next_revert_at IS NOT NULL;

CREATE TABLE holds (
    response_id TEXT NOT NULL,
    effect_id   TEXT NOT NULL,
    until       BIGINT,                        -- NULL: until lifted by hand
    released_at BIGINT,                        -- NULL: still held
    PRIMARY KEY (response_id, effect_id)
);
CREATE INDEX holds_effect ON holds (effect_id) WHERE released_at IS NULL;

CREATE TABLE commands (
    id              TEXT PRIMARY KEY,
    agent_id        TEXT NOT NULL,
    seq             BIGINT NOT NULL,           -- rises per agent
    effect_id       TEXT NOT NULL,
    response_id     TEXT NOT NULL,
    op              TEXT NOT NULL CHECK (op IN ('apply', 'revert')),
    action          TEXT NOT NULL,
    target_kind     TEXT NOT NULL,
    target_value    TEXT NOT NULL,
    arguments       TEXT NOT NULL,
    until           BIGINT,
    state           TEXT NOT NULL CHECK (state IN
        ('queued', 'delivered', 'acknowledged', 'succeeded', 'failed', 'timed_out', 'expired', 'cancelled', 'refused')),
    detail          TEXT NOT NULL DEFAULT '',  -- why it was cancelled, expired or timed out
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT,                    -- NULL: owed for ever (a revert)
    lease_until     BIGINT,                    -- until when the last delivery is waited for
    deliveries      BIGINT NOT NULL DEFAULT 0,
    delivered_at    BIGINT,                    -- the first time
    acknowledged_at BIGINT,
    finished_at     BIGINT,
    UNIQUE (agent_id, seq)
);
CREATE INDEX commands_owed ON commands (agent_id, seq) WHERE state IN ('queued', 'delivered');
CREATE INDEX commands_expiry ON commands (expires_at) WHERE state IN ('queued', 'delivered') AND expires_at IS NOT NULL;
CREATE INDEX commands_unanswered ON commands (acknowledged_at) WHERE state = 'acknowledged';
CREATE INDEX commands_effect ON commands (effect_id);
CREATE INDEX commands_response ON commands (response_id);

CREATE TABLE results (
    command_id  TEXT PRIMARY KEY,
    outcome     TEXT NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'timed_out', 'refused')),
    exit_code   BIGINT,
    output      TEXT NOT NULL,
    verified    BOOLEAN,
    message     TEXT NOT NULL,
    started_at  BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BYTEA NOT NULL,                 -- SHA-256 of the secret
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'analyst', 'engineer', 'admin', 'ingest')),
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);

CREATE TABLE idempotency (
    principal   TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,                -- SHA-256 of method, path and body
    status      BIGINT NOT NULL,
    body        TEXT NOT NULL,                 -- the answer, without secrets
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

CREATE TABLE audit (
    seq     BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    verb    TEXT NOT NULL,
    noun    TEXT NOT NULL,
    noun_id TEXT NOT NULL,
    detail  TEXT NOT NULL,
    hash    BYTEA NOT NULL                     -- over the previous hash and this row
);
CREATE INDEX audit_noun ON audit (noun, noun_id);

-- One row: the end of the audit chain. Writers of a PostgreSQL ledger queue up here, which makes seq commit-ordered.
CREATE TABLE audit_head (
    id   BIGINT PRIMARY KEY,
    seq  BIGINT NOT NULL,
    hash BYTEA NOT NULL
);
