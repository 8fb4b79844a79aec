-- Seals of the rows that grant power, by a key that is not in the database, and the record of all sets of such rows.

CREATE TABLE seals (
    id    BIGINT PRIMARY KEY,
    state BYTEA NOT NULL          -- encrypted: for each set the number of its rows, and a digest of their seals
);

ALTER TABLE api_keys ADD COLUMN seal BYTEA;
ALTER TABLE users ADD COLUMN seal BYTEA;
ALTER TABLE identities ADD COLUMN seal BYTEA;
ALTER TABLE sessions ADD COLUMN seal BYTEA;
ALTER TABLE policies ADD COLUMN seal BYTEA;
ALTER TABLE policy_versions ADD COLUMN seal BYTEA;
ALTER TABLE actions ADD COLUMN seal BYTEA;
ALTER TABLE protected_entries ADD COLUMN seal BYTEA;
ALTER TABLE agents ADD COLUMN seal BYTEA;
ALTER TABLE freezes ADD COLUMN seal BYTEA;
ALTER TABLE secrets ADD COLUMN seal BYTEA;
ALTER TABLE enrollment_tokens ADD COLUMN seal BYTEA;
ALTER TABLE commands ADD COLUMN seal BYTEA;
ALTER TABLE responses ADD COLUMN seal BYTEA;
ALTER TABLE effects ADD COLUMN seal BYTEA;
ALTER TABLE answers ADD COLUMN seal BYTEA;
