-- The switch that stops everything new; one row. (FREEZE is a word of PostgreSQL's own.)
CREATE TABLE freezes (
    id         BIGINT PRIMARY KEY,
    frozen     BOOLEAN NOT NULL,
    reason     TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL
);
-- Lifting by target, and later the counting of responses per policy and time.
CREATE INDEX responses_policy ON responses (policy, created_at);
