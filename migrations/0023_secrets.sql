-- Secrets that policies refer to. The key that sealed them is not in the database.

CREATE TABLE secrets (
    name       TEXT PRIMARY KEY,
    actions    TEXT NOT NULL,     -- JSON, a list: the actions that may receive it
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    sealed     BYTEA NOT NULL
);

-- Keys of senders that sign their alerts instead of sending the key.
ALTER TABLE api_keys ADD COLUMN is_webhook BOOLEAN NOT NULL DEFAULT FALSE;
