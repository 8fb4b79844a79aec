-- Feeds: lists of addresses in force that firewalls and bouncers fetch.

CREATE TABLE feeds (
    name       TEXT PRIMARY KEY,
    version    BIGINT NOT NULL,
    document   TEXT NOT NULL,        -- the feed as JSON
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    seal       BYTEA
);

-- The list of a feed as it was last worked out.
CREATE TABLE feed_lists (
    feed       TEXT PRIMARY KEY,
    revision   BIGINT NOT NULL,      -- rises with every change of the list
    event      BIGINT NOT NULL,      -- number of the last event that its last change takes into account
    floor      BIGINT NOT NULL,      -- removals up to this revision are not kept any more
    over_since BIGINT                -- since when there is more to list than the feed may hold
);

CREATE TABLE feed_entries (
    feed       TEXT NOT NULL,
    value      TEXT NOT NULL,        -- an address or a network, in canonical form
    policy     TEXT,                 -- of the longest hold; NULL: by hand
    until      BIGINT,               -- NULL: until lifted by hand
    revision   BIGINT NOT NULL,      -- of the list with its last change
    changed_at BIGINT NOT NULL,
    first_at   BIGINT NOT NULL,      -- when it was first listed
    is_listed  BOOLEAN NOT NULL,     -- FALSE: removed; kept for consumers that have it still
    PRIMARY KEY (feed, value)
);

-- Who fetches a feed. Keys of the same name are one consumer.
CREATE TABLE feed_consumers (
    feed         TEXT NOT NULL,
    consumer     TEXT NOT NULL,
    first_at     BIGINT NOT NULL,
    last_at      BIGINT NOT NULL,
    address      TEXT NOT NULL,
    revision     BIGINT NOT NULL,    -- of the list that it was last given
    before       BIGINT NOT NULL,    -- of the list that it had been given before that
    event        BIGINT NOT NULL,    -- number of the last event that the list takes into account
    silent_since BIGINT,             -- since when it is an incident that it does not fetch
    metrics      TEXT,               -- what it last said of itself, as JSON
    metrics_at   BIGINT,
    PRIMARY KEY (feed, consumer)
);
