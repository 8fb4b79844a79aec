-- Scopes: what a person or a key may do at most. Responses by hand have guardrails of their own.

ALTER TABLE users ADD COLUMN scope TEXT;             -- JSON; NULL: not limited
ALTER TABLE api_keys ADD COLUMN scope TEXT;          -- JSON; NULL: not limited
ALTER TABLE responses ADD COLUMN break_glass TEXT;   -- the principal that acted without the second person

-- Responses by hand of one principal within an hour, and the approvals.
CREATE INDEX responses_by_hand ON responses (requested_by, created_at) WHERE policy IS NULL;
CREATE INDEX answers_principal ON answers (principal, at);
