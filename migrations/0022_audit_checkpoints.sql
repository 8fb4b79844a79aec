-- Signed statements of where the audit log stood: at most one a minute, and only when it has grown. The manager sends each one
-- elsewhere too, so that a tail that is cut off here is missed there.
CREATE TABLE audit_checkpoints (
    seq   BIGINT PRIMARY KEY,   -- the last entry that it covers
    at    BIGINT NOT NULL,
    token TEXT NOT NULL         -- compact JWS, signed with a signing key
);
