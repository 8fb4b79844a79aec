-- Tokens that stand for an API key, for clients of Wazuh's API. They are not stored: a token carries the generation of the key
-- by which it was made, and a logout begins the next one.
ALTER TABLE api_keys ADD COLUMN token_generation BIGINT NOT NULL DEFAULT 0;
