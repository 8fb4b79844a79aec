-- Agents replace their own key: which one was before, so that a copy of it is recognised, and since when the present one counts.
ALTER TABLE agents ADD COLUMN previous_key TEXT;    -- Ed25519, base64url; NULL: the key was never replaced
ALTER TABLE agents ADD COLUMN key_since BIGINT;     -- when public_key became the agent's key
ALTER TABLE agents ADD COLUMN key_ordered_at BIGINT; -- when an operator asked for another key; NULL: not since the last one
UPDATE agents SET key_since = enrolled_at;
