-- What the admin service needs: the kind, state, rounds and visibility of polls, sessions, and the audit log. Existing
-- polls become open polls of the kind `single` in their first round, which is what they were.

ALTER TABLE polls
    ADD COLUMN kind        text NOT NULL DEFAULT 'single',      -- single, multiple, rating, ranking
    ADD COLUMN max_choices integer,                             -- of multiple; NULL: as many as there are options
    ADD COLUMN scale       integer,                             -- of rating: 5 or 10
    ADD COLUMN state       text NOT NULL DEFAULT 'open',        -- draft, open, closed
    ADD COLUMN round       integer NOT NULL DEFAULT 1,
    ADD COLUMN results     text NOT NULL DEFAULT 'live',        -- live, after_vote, after_close, hidden
    ADD COLUMN access      text NOT NULL DEFAULT 'open',        -- open; browser: only browsers that loaded the ballot
    ADD COLUMN opens_at    timestamptz,                         -- a draft opens then
    ADD COLUMN closes_at   timestamptz,                         -- an open poll closes then
    ADD COLUMN timer       integer,                             -- seconds from opening to closing
    ADD COLUMN opened      timestamptz,                         -- when this round was opened
    ADD COLUMN closed      timestamptz,                         -- when this round was closed
    ADD COLUMN ticket      text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''), -- what a voter shows to see an after_vote result
    ADD COLUMN changed     bigint NOT NULL DEFAULT 0,           -- from `poll_changes`, with each change of the definition or state
    ADD COLUMN defined     bigint NOT NULL DEFAULT 1;           -- the revision of that change: all that hidden results show

CREATE INDEX polls_changed ON polls (changed);
CREATE INDEX polls_opens_at ON polls (opens_at) WHERE state = 'draft' AND opens_at IS NOT NULL;
CREATE INDEX polls_closes_at ON polls (closes_at) WHERE state = 'open' AND closes_at IS NOT NULL;

-- `tallies.poll`, like `votes.poll`, is now the box of a round: the slug in the first one, `slug#n` in round n.
ALTER TABLE tallies DROP CONSTRAINT tallies_poll_fkey;

CREATE FUNCTION poll_box(slug text, round integer) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN round = 1 THEN slug ELSE slug || '#' || round END;

-- What polls/poll.py calls the further fields of a poll.
CREATE FUNCTION poll_fields(p polls) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object(
    'kind', (p).kind, 'max_choices', (p).max_choices, 'scale', (p).scale, 'state', (p).state, 'round', (p).round,
    'results', (p).results, 'access', (p).access, 'ticket', (p).ticket, 'changed', (p).changed,
    'opens_at', extract(epoch FROM (p).opens_at)::float8, 'closes_at', extract(epoch FROM (p).closes_at)::float8);

-- Earlier rounds: what their votes mean.
CREATE TABLE rounds (
    poll        text NOT NULL,
    round       integer NOT NULL,
    question    text NOT NULL,
    options     jsonb NOT NULL,
    kind        text NOT NULL,
    max_choices integer,
    scale       integer,
    opened      timestamptz,
    closed      timestamptz,
    PRIMARY KEY (poll, round)
);

CREATE TABLE sessions (
    code      text PRIMARY KEY CHECK (code ~ '^[34679ACDEFGHJKMNPQRTUWXY]{6}$'),
    title     text NOT NULL CHECK (title ~ '\S' AND length(title) <= 200),
    polls     text[] NOT NULL DEFAULT '{}',   -- slugs, in order
    current   text,                           -- the slug that the audience sees
    host_hash bytea NOT NULL UNIQUE,          -- SHA-256 of the secret in the host link
    changed   bigint NOT NULL DEFAULT 0,      -- as in polls
    created   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sessions_changed ON sessions (changed);
CREATE INDEX sessions_polls ON sessions USING gin (polls);

-- Deleted polls and sessions. Votes for a deleted poll that were still on the stream are dropped, not dead letters.
CREATE TABLE deletions (
    kind    text NOT NULL CHECK (kind IN ('poll', 'session')),
    name    text NOT NULL,                    -- slug or code
    rounds  integer NOT NULL DEFAULT 1,       -- of a poll
    changed bigint NOT NULL,                  -- as in polls
    entry_ms  bigint NOT NULL DEFAULT 0,      -- as in polls
    entry_seq bigint NOT NULL DEFAULT 0,
    deleted timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);
CREATE INDEX deletions_changed ON deletions (changed);

CREATE TABLE audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text NOT NULL,                    -- admin, host (of the session), schedule
    action  text NOT NULL,
    poll    text,
    session text,
    detail  jsonb NOT NULL DEFAULT '{}'
);

