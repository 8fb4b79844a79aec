-- SQLite takes the index on states where it could have one on times: to see when the next response ends it read everything
-- that is active, at each look. With the state in front, the index is the better one in its eyes too.
DROP INDEX responses_due;
CREATE INDEX responses_due ON responses (state, until) WHERE state = 'active' AND until IS NOT NULL;
DROP INDEX responses_answer;
CREATE INDEX responses_answer ON responses (state, answer_by) WHERE state = 'awaiting_approval' AND answer_by IS NOT NULL;
DROP INDEX responses_confirm;
CREATE INDEX responses_confirm ON responses (state, confirm_by) WHERE state = 'active' AND confirm_by IS NOT NULL;

-- What is held, without what ever was.
DROP INDEX holds_effect;
CREATE INDEX holds_effect ON holds (effect_id, response_id) WHERE released_at IS NULL;

-- What is owed or under way about an effect, without all that ever was.
CREATE INDEX commands_open ON commands (effect_id) WHERE state IN ('queued', 'delivered', 'acknowledged');

-- What an agent holds or should hold: without this, whoever connects had everything read that was ever done there.
CREATE INDEX effects_standing ON effects (agent_id, id) WHERE desired = 'in_force' OR actual IN ('in_force', 'drifted');
