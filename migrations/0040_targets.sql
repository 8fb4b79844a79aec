-- One row per target, newest first: the page skips from target to target without reading all their effects.
CREATE INDEX effects_newest ON effects (wanted_at, target_kind, target_value)
    WHERE desired = 'in_force' OR actual IN ('in_force', 'drifted');

-- What is wanted or in force of one target, without what ever was.
CREATE INDEX effects_target ON effects (target_value, target_kind)
    WHERE desired = 'in_force' OR actual IN ('in_force', 'drifted');

-- The history of one target. The index on policy and target does not find responses of all policies and of people.
CREATE INDEX responses_of_target ON responses (target_value, id) WHERE target_value IS NOT NULL;