-- How many people have a page of a session open, as each result process counts them.
CREATE TABLE audiences (
    session text NOT NULL,
    replica text NOT NULL,
    people  integer NOT NULL,
    seen    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session, replica)
) WITH (fillfactor = 50);

-- Openings and closings, for webhooks. The admin service deletes a row when it is delivered, or if webhooks are off.
CREATE TABLE webhook_events (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    event    text NOT NULL,                   -- poll.opened, poll.closed
    poll     text NOT NULL,
    round    integer NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    body     text,                            -- what was sent first; the same is sent again
    attempts integer NOT NULL DEFAULT 0,
    next_try timestamptz NOT NULL DEFAULT now()
);

-- Numbers of changes, in the order in which they are committed: a reader that has seen number n misses nothing below n.
-- The lock is held until the transaction ends. Numbers come from the clock, in milliseconds, so that they also grow when
-- a database is replaced by another. A transaction that changes several polls or sessions must call
-- `lock_definitions` first, or two of them could wait for each other.
CREATE SEQUENCE poll_changes;

CREATE FUNCTION lock_definitions() RETURNS void LANGUAGE sql
BEGIN ATOMIC
    SELECT pg_advisory_xact_lock(hashtext('voting definitions'));
END;

CREATE FUNCTION next_change() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    PERFORM lock_definitions();
    RETURN setval('poll_changes', greatest(nextval('poll_changes'), (extract(epoch FROM clock_timestamp()) * 1000)::bigint));
END
$$;

CREATE FUNCTION stamp_poll() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF (OLD.question, OLD.options, OLD.kind, OLD.max_choices, OLD.scale, OLD.state, OLD.round, OLD.results, OLD.access, OLD.opens_at, OLD.closes_at)
            IS NOT DISTINCT FROM
           (NEW.question, NEW.options, NEW.kind, NEW.max_choices, NEW.scale, NEW.state, NEW.round, NEW.results, NEW.access, NEW.opens_at, NEW.closes_at)
        THEN
            RETURN NEW;
        END IF;
        -- From the clock, in microseconds: hidden results show this revision, and must not tell how many batches there were.
        NEW.revision := greatest(NEW.revision, OLD.revision + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    END IF;
    NEW.changed := next_change();
    NEW.defined := NEW.revision;
    PERFORM pg_notify('definitions', 'poll ' || NEW.slug);
    RETURN NEW;
END
$$;

CREATE TRIGGER stamp_poll BEFORE INSERT
    OR UPDATE OF question, options, kind, max_choices, scale, state, round, results, access, opens_at, closes_at ON polls
    FOR EACH ROW EXECUTE FUNCTION stamp_poll();

CREATE FUNCTION stamp_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := next_change();
    PERFORM pg_notify('definitions', 'session ' || NEW.code);
    RETURN NEW;
END
$$;

CREATE TRIGGER stamp_session BEFORE INSERT OR UPDATE OF title, polls, current ON sessions
    FOR EACH ROW EXECUTE FUNCTION stamp_session();

CREATE FUNCTION record_deletion() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF TG_ARGV[0] = 'poll' THEN
        INSERT INTO deletions (kind, name, rounds, changed, entry_ms, entry_seq)
        VALUES ('poll', OLD.slug, OLD.round, next_change(), OLD.entry_ms, OLD.entry_seq)
        ON CONFLICT (kind, name) DO UPDATE
            SET rounds = greatest(deletions.rounds, excluded.rounds), changed = excluded.changed, deleted = now(),
                entry_ms = excluded.entry_ms, entry_seq = excluded.entry_seq;
        DELETE FROM rounds WHERE poll = OLD.slug;
        DELETE FROM webhook_events WHERE poll = OLD.slug;
        UPDATE sessions SET polls = array_remove(polls, OLD.slug), current = nullif(current, OLD.slug)
            WHERE polls @> ARRAY[OLD.slug] OR current = OLD.slug;
        PERFORM pg_notify('definitions', 'poll ' || OLD.slug);
    ELSE
        INSERT INTO deletions (kind, name, changed) VALUES ('session', OLD.code, next_change())
        ON CONFLICT (kind, name) DO UPDATE SET changed = excluded.changed, deleted = now();
        DELETE FROM audiences WHERE session = OLD.code;
        PERFORM pg_notify('definitions', 'session ' || OLD.code);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER record_deletion AFTER DELETE ON polls FOR EACH ROW EXECUTE FUNCTION record_deletion('poll');
CREATE TRIGGER record_deletion AFTER DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION record_deletion('session');

-- A poll that is made again with SQL or by `voting migrate` takes votes again.
CREATE FUNCTION forget_deletion() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    DELETE FROM deletions WHERE kind = 'poll' AND name = NEW.slug;
    RETURN NULL;
END
$$;

CREATE TRIGGER forget_deletion AFTER INSERT ON polls FOR EACH ROW EXECUTE FUNCTION forget_deletion();

CREATE FUNCTION record_webhook_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    INSERT INTO webhook_events (event, poll, round)
    VALUES (CASE NEW.state WHEN 'open' THEN 'poll.opened' ELSE 'poll.closed' END, NEW.slug, NEW.round);
    RETURN NULL;
END
$$;

CREATE TRIGGER record_webhook_event AFTER UPDATE OF state ON polls FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state AND NEW.state IN ('open', 'closed'))
    EXECUTE FUNCTION record_webhook_event();

