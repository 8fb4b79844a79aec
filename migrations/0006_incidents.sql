-- What is wrong with an agent's identity, if anything: two hosts speak with one key.
ALTER TABLE agents ADD COLUMN incident TEXT;
