-- Forwarders, as they report themselves each minute: one that falls silent is told of.

CREATE TABLE forwarders (
    name          TEXT PRIMARY KEY,  -- of the Wazuh manager
    principal     TEXT NOT NULL,     -- whose key it has
    version       TEXT NOT NULL,
    heard_at      BIGINT NOT NULL,
    behind_bytes  BIGINT NOT NULL,   -- not forwarded yet
    last_alert_at BIGINT,            -- time of the last alert that was taken
    is_silent     BOOLEAN NOT NULL   -- whether that was told
);
