-- Alerts of keys that are bound to one pipeline are told from those of all other keys, whatever ids they have.
ALTER TABLE api_keys ADD COLUMN pipeline TEXT;   -- the pipeline that the key speaks for; NULL: none in particular
