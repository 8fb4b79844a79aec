-- What goes first to an agent: 0 a person asked for it, 1 a revert, 2 an apply of a policy. All that is owed about one effect
-- has the rank of what goes first of it.
ALTER TABLE commands ADD COLUMN rank BIGINT NOT NULL DEFAULT 2;
UPDATE commands SET rank = 1 WHERE state IN ('queued', 'delivered') AND effect_id IN (
    SELECT owed.effect_id FROM commands AS owed WHERE owed.op = 'revert' AND owed.state IN ('queued', 'delivered'));
UPDATE commands SET rank = 0 WHERE state IN ('queued', 'delivered') AND effect_id IN (
    SELECT owed.effect_id FROM commands AS owed JOIN responses ON responses.id = owed.response_id
    WHERE owed.op = 'apply' AND owed.state IN ('queued', 'delivered') AND responses.policy IS NULL);
DROP INDEX commands_owed;
CREATE INDEX commands_owed ON commands (agent_id, rank, seq) WHERE state IN ('queued', 'delivered');
