-- Exact closing and final results. A closing is the end of one round of a poll; it has three steps:
--   1. The round closes: the trigger `begin_closing` adds a row here, in the transaction that closes it.
--   2. A worker seals it: the broker stores the last entry id of its stream, once, and this table stores it as the cut.
--      Votes of the round up to the cut count; later ones do not, and their voters get 409: see polls/closing.py.
--   3. When no entry up to the cut is left on the stream, a worker makes the round final, with its record.

ALTER TABLE polls
    ADD COLUMN publish     boolean NOT NULL DEFAULT false,      -- the ballots of a final round can be downloaded
    ADD COLUMN erase_days  integer,                             -- after which a final round keeps no pseudonyms; NULL: never
    ADD COLUMN codes_version bigint NOT NULL DEFAULT 0;         -- grows when the poll's voting codes change: see 0007_codes.sql

CREATE TABLE closings (
    poll        text NOT NULL,
    round       integer NOT NULL,
    closed      timestamptz NOT NULL DEFAULT now(),
    publish     boolean NOT NULL DEFAULT false,  -- as the poll said at its closing
    erase_days  integer,
    cut_ms      bigint,                          -- the last entry id that counts; NULL until the round is sealed
    cut_seq     bigint,
    final       timestamptz,
    record      text,                            -- the published result, see polls/record.py
    erased      timestamptz,                     -- when the pseudonyms were erased
    PRIMARY KEY (poll, round)
);
CREATE INDEX closings_unfinished ON closings (closed) WHERE final IS NULL;

-- The ballots of final rounds that are published. `poll` is the box.
CREATE TABLE ballots (
    poll    text NOT NULL,
    tracker bytea NOT NULL,
    choice  text NOT NULL
);
CREATE INDEX ballots_tracker ON ballots (poll, tracker, choice);

-- The keys of rounds that are not final, see polls/tracker.py. Without its key, nobody can connect a tracker with a vote.
CREATE TABLE tracker_keys (
    poll  text NOT NULL,
    round integer NOT NULL,
    key   text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    PRIMARY KEY (poll, round)
);
INSERT INTO tracker_keys (poll, round) SELECT slug, round FROM polls;

CREATE FUNCTION make_tracker_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM tracker_keys WHERE poll = OLD.slug AND round = OLD.round -- if it was reset as a draft, or when it was final
            AND NOT EXISTS (SELECT FROM closings WHERE poll = OLD.slug AND round = OLD.round AND final IS NULL);
    END IF;
    INSERT INTO tracker_keys (poll, round) VALUES (NEW.slug, NEW.round) ON CONFLICT DO NOTHING; -- a backup has it already
    RETURN NULL;
END
$$;

CREATE TRIGGER make_tracker_key AFTER INSERT OR UPDATE OF round ON polls FOR EACH ROW WHEN (NEW.state <> 'final')
    EXECUTE FUNCTION make_tracker_key();

CREATE OR REPLACE FUNCTION poll_fields(p polls) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object(
    'kind', (p).kind, 'max_choices', (p).max_choices, 'scale', (p).scale, 'state', (p).state, 'round', (p).round,
    'results', (p).results, 'access', (p).access, 'ticket', (p).ticket, 'changed', (p).changed,
    'opens_at', extract(epoch FROM (p).opens_at)::float8, 'closes_at', extract(epoch FROM (p).closes_at)::float8,
    'publish', (p).publish);

-- What workers publish for the vote service, beyond `poll_fields`.
CREATE FUNCTION published_fields(p polls) RETURNS jsonb LANGUAGE sql STABLE
RETURN poll_fields(p) || jsonb_build_object('tracker_key', coalesce(
    (SELECT key FROM tracker_keys WHERE poll = (p).slug AND round = (p).round AND (p).publish), ''));

CREATE FUNCTION begin_closing() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    INSERT INTO closings (poll, round, publish, erase_days)
    VALUES (OLD.slug, OLD.round, OLD.publish, OLD.erase_days)
    ON CONFLICT DO NOTHING;
    PERFORM pg_notify('definitions', 'closing ' || OLD.slug);
    RETURN NULL;
END
$$;

CREATE TRIGGER begin_closing AFTER UPDATE OF state, round ON polls FOR EACH ROW
    WHEN (OLD.state = 'open' AND (NEW.state <> 'open' OR NEW.round <> OLD.round))
    EXECUTE FUNCTION begin_closing();

