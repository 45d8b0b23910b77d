-- The system of record. `tallies` always equals what GROUP BY over `votes` gives, because one statement
-- (count in queries.sql) changes both.

CREATE TABLE polls (
    slug      text PRIMARY KEY CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    question  text NOT NULL,
    options   jsonb NOT NULL,                 -- [{"key": "a", "label": "Cats"}, ...]
    revision  bigint NOT NULL DEFAULT 1,      -- grows with every change that a viewer can see
    entry_ms  bigint NOT NULL DEFAULT 0,      -- the newest entry id counted, at which a new stream must start
    entry_seq bigint NOT NULL DEFAULT 0,
    created   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);                     -- updated with each batch: room for HOT updates

CREATE TABLE votes (
    poll      text NOT NULL,                  -- no foreign key: the worker checks it, which is faster
    voter     bytea NOT NULL,                 -- 16 bytes, a keyed hash
    choice    text NOT NULL,
    entry_ms  bigint NOT NULL,                -- the id that Redis gave the entry: the order of votes
    entry_seq bigint NOT NULL,
    PRIMARY KEY (poll, voter)
) WITH (fillfactor = 90);

CREATE TABLE tallies (
    poll   text NOT NULL REFERENCES polls (slug),
    choice text NOT NULL,
    votes  bigint NOT NULL,
    PRIMARY KEY (poll, choice)
) WITH (fillfactor = 50);

CREATE TABLE dead_letters (
    entry_ms  numeric(20) NOT NULL,           -- Redis ids are unsigned: wider than bigint
    entry_seq numeric(20) NOT NULL,
    reason    text NOT NULL,
    fields    text NOT NULL,                  -- of the entry, escaped and cut
    arrived   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (entry_ms, entry_seq)
);

CREATE TABLE workers (
    name    text PRIMARY KEY,
    seen    timestamptz NOT NULL,             -- when this worker last reached both stores
    lag     bigint NOT NULL,
    pending bigint NOT NULL,
    oldest  double precision NOT NULL,        -- age of the oldest waiting entry, seconds
    counted timestamptz,                      -- when this worker last counted a vote
    stopped boolean NOT NULL DEFAULT false    -- it was stopped on purpose, so it is not reported as missing
) WITH (fillfactor = 50);
