-- The feed of events: rows in the order of the commits, numbered without a gap. Retention removes the oldest.

CREATE TABLE events (
    seq          BIGINT PRIMARY KEY,  -- counts up by one; the head of the audit chain holds the last one
    at           BIGINT NOT NULL,
    type         TEXT NOT NULL,       -- such as response.created
    subject      TEXT NOT NULL,       -- kind and id of the object, such as response/ID
    actor        TEXT NOT NULL,       -- as in the audit log
    detail       TEXT NOT NULL,       -- reason or further detail, for people; bounded
    alert_id     TEXT,
    response_id  TEXT,
    command_id   TEXT,
    effect_id    TEXT,
    agent_id     TEXT,
    policy       TEXT,
    action       TEXT,
    target_kind  TEXT,
    target_value TEXT
);

-- Which agents were connected when the manager stopped.
CREATE INDEX events_presence ON events (agent_id, seq) WHERE type IN ('agent.connected', 'agent.away');

ALTER TABLE audit_head ADD COLUMN events BIGINT NOT NULL DEFAULT 0;  -- number of the last event
