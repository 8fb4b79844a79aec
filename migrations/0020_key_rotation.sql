-- Statements about the manager's keys: each names the keys that sign from now on, and is signed by a key that agents trusted
-- before. All are kept, so that an agent that was away for the whole of a rotation still learns the new key.
CREATE TABLE key_statements (
    number    BIGINT PRIMARY KEY,   -- strictly rising, from 1
    token     TEXT,                 -- compact JWS; NULL: a key was adopted without the old one, so no agent can learn it
    signed_by TEXT NOT NULL,        -- id of the key that signed it
    keys      TEXT NOT NULL,        -- JSON, a list: the keys that it names, in the order in which they came
    recovery  TEXT,                 -- the recovery key that agents have from then on, Ed25519, base64url
    revocation BIGINT,              -- the number of the revocation, if the recovery key signed it
    made_at   BIGINT NOT NULL,
    made_by   TEXT NOT NULL
);

-- The last statement that the agent has made durable, as far as it was heard of; the rest is in memory.
ALTER TABLE agents ADD COLUMN key_number BIGINT NOT NULL DEFAULT 0;
