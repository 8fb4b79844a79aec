-- Agents on which a policy's breaker has stopped it: one agent's failures stop the policy on that agent only.
CREATE TABLE agent_breakers (
    policy     TEXT NOT NULL,
    agent_id   TEXT NOT NULL,
    is_open    BOOLEAN NOT NULL,               -- whether the policy is stopped on this agent
    reason     TEXT NOT NULL,                  -- the ratio that stopped it, or why it was reset
    changed_at BIGINT NOT NULL,                -- outcomes before a reset count no more
    changed_by TEXT NOT NULL,                  -- who stopped or reset it
    PRIMARY KEY (policy, agent_id)
);
CREATE INDEX agent_breakers_open ON agent_breakers (policy) WHERE is_open = TRUE;
