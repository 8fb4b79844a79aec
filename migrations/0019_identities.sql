-- Which person a subject of an OpenID provider is. The issuer is kept and not the provider's name, so that a name in the
-- configuration that comes to mean another provider lets no stranger in.

CREATE TABLE identities (
    issuer           TEXT NOT NULL,
    subject          TEXT NOT NULL,           -- the person's id at the provider
    user_name        TEXT NOT NULL,
    role_from_groups BOOLEAN NOT NULL,        -- each login sets the user's role by the groups
    created_at       BIGINT NOT NULL,
    created_by       TEXT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE UNIQUE INDEX identities_user ON identities (user_name, issuer);

ALTER TABLE sessions ADD COLUMN issuer TEXT; -- the provider that proved the login; NULL: a password
