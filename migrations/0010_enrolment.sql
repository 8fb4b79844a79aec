-- A name is one host's in any case: WEB1 is web1.
CREATE INDEX agents_lower_name ON agents (lower(name)) WHERE revoked_at IS NULL;
