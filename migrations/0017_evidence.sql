-- What an agent found before it acted: the process that it killed, the file that it moved, what an isolated host talked to.
-- Later nobody can look any more.

ALTER TABLE results ADD COLUMN evidence TEXT; -- JSON, an object with a kind, at most 8 KiB; NULL: the agent sent none
