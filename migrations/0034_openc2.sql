-- What producers of OpenC2 call a response: the number that they were answered, and their own id of the command.

CREATE TABLE openc2_rules (
    number      BIGINT PRIMARY KEY,   -- never given twice
    principal   TEXT NOT NULL,        -- whose command it was
    command_id  TEXT,                 -- NULL: it had none
    response_id TEXT NOT NULL
);
CREATE UNIQUE INDEX openc2_rules_response ON openc2_rules (response_id);
CREATE UNIQUE INDEX openc2_rules_command ON openc2_rules (principal, command_id) WHERE command_id IS NOT NULL;
