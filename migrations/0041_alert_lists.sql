-- Lists of alerts without reading what a filter leaves out.

-- An alert is astray if its own time is more than five seconds before or after its receipt. All others are found by their id when
-- a list asks for a time: an id begins with the time of receipt.
ALTER TABLE alerts ADD COLUMN is_astray BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE alerts SET is_astray = TRUE WHERE substr(id, 1, 13) < substr('0123456789abcdef', 1 + CAST((time - 5000) / 17592186044416 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 1099511627776 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 68719476736 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 4294967296 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 268435456 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 16777216 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 1048576 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 65536 % 16 AS INTEGER), 1)
    || '-'
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 4096 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 256 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 16 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time - 5000) / 1 % 16 AS INTEGER), 1)
    OR substr(id, 1, 13) > substr('0123456789abcdef', 1 + CAST((time + 5000) / 17592186044416 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 1099511627776 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 68719476736 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 4294967296 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 268435456 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 16777216 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 1048576 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 65536 % 16 AS INTEGER), 1)
    || '-'
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 4096 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 256 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 16 % 16 AS INTEGER), 1)
    || substr('0123456789abcdef', 1 + CAST((time + 5000) / 1 % 16 AS INTEGER), 1);
-- With all that a list asks for, so that only the alerts of a page are read.
CREATE INDEX alerts_astray ON alerts (id, time, rule_level, rule_id, agent_id, is_astray) WHERE is_astray = TRUE;
CREATE INDEX alerts_astray_time ON alerts (time, id, rule_level, rule_id, agent_id, is_astray) WHERE is_astray = TRUE;

-- The first 13 characters of an id are the millisecond of receipt: as the last column they need a third of the space of an id.
CREATE INDEX alerts_kind ON alerts (rule_level, rule_id, is_astray, substr(id, 1, 13));
CREATE INDEX alerts_agent ON alerts (agent_id, rule_level, rule_id, is_astray, substr(id, 1, 13)) WHERE agent_id IS NOT NULL;
