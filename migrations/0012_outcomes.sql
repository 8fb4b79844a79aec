-- What became of each response on each agent, kept where results and reports are written anyway.

ALTER TABLE effects ADD COLUMN last_apply TEXT CHECK (last_apply IN
    ('verified', 'unverified', 'observed', 'failed', 'refused', 'timed_out', 'expired', 'cancelled'));
                                                          -- what the newest apply that is over came to; NULL: none is over yet
ALTER TABLE effects ADD COLUMN last_reason TEXT NOT NULL DEFAULT ''; -- the same in the words of the agent or the manager
ALTER TABLE effects ADD COLUMN in_force_at BIGINT;        -- when it first came into force since it is wanted; NULL: not yet
ALTER TABLE effects ADD COLUMN wanted_at BIGINT NOT NULL DEFAULT 0; -- since when it is, or was last, wanted
ALTER TABLE holds ADD COLUMN left_as TEXT CHECK (left_as IN
    ('in_force', 'withdrawn', 'observed', 'failed', 'refused', 'timed_out', 'expired', 'cancelled'));
                                                          -- how the effect stood when it was let go of; NULL: held, or not kept
ALTER TABLE holds ADD COLUMN left_reason TEXT;            -- the effect's last_reason at that time
ALTER TABLE results ADD COLUMN observed BOOLEAN NOT NULL DEFAULT FALSE; -- the agent only said what it would have done

UPDATE results SET observed = TRUE WHERE message LIKE 'observe: would have run%';
UPDATE effects SET in_force_at = changed_at WHERE actual = 'in_force' OR (desired = 'absent' AND actual = 'drifted');
UPDATE effects SET wanted_at = created_at;
UPDATE effects SET last_apply = (
    SELECT CASE
            WHEN commands.state <> 'succeeded' THEN commands.state
            WHEN results.observed = TRUE THEN 'observed'
            WHEN results.verified = TRUE THEN 'verified'
            WHEN results.verified = FALSE THEN 'failed'
            ELSE 'unverified' END
        FROM commands LEFT JOIN results ON results.command_id = commands.id
        WHERE commands.effect_id = effects.id AND commands.op = 'apply' AND commands.one_shot = FALSE
            AND commands.state NOT IN ('queued', 'delivered', 'acknowledged')
        ORDER BY commands.seq DESC LIMIT 1)
    WHERE desired = 'in_force';
UPDATE effects SET last_reason = COALESCE((
    SELECT COALESCE(results.message, commands.detail)
        FROM commands LEFT JOIN results ON results.command_id = commands.id
        WHERE commands.effect_id = effects.id AND commands.op = 'apply' AND commands.one_shot = FALSE
            AND commands.state NOT IN ('queued', 'delivered', 'acknowledged')
        ORDER BY commands.seq DESC LIMIT 1), '')
    WHERE desired = 'in_force';
UPDATE effects SET in_force_at = changed_at WHERE in_force_at IS NULL AND desired = 'in_force'
    AND actual = 'unknown' AND last_apply = 'unverified';
