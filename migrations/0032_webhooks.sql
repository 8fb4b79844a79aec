-- Webhooks: who is sent the events of the feed, how far each one has come, and what it has not taken.

CREATE TABLE webhooks (
    name            TEXT PRIMARY KEY,
    version         BIGINT NOT NULL,
    document        TEXT NOT NULL,   -- JSON: which events and fields go out
    place           TEXT NOT NULL,   -- scheme and host of the URL, to be shown
    url             BYTEA NOT NULL,  -- sealed: its path may be what lets a caller in
    secret          BYTEA NOT NULL,  -- sealed
    previous_secret BYTEA,           -- sealed
    previous_until  BIGINT,          -- until when it signs too
    created_at      BIGINT NOT NULL,
    created_by      TEXT NOT NULL,
    changed_at      BIGINT NOT NULL,
    changed_by      TEXT NOT NULL,
    agreed_by       TEXT,            -- user who agreed to decide by links in its messages
    seal            BYTEA
);

CREATE TABLE webhook_states (
    webhook      TEXT PRIMARY KEY,
    mark         BIGINT NOT NULL,   -- number of the last event that was looked at
    failures     BIGINT NOT NULL,   -- failed requests since the last one that succeeded
    is_failing   BOOLEAN NOT NULL,  -- whether that was announced
    delivered    BIGINT NOT NULL,   -- messages taken, ever
    missed       BIGINT NOT NULL,   -- events that were removed before they could be sent, ever
    delivered_at BIGINT,
    failed_at    BIGINT,
    fault        TEXT               -- why the last request failed
);

-- Messages that were not taken: each is tried again until three days after its event, and then kept to be sent by hand.
CREATE TABLE webhook_messages (
    webhook  TEXT NOT NULL,
    seq      BIGINT NOT NULL,   -- number of the event
    at       BIGINT NOT NULL,   -- time of the event
    type     TEXT NOT NULL,
    body     TEXT NOT NULL,
    tries    BIGINT NOT NULL,
    next_at  BIGINT,            -- absent: given up
    fault    TEXT NOT NULL,     -- why the last try failed
    PRIMARY KEY (webhook, seq)
);

CREATE INDEX webhook_messages_next ON webhook_messages (webhook, next_at);

-- What a response belongs to in a system elsewhere, and how far it may be passed on where that is not as its policy says.
ALTER TABLE responses ADD COLUMN case_ref TEXT;
ALTER TABLE responses ADD COLUMN tlp TEXT;
CREATE INDEX responses_case ON responses (case_ref) WHERE case_ref IS NOT NULL;
