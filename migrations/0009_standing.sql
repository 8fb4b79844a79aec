-- SQLite took the index on states where one on times was meant: to see when the next response ends it read everything that
-- is active, at each look. States without an end are what is asked for by state alone.
DROP INDEX responses_state;
CREATE INDEX responses_active ON responses (id) WHERE state = 'active';

-- What a policy has in force against a target or waits for, without what ever was.
CREATE INDEX responses_live ON responses (policy, target_value) WHERE state IN ('active', 'awaiting_approval');

-- What is held, in the order in which all of it is looked through, without what ever was.
CREATE INDEX holds_live ON holds (response_id, effect_id) WHERE released_at IS NULL;

-- What is owed or under way about an effect, without all that ever was.
CREATE INDEX commands_open ON commands (effect_id) WHERE state IN ('queued', 'delivered', 'acknowledged');

-- What an agent holds or should hold: without this, whoever connects had everything read that was ever done there.
CREATE INDEX effects_standing ON effects (agent_id, id) WHERE desired = 'in_force' OR actual IN ('in_force', 'drifted');
