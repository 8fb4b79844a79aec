-- The pipeline's own id of an alert, such as Wazuh's `id`, to find it by. NULL: stored by an earlier version and not filled in yet;
-- empty: it cannot be read from the alert.
ALTER TABLE alerts ADD COLUMN pipeline_id TEXT;
CREATE INDEX alerts_pipeline_id ON alerts (pipeline_id) WHERE pipeline_id IS NOT NULL;
-- What is still to be filled in; empty once that is done.
CREATE INDEX alerts_unnamed ON alerts (id) WHERE pipeline_id IS NULL;

-- Orders of this manager that an agent did not believe.
ALTER TABLE agents ADD COLUMN rejected_orders BIGINT NOT NULL DEFAULT 0; -- how many
ALTER TABLE agents ADD COLUMN rejected_reason TEXT;                      -- why the last one, in a word
ALTER TABLE agents ADD COLUMN rejected_at BIGINT;                        -- when the agent last said so
