-- Entries of the audit log that can name a person are hashed by commitments to their texts, and not as they are, so that a person
-- can be forgotten (docs/decisions/0046-people-can-be-forgotten.md). NULL: the entry is hashed as it is.
ALTER TABLE audit ADD COLUMN commitments BYTEA; -- for actor, noun_id and detail each the salt, or the commitment if it was removed

-- What is still to be forgotten of one person.
CREATE INDEX audit_people ON audit (actor, seq) WHERE commitments IS NOT NULL;
CREATE INDEX openc2_rules_principal ON openc2_rules (principal);
