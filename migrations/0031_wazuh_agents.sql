-- What Wazuh managers say of their agents, and what agents said of themselves when they enrolled.

CREATE TABLE wazuh_agents (
    manager TEXT NOT NULL,  -- name of the Wazuh manager
    id      TEXT NOT NULL,  -- of at least three digits
    name    TEXT NOT NULL,
    PRIMARY KEY (manager, id)
);

-- A claim is over when the agent has the number as a label, or is revoked.
CREATE TABLE wazuh_claims (
    agent_id TEXT PRIMARY KEY,
    number   TEXT NOT NULL,  -- its id in Wazuh, as it says
    name     TEXT NOT NULL,  -- its name in Wazuh, as it says
    doubt    TEXT            -- why it is not believed; absent while no list of a Wazuh manager is there
);