-- Opens and closes polls whose time has come, and returns the seconds until the next such time; NULL if there is none.
-- Workers call it, so that a schedule is kept while the admin service is stopped.
CREATE FUNCTION apply_schedule() RETURNS double precision LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF EXISTS (SELECT FROM polls WHERE state = 'draft' AND opens_at <= now())
        OR EXISTS (SELECT FROM polls WHERE state = 'open' AND closes_at <= now())
    THEN
        PERFORM lock_definitions();
        PERFORM FROM polls -- in the order of `count` in queries.sql, or the two could wait for each other
            WHERE (state = 'draft' AND opens_at <= now()) OR (state = 'open' AND closes_at <= now())
            ORDER BY slug FOR NO KEY UPDATE;
        WITH opened AS (
            UPDATE polls
            SET state = 'open', opened = now(), closed = NULL,
                closes_at = coalesce(closes_at, now() + make_interval(secs => timer))
            WHERE state = 'draft' AND opens_at <= now() AND (closes_at > now()) IS NOT FALSE
            RETURNING slug
        ), closed AS (
            UPDATE polls SET state = 'closed', closed = now()
            WHERE state = 'open' AND closes_at <= now()
            RETURNING slug
        )
        INSERT INTO audit (actor, action, poll)
        SELECT 'schedule', 'open', slug FROM opened UNION ALL SELECT 'schedule', 'close', slug FROM closed;
        UPDATE polls SET opens_at = NULL WHERE state = 'draft' AND opens_at <= now(); -- its closing time has passed too
    END IF;
    RETURN (
        SELECT extract(epoch FROM min(due) - now()) FROM (
            SELECT min(opens_at) AS due FROM polls WHERE state = 'draft' AND opens_at IS NOT NULL
            UNION ALL
            SELECT min(closes_at) FROM polls WHERE state = 'open' AND closes_at IS NOT NULL
        ) AS times
    );
END
$$;

