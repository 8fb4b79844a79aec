-- Several managers on one PostgreSQL database. On SQLite one manager runs, and of this only the epochs are used.

-- The number of the last change of configuration, and of the last one by which alerts are decided (policies, actions, agents,
-- protected entries). They stand at the head of the audit chain, because each transaction that changes the ledger reads it.
ALTER TABLE audit_head ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE audit_head ADD COLUMN deciding_epoch BIGINT NOT NULL DEFAULT 0;

-- What each change of configuration was about, for the caches of the other managers. Kept for an hour: a manager that is
-- further behind reads everything.
CREATE TABLE changes (
    epoch BIGINT NOT NULL,
    cache TEXT   NOT NULL,          -- which of a manager's caches it makes stale
    item  TEXT   NOT NULL,          -- the id of the one row that changed; empty: any
    at    BIGINT NOT NULL,
    PRIMARY KEY (epoch, cache, item)
);

-- One row for each run of a manager (`id` and `incarnation` are equal). The row that a manager of an earlier version used is
-- called `manager`.
ALTER TABLE nodes ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;       -- the last change of configuration that is in force there
ALTER TABLE nodes ADD COLUMN version TEXT NOT NULL DEFAULT '';      -- of the program
ALTER TABLE nodes ADD COLUMN clock_off BIGINT NOT NULL DEFAULT 0;   -- its clock minus the database's, in milliseconds
-- A manager of an earlier version finds another run here, and writes nothing any more.
UPDATE audit_head SET holder = 'several managers' WHERE holder IS NOT NULL;

-- Which manager does what only one at a time does. The fence is checked in each transaction of the duty.
CREATE TABLE duties (
    name  TEXT   PRIMARY KEY,
    owner TEXT   NOT NULL,          -- a run of a manager
    fence BIGINT NOT NULL,          -- grows with each change of the owner
    until BIGINT NOT NULL           -- until when the owner has it, by the database's clock
);

-- Which manager an agent talks to. A row is written when a stream begins or ends, and when a run of an agent polls for the
-- first time; never at each message.
CREATE TABLE presence (
    agent_id  TEXT   PRIMARY KEY REFERENCES agents (id),
    node      TEXT   NOT NULL,      -- a run of a manager; empty: the agent has left
    number    BIGINT NOT NULL,      -- of the connection; what comes by an older one is refused
    transport TEXT   NOT NULL,      -- stream or poll
    runs      TEXT   NOT NULL,      -- the last runs of the agent, JSON: a run that comes back proves a copy
    since     BIGINT NOT NULL
);
CREATE INDEX presence_of_node ON presence (node);

-- The number of the audit entry by which a command was last queued for an agent. It grows in the order of the commits, so
-- that other managers find what is new. Only written on PostgreSQL.
ALTER TABLE agents ADD COLUMN queued_entry BIGINT;
CREATE INDEX agents_queued ON agents (queued_entry) WHERE queued_entry IS NOT NULL;
