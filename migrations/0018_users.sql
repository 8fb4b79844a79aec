-- People: who may log in, their sessions, and the keys that belong to them. A deleted user's row stays, so that its name is
-- never given to another person.

CREATE TABLE users (
    name                 TEXT PRIMARY KEY,
    role                 TEXT NOT NULL CHECK (role IN ('viewer', 'analyst', 'engineer', 'admin')),
    version              BIGINT NOT NULL,         -- counts the changes by administrators, for If-Match
    password             TEXT NOT NULL,           -- argon2id, as a PHC text
    must_change_password BOOLEAN NOT NULL,        -- the password is a temporary one
    totp_secret          BYTEA,                   -- of one-time codes; NULL: none are needed
    totp_offered         BYTEA,                   -- a secret that was shown and not confirmed yet
    totp_step            BIGINT,                  -- the last time step whose code was used
    created_at           BIGINT NOT NULL,
    created_by           TEXT NOT NULL,
    changed_at           BIGINT NOT NULL,
    disabled_at          BIGINT,
    deleted_at           BIGINT,                  -- disabled for ever
    last_login_at        BIGINT,
    last_login_from      TEXT,
    known_networks       TEXT NOT NULL            -- JSON, a list: the networks of the last logins, newest first
);

CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    user_name  TEXT NOT NULL,
    hash       BYTEA NOT NULL,                    -- SHA-256 of the current refresh token's secret
    created_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL,                   -- when it was last refreshed
    expires_at BIGINT NOT NULL,                   -- however often it is refreshed
    address    TEXT NOT NULL,                     -- where the login came from
    ended_at   BIGINT
);
CREATE INDEX sessions_live ON sessions (user_name) WHERE ended_at IS NULL;
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Refresh tokens that were used: one that comes again was copied.
CREATE TABLE used_refresh_tokens (
    hash       BYTEA PRIMARY KEY,
    session_id TEXT NOT NULL,
    used_at    BIGINT NOT NULL
);
CREATE INDEX used_refresh_tokens_session ON used_refresh_tokens (session_id);

ALTER TABLE api_keys ADD COLUMN user_name TEXT;      -- the person whose key it is; NULL: a service key
ALTER TABLE api_keys ADD COLUMN last_used_at BIGINT; -- to the minute; NULL: never
ALTER TABLE api_keys ADD COLUMN last_used_from TEXT; -- the address of that request
