-- Alerts that were not taken in, with the reason, until they are sent again or a week has passed.

CREATE TABLE rejected_alerts (
    id        TEXT PRIMARY KEY,       -- its time is when it was first received
    digest    BYTEA NOT NULL UNIQUE,  -- of the pipeline and the bytes: what comes again counts up
    sender    TEXT NOT NULL,          -- principal, as in the audit log
    pipeline  TEXT,                   -- that of the sender's key
    last_at   BIGINT NOT NULL,        -- when it was last received
    count     BIGINT NOT NULL,        -- how often
    errors    TEXT NOT NULL,          -- the faults, as JSON
    size      BIGINT NOT NULL,        -- bytes, as they came
    is_kept   BOOLEAN NOT NULL,       -- whether the bytes are kept
    raw       BYTEA NOT NULL          -- a codec byte, then the bytes; empty where they are not kept
);

CREATE INDEX rejected_alerts_last ON rejected_alerts (last_at);
CREATE INDEX rejected_alerts_sender ON rejected_alerts (sender, last_at);
