-- What goes first to an agent: 0 a person asked for it, 1 a revert, 2 an apply of a policy. An earlier command of an effect
-- has the rank of a later one.
ALTER TABLE commands ADD COLUMN rank BIGINT NOT NULL DEFAULT 2;
UPDATE commands SET rank = 1 WHERE state IN ('queued', 'delivered') AND EXISTS (
    SELECT 1 FROM commands AS later WHERE later.effect_id = commands.effect_id AND later.seq >= commands.seq
        AND later.op = 'revert' AND later.state IN ('queued', 'delivered'));
UPDATE commands SET rank = 0 WHERE state IN ('queued', 'delivered') AND EXISTS (
    SELECT 1 FROM commands AS later JOIN responses ON responses.id = later.response_id
    WHERE later.effect_id = commands.effect_id AND later.seq >= commands.seq
        AND responses.policy IS NULL AND later.state IN ('queued', 'delivered'));
DROP INDEX commands_owed;
CREATE INDEX commands_owed ON commands (agent_id, rank, seq) WHERE state IN ('queued', 'delivered');
