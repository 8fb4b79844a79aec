-- A host whose clock is off is served by the manager's clock, and shown: what it holds ends on time, but its logs do not agree with
-- anybody's.
ALTER TABLE agents ADD COLUMN clock_skew_seconds BIGINT;  -- by how much its clock was ahead when it last told; negative: behind; 0: no
                                                         -- more than clocks may differ; NULL: it has not told, as older agents do not