CREATE FUNCTION delete_closings() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    DELETE FROM closings WHERE poll = OLD.slug;
    DELETE FROM tracker_keys WHERE poll = OLD.slug;
    DELETE FROM ballots WHERE split_part(poll, '#', 1) = OLD.slug;
    RETURN NULL;
END
$$;

CREATE TRIGGER delete_closings AFTER DELETE ON polls FOR EACH ROW EXECUTE FUNCTION delete_closings();

-- Stores the cut of a round that has none; a new stream begins after it. Returns whether there is such a round.
CREATE FUNCTION seal_round(slug_ text, round_ integer, ms bigint, seq bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    PERFORM FROM polls WHERE slug = slug_ FOR NO KEY UPDATE; -- before the closing, as a deletion locks them
    UPDATE closings SET cut_ms = ms, cut_seq = seq WHERE poll = slug_ AND round = round_ AND cut_ms IS NULL;
    IF FOUND THEN
        UPDATE polls SET entry_ms = (greatest(ARRAY[entry_ms, entry_seq], ARRAY[ms, seq]))[1],
                         entry_seq = (greatest(ARRAY[entry_ms, entry_seq], ARRAY[ms, seq]))[2]
        WHERE slug = slug_;
    END IF;
    RETURN EXISTS (SELECT FROM closings WHERE poll = slug_ AND round = round_);
END
$$;

-- Locks a sealed round that is to become final, unless another worker has locked it: then there is no row.
CREATE FUNCTION lock_round(slug_ text, round_ integer) RETURNS TABLE (closed timestamptz, publish boolean)
LANGUAGE sql SECURITY DEFINER SET search_path = public
BEGIN ATOMIC
    SELECT closed, publish FROM closings
    WHERE poll = slug_ AND round = round_ AND final IS NULL AND cut_ms IS NOT NULL FOR UPDATE SKIP LOCKED;
END;

-- Lists the ballots of a sealed round that publishes them; the order is that of the trackers.
CREATE FUNCTION list_ballots(slug_ text, round_ integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    tracker_key text;
BEGIN
    SELECT key INTO tracker_key FROM closings JOIN tracker_keys USING (poll, round)
    WHERE poll = slug_ AND round = round_ AND publish AND cut_ms IS NOT NULL AND final IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM ballots WHERE poll = poll_box(slug_, round_);
    INSERT INTO ballots (poll, tracker, choice)
    SELECT poll, ballot_tracker(tracker_key, entry_ms, entry_seq), choice
    FROM votes WHERE poll = poll_box(slug_, round_)
    ORDER BY 2;
END
$$;

-- The tracker of a ballot: see polls/tracker.py, which computes the same.
CREATE FUNCTION ballot_tracker(key text, ms bigint, seq bigint) RETURNS bytea LANGUAGE sql IMMUTABLE
RETURN substr(sha256(convert_to(key, 'UTF8') || int8send(ms) || int8send(seq)), 1, 8);

-- Makes a sealed round final; a poll that is still in this round becomes final too. Returns whether it did. `closed_` tells
-- the round from one of a poll that was made again under the same slug.
CREATE FUNCTION finish_round(slug_ text, round_ integer, closed_ timestamptz, record_ text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    PERFORM FROM polls WHERE slug = slug_ FOR NO KEY UPDATE;
    UPDATE closings SET final = now(), record = record_
    WHERE poll = slug_ AND round = round_ AND closed = closed_ AND cut_ms IS NOT NULL AND final IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM tracker_keys WHERE poll = slug_ AND round = round_;
    UPDATE polls SET state = 'final' WHERE slug = slug_ AND round = round_ AND state = 'closed';
    INSERT INTO audit (actor, action, poll, detail)
    VALUES ('worker', 'final', slug_, jsonb_build_object('round', round_, 'total', (record_::json ->> 'total')::bigint,
                                                         'fingerprint', record_::json ->> 'fingerprint'));
    RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION seal_round(text, integer, bigint, bigint), lock_round(text, integer), list_ballots(text, integer), finish_round(text, integer, timestamptz, text)
    FROM PUBLIC;

-- No service changes a final round; it can only be deleted with its poll.
CREATE FUNCTION keep_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'closings' THEN
        NEW.erased := coalesce(OLD.erased, NEW.erased);
        IF OLD.final IS NULL OR to_jsonb(OLD) - 'erased' = to_jsonb(NEW) - 'erased' THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'round % of poll % is final', OLD.round, OLD.poll USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (SELECT FROM closings WHERE poll = split_part(NEW.poll, '#', 1) AND final IS NOT NULL
               AND round = coalesce(nullif(split_part(NEW.poll, '#', 2), ''), '1')::integer)
    THEN
        -- For a worker this is an outage. Its votes are counted already, or late, as it finds when it reads the cuts again.
        RAISE EXCEPTION 'the round % is final', NEW.poll USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER keep_final BEFORE UPDATE ON closings FOR EACH ROW EXECUTE FUNCTION keep_final();
CREATE TRIGGER keep_final BEFORE INSERT OR UPDATE ON tallies FOR EACH ROW EXECUTE FUNCTION keep_final();

-- Adds the closings of rounds that were closed before there were any, or that come from a backup of that time.
CREATE FUNCTION add_closings() RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO closings (poll, round, closed) SELECT poll, round, coalesce(closed, now()) FROM rounds;
    INSERT INTO closings (poll, round, closed) SELECT slug, round, coalesce(closed, now()) FROM polls WHERE state = 'closed';
END;

REVOKE EXECUTE ON FUNCTION add_closings() FROM PUBLIC;
SELECT add_closings();

-- As in 0005_admin.sql, with `publish` and `codes_version`.
CREATE OR REPLACE FUNCTION stamp_poll() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF (OLD.question, OLD.options, OLD.kind, OLD.max_choices, OLD.scale, OLD.state, OLD.round, OLD.results, OLD.access, OLD.opens_at, OLD.closes_at, OLD.publish, OLD.codes_version)
            IS NOT DISTINCT FROM
           (NEW.question, NEW.options, NEW.kind, NEW.max_choices, NEW.scale, NEW.state, NEW.round, NEW.results, NEW.access, NEW.opens_at, NEW.closes_at, NEW.publish, NEW.codes_version)
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

DROP TRIGGER stamp_poll ON polls;
CREATE TRIGGER stamp_poll BEFORE INSERT
    OR UPDATE OF question, options, kind, max_choices, scale, state, round, results, access, opens_at, closes_at, publish,
        codes_version ON polls
    FOR EACH ROW EXECUTE FUNCTION stamp_poll();

-- As in 0005_admin.sql, with the state `final`, the access `code`, and `erase_days`.
CREATE OR REPLACE FUNCTION check_poll() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    control CONSTANT text := '[\u0001-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]';
    box CONSTANT text := poll_box(NEW.slug, NEW.round);
    fault text;
BEGIN
    fault := CASE
        WHEN NEW.state NOT IN ('draft', 'open', 'closed', 'final')
            THEN 'the state must be draft, open, closed or final'
        WHEN NEW.results NOT IN ('live', 'after_vote', 'after_close', 'hidden')
            THEN 'results must be live, after_vote, after_close or hidden'
        WHEN NEW.access NOT IN ('open', 'browser', 'code')
            THEN 'access must be open, browser or code'
        WHEN TG_OP = 'UPDATE' AND OLD.state = 'final' AND NEW.round = OLD.round AND NEW.state <> 'final'
            THEN 'the round is final'
        WHEN NEW.erase_days NOT BETWEEN 0 AND 3650
            THEN 'erase_days must be 0 to 3650'
        WHEN NEW.round NOT BETWEEN 1 AND 100000000
            THEN 'the round must be a positive number'
        WHEN TG_OP = 'UPDATE' AND (NEW.question, NEW.options, NEW.kind, NEW.max_choices, NEW.scale)
            IS NOT DISTINCT FROM (OLD.question, OLD.options, OLD.kind, OLD.max_choices, OLD.scale)
            THEN NULL
        WHEN TG_OP = 'UPDATE' AND OLD.state = 'final' AND NEW.round = OLD.round
            THEN 'the round is final'
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
    BEFORE INSERT OR UPDATE OF question, options, kind, max_choices, scale, state, round, results, access, erase_days ON polls
    FOR EACH ROW EXECUTE FUNCTION check_poll();