-- Deletes up to `most` votes of deleted polls, with their tallies, and returns their number. A worker may still count
-- votes that it read before the poll was deleted, so the polls deleted in the last hour are looked at again.
-- The order of locks is that of `count` in queries.sql: votes, then tallies.
CREATE FUNCTION sweep_deleted(most integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    swept bigint;
BEGIN
    WITH boxes AS (
        SELECT poll_box(name, n) AS box FROM deletions, generate_series(1, rounds) AS n
        WHERE kind = 'poll' AND (deleted > now() - interval '1 hour' OR EXISTS (
            SELECT FROM votes WHERE poll = poll_box(name, n)))
    ), chosen AS (
        SELECT poll, voter FROM votes WHERE poll IN (SELECT box FROM boxes)
        ORDER BY poll, voter LIMIT most FOR UPDATE
    ), gone AS (
        DELETE FROM votes USING chosen WHERE votes.poll = chosen.poll AND votes.voter = chosen.voter
        RETURNING votes.poll, votes.choice
    ), fewer AS (
        SELECT poll, choice, count(*) AS number FROM gone GROUP BY poll, choice ORDER BY poll, choice
    ), reduced AS (
        UPDATE tallies SET votes = votes - number FROM fewer
        WHERE tallies.poll = fewer.poll AND tallies.choice = fewer.choice
    )
    SELECT count(*) INTO swept FROM gone;
    IF swept = 0 THEN
        DELETE FROM tallies WHERE votes = 0 AND poll IN (
            SELECT poll_box(name, n) FROM deletions, generate_series(1, rounds) AS n WHERE kind = 'poll');
    END IF;
    RETURN swept;
END
$$;

REVOKE EXECUTE ON FUNCTION next_change(), apply_schedule(), sweep_deleted(integer) FROM PUBLIC;

-- The trigger of 0002_polls.sql, with the box of the round in place of the slug, and with the new columns. A poll that is
-- older than these checks can still be opened, closed, hidden and reset.
CREATE OR REPLACE FUNCTION check_poll() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    control CONSTANT text := '[\u0001-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]';
    box CONSTANT text := poll_box(NEW.slug, NEW.round);
    fault text;
BEGIN
    fault := CASE
        WHEN NEW.state NOT IN ('draft', 'open', 'closed')
            THEN 'the state must be draft, open or closed'
        WHEN NEW.results NOT IN ('live', 'after_vote', 'after_close', 'hidden')
            THEN 'results must be live, after_vote, after_close or hidden'
        WHEN NEW.access NOT IN ('open', 'browser')
            THEN 'access must be open or browser'
        WHEN NEW.round NOT BETWEEN 1 AND 100000000
            THEN 'the round must be a positive number'
        WHEN TG_OP = 'UPDATE' AND (NEW.question, NEW.options, NEW.kind, NEW.max_choices, NEW.scale)
            IS NOT DISTINCT FROM (OLD.question, OLD.options, OLD.kind, OLD.max_choices, OLD.scale)
            THEN NULL
        WHEN NEW.question !~ '\S' OR length(NEW.question) > 200 OR NEW.question ~ control
            THEN 'the question must have 1 to 200 characters, and no line breaks or control characters'
        WHEN NEW.kind NOT IN ('single', 'multiple', 'rating', 'ranking')
            THEN 'the kind must be single, multiple, rating or ranking'
        WHEN (NEW.kind = 'rating') <> (NEW.scale IS NOT NULL) OR NEW.scale NOT IN (5, 10)
            THEN 'a rating, and no other kind, has a scale: 5 or 10'
        WHEN (NEW.max_choices IS NOT NULL AND NEW.kind <> 'multiple') OR NEW.max_choices NOT BETWEEN 1 AND 20
            THEN 'max_choices is 1 to 20, and only for the kind multiple'
        WHEN jsonb_typeof(NEW.options) <> 'array'
            THEN 'options must be a list of objects with the strings key and label'
        WHEN EXISTS (
            SELECT FROM jsonb_array_elements(NEW.options) AS option
            WHERE jsonb_typeof(option) <> 'object'
               OR jsonb_typeof(option -> 'key') IS DISTINCT FROM 'string'
               OR jsonb_typeof(option -> 'label') IS DISTINCT FROM 'string'
               OR jsonb_typeof(option -> 'retired') <> 'boolean')
            THEN 'options must be a list of objects with the strings key and label'
        WHEN EXISTS (
            SELECT FROM jsonb_array_elements(NEW.options) AS option
            WHERE option - '{key,label,retired}'::text[] <> '{}' OR option ->> 'key' !~ '^[a-z0-9]{1,8}$')
            THEN 'each key must be 1 to 8 of a-z and 0-9, and there must be nothing else than key and label'
        WHEN NEW.kind IN ('multiple', 'ranking') AND EXISTS (
            SELECT FROM jsonb_array_elements(NEW.options) AS option WHERE length(option ->> 'key') > 1)
            THEN 'each key of a poll with several choices must have one character'
        WHEN EXISTS (
            SELECT FROM jsonb_array_elements(NEW.options) AS option, LATERAL (SELECT option ->> 'label') AS shown (label)
            WHERE label !~ '\S' OR label ~ '^\s|\s$' OR length(label) > 200 OR label ~ control OR label IS NOT NFC NORMALIZED)
            THEN 'each label must have 1 to 200 characters in NFC, and no control characters or spaces around them'
        WHEN (SELECT count(*) NOT BETWEEN 2 AND 20 FROM jsonb_array_elements(NEW.options) AS option
              WHERE option -> 'retired' IS DISTINCT FROM 'true')
            THEN 'a poll must have 2 to 20 options'
        WHEN (SELECT count(DISTINCT option -> 'key') < count(*) FROM jsonb_array_elements(NEW.options) AS option)
            THEN 'two options have the same key'
        WHEN (SELECT count(DISTINCT casefold(normalize(option ->> 'label', NFKC) COLLATE pg_unicode_fast)) < count(*)
              FROM jsonb_array_elements(NEW.options) AS option)
            THEN 'two options have the same label, but for case'
        WHEN TG_OP = 'UPDATE' AND (NEW.kind, NEW.round) IS NOT DISTINCT FROM (OLD.kind, OLD.round)
            AND NEW.kind IN ('single', 'rating') AND EXISTS (
            SELECT FROM tallies WHERE poll = box AND votes > 0 AND choice NOT IN (
                SELECT option ->> 'key' FROM jsonb_array_elements(NEW.options) AS option))
            THEN 'an option that has votes must stay, with its key'
        WHEN TG_OP = 'UPDATE' AND NEW.round = OLD.round AND EXISTS (SELECT FROM tallies WHERE poll = box AND votes > 0)
            AND (NEW.kind, NEW.scale, NEW.max_choices) IS DISTINCT FROM (OLD.kind, OLD.scale, OLD.max_choices)
            THEN 'the kind must stay, since the poll has votes'
        WHEN TG_OP = 'UPDATE' AND NEW.round = OLD.round AND NEW.kind IN ('multiple', 'ranking')
            AND NEW.options IS DISTINCT FROM OLD.options AND EXISTS (SELECT FROM tallies WHERE poll = box AND votes > 0)
            THEN 'the options must stay, since the poll has votes'
        WHEN EXISTS (SELECT FROM tallies WHERE poll = box AND votes > 0) AND EXISTS (
            SELECT FROM jsonb_path_query(OLD.options, '$[*]') AS held, jsonb_array_elements(NEW.options) AS option
            WHERE held ->> 'key' <> option ->> 'key'
              AND casefold(normalize(held ->> 'label', NFKC) COLLATE pg_unicode_fast)
                = casefold(normalize(option ->> 'label', NFKC) COLLATE pg_unicode_fast))
            THEN 'a label must stay with its key, since the poll has votes'
        END;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'poll %: %', NEW.slug, fault USING ERRCODE = 'check_violation', TABLE = 'polls';
    END IF;
    RETURN NEW;
END
$$;

DROP TRIGGER check_poll ON polls;
CREATE TRIGGER check_poll
    BEFORE INSERT OR UPDATE OF question, options, kind, max_choices, scale, state, round, results, access ON polls
    FOR EACH ROW EXECUTE FUNCTION check_poll();
UPDATE polls SET changed = next_change();
