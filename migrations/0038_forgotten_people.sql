-- Entries of the audit log about people are hashed with a salt, and not as they are. A person who is forgotten loses texts and salt;
-- the commitment that the hash covers stays (docs/decisions/0046-people-can-be-forgotten.md).
ALTER TABLE audit ADD COLUMN salt BYTEA;        -- of an entry about a person that has its texts
ALTER TABLE audit ADD COLUMN commitment BYTEA;  -- of an entry whose texts were removed
-- What is still to be forgotten of one person.
CREATE INDEX audit_people ON audit (actor, seq) WHERE salt IS NOT NULL;
CREATE INDEX audit_about_people ON audit (noun_id, seq) WHERE salt IS NOT NULL AND noun = 'user';

-- The name that a person gets who is being forgotten, until the last row has it.
ALTER TABLE users ADD COLUMN pseudonym TEXT;
-- Keyed hash of the name that the person had, which is not given again.
ALTER TABLE users ADD COLUMN former_name BYTEA;
CREATE UNIQUE INDEX users_former_name ON users (former_name) WHERE former_name IS NOT NULL;
