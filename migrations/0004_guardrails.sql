-- What guardrails have to remember.

-- Alerts that a policy with a threshold has seen and not yet answered.
CREATE TABLE sightings (
    policy   TEXT NOT NULL,
    counted  TEXT NOT NULL,                    -- the value they are counted by; empty: together
    alert_id TEXT NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (policy, counted, alert_id)
);
CREATE INDEX sightings_age ON sightings (at);

-- How often a policy has responded to a target.
CREATE TABLE offences (
    policy       TEXT NOT NULL,
    target_kind  TEXT NOT NULL,
    target_value TEXT NOT NULL,
    count        BIGINT NOT NULL,
    last_at      BIGINT NOT NULL,
    PRIMARY KEY (policy, target_kind, target_value)
);

-- What people said to a response.
CREATE TABLE answers (
    response_id TEXT NOT NULL,
    principal   TEXT NOT NULL,
    answer      TEXT NOT NULL CHECK (answer IN ('approve', 'reject', 'confirm')),
    reason      TEXT NOT NULL,
    at          BIGINT NOT NULL,
    PRIMARY KEY (response_id, principal, answer)
);

ALTER TABLE responses ADD COLUMN quorum BIGINT;           -- how many people have to approve
ALTER TABLE responses ADD COLUMN answer_by BIGINT;        -- until when they are waited for
ALTER TABLE responses ADD COLUMN on_silence TEXT;         -- reject or enforce
ALTER TABLE responses ADD COLUMN duration_millis BIGINT;  -- how long it lasts once it is approved
ALTER TABLE responses ADD COLUMN confirm_by BIGINT;       -- it is undone then unless somebody confirms it
CREATE INDEX responses_answer ON responses (answer_by) WHERE state = 'awaiting_approval';
CREATE INDEX responses_confirm ON responses (confirm_by) WHERE state = 'active' AND confirm_by IS NOT NULL;
CREATE INDEX responses_target ON responses (policy, target_value, created_at);
