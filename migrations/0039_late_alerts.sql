-- Alerts that came later than max_age and are not in the audit log yet, counted in the transaction that stores them.

CREATE TABLE late_alerts (
    pipeline   TEXT PRIMARY KEY,  -- or 'others', where there are too many
    count      BIGINT NOT NULL,
    first_time BIGINT NOT NULL,   -- event time of the earliest one
    last_time  BIGINT NOT NULL,   -- event time of the latest one
    seen_at    BIGINT NOT NULL    -- when the last one came
);
