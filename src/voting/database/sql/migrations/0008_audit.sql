-- The audit log as a chain, the erasing of pseudonyms, and sessions that are deleted after some days.

-- Each row has the SHA-256 of the hash of the row before and of its own text, so a row that somebody changes, adds between
-- others or removes is found by computing the hashes again: anybody can do that with an export. The chain cannot show that
-- the newest rows were cut off, or that somebody with the rights of the owner has computed all hashes again from some row on,
-- unless the newest hash of an earlier time is known: records of final rounds have it, see `audit_head`.
ALTER TABLE audit
    ALTER COLUMN id DROP IDENTITY,                              -- the number of the row before, plus 1
    ADD COLUMN hash bytea NOT NULL DEFAULT '';                  -- '' only until a trigger or `chain_audit` sets it

COMMENT ON COLUMN audit.actor IS 'admin, host (of the session), schedule, worker, operator (who runs commands)';

-- What is hashed: a JSON array of id, microseconds since 1970, actor, action, poll, session and detail.
CREATE FUNCTION audit_text(a audit) RETURNS text LANGUAGE sql STABLE
RETURN json_build_array((a).id, (extract(epoch FROM (a).at) * 1000000)::bigint, (a).actor, (a).action, (a).poll, (a).session,
                        (a).detail)::text;

-- The hash of a row; `before` is that of the row before, NULL for the first one.
CREATE FUNCTION audit_hash(before bytea, a audit) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(coalesce(before, decode(repeat('00', 32), 'hex')) || convert_to(audit_text(a), 'UTF8'));

-- The number and the hash of the newest row, in hexadecimal; 0 and zeros if there is none.
CREATE FUNCTION audit_head(OUT id bigint, OUT hash text) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(max(newest.id), 0), coalesce(max(encode(newest.hash, 'hex')), repeat('0', 64))
    FROM (SELECT audit.id, audit.hash FROM audit ORDER BY audit.id DESC LIMIT 1) AS newest;
END;

-- Computes the hashes of rows that have none: those from before this migration, or from an older backup.
CREATE FUNCTION chain_audit() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    entry audit;
    before bytea;
BEGIN
    FOR entry IN SELECT * FROM audit ORDER BY id LOOP
        IF entry.hash = '' THEN
            entry.hash := audit_hash(before, entry);
            UPDATE audit SET hash = entry.hash WHERE id = entry.id;
        END IF;
        before := entry.hash;
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION chain_audit() FROM PUBLIC;
SELECT chain_audit();

-- Sets all that a writer must not choose. Writers wait for each other: transactions that change definitions hold the lock
-- already, others must take it before they lock rows.
CREATE FUNCTION append_audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    newest audit;
BEGIN
    PERFORM lock_definitions();
    SELECT * INTO newest FROM audit ORDER BY id DESC LIMIT 1;
    NEW.id := coalesce(newest.id, 0) + 1;
    NEW.at := clock_timestamp(); -- later than the row before, which now() need not be
    NEW.hash := audit_hash(newest.hash, NEW);
    RETURN NEW;
END
$$;

CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER append_audit BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION append_audit();
CREATE TRIGGER keep_audit BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
ALTER TABLE audit ENABLE ALWAYS TRIGGER append_audit, ENABLE ALWAYS TRIGGER keep_audit;

-- As in 0005_admin.sql, but a draft that does not open because its closing time has passed too is recorded as well.
CREATE OR REPLACE FUNCTION apply_schedule() RETURNS double precision LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
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
        WITH missed AS (
            UPDATE polls SET opens_at = NULL WHERE state = 'draft' AND opens_at <= now() RETURNING slug
        )
        INSERT INTO audit (actor, action, poll, detail) SELECT 'schedule', 'edit', slug, '{"opens_at": null}' FROM missed;
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

-- `polls.erase_days` can be changed until the round is final: closings have the value that holds.
CREATE FUNCTION set_erasing() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF NEW.state = 'final' AND OLD.state = 'final' AND NEW.round = OLD.round THEN
        RAISE EXCEPTION 'poll %: the round is final', NEW.slug USING ERRCODE = 'check_violation', TABLE = 'polls';
    END IF;
    UPDATE closings SET erase_days = NEW.erase_days WHERE poll = NEW.slug AND round = NEW.round AND final IS NULL;
    RETURN NULL;
END
$$;

CREATE TRIGGER set_erasing AFTER UPDATE OF erase_days ON polls FOR EACH ROW
    WHEN (OLD.erase_days IS DISTINCT FROM NEW.erase_days)
    EXECUTE FUNCTION set_erasing();

CREATE INDEX closings_unerased ON closings (final) WHERE erased IS NULL AND erase_days IS NOT NULL;

-- Erases who voted what in a final round that is due: each vote gets a random voter, and no entry id. Tallies stay true.
-- It takes `most` votes, or up to twice as many if none would be left, and returns whether there may be more to do.
-- The rows are deleted and inserted again, since an updated row is linked with its older version until VACUUM; and they are
-- inserted in the order of their choices. So even the files of the database do not tell more than the counts of each call.
-- New voters begin with zeros: older ones are taken from the other end of the index, past no row that is done.
CREATE FUNCTION erase_pseudonyms(most integer) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    due closings;
    box text;
BEGIN
    SELECT * INTO due FROM closings
    WHERE erased IS NULL AND erase_days IS NOT NULL AND final + make_interval(days => erase_days) <= now()
    ORDER BY final LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    box := poll_box(due.poll, due.round);
    WITH remaining AS MATERIALIZED (
        SELECT voter, row_number() OVER (ORDER BY voter DESC) AS place FROM votes
        WHERE poll = box AND (entry_ms, entry_seq) <> (0, 0)
        ORDER BY voter DESC LIMIT 2 * most
    ), gone AS (
        DELETE FROM votes USING remaining
        WHERE poll = box AND votes.voter = remaining.voter AND (place <= most OR (SELECT count(*) FROM remaining) < 2 * most)
        RETURNING choice
    )
    INSERT INTO votes (poll, voter, choice, entry_ms, entry_seq)
    SELECT box, decode('00000000', 'hex') || substr(sha256(uuid_send(gen_random_uuid())), 1, 12), choice, 0, 0
    FROM gone ORDER BY choice;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM votes WHERE poll = box AND (entry_ms, entry_seq) <> (0, 0)) THEN
        PERFORM lock_definitions(); -- no row is locked yet
        UPDATE closings SET erased = now() WHERE poll = due.poll AND round = due.round AND erased IS NULL;
        IF FOUND THEN
            INSERT INTO audit (actor, action, poll, detail)
            VALUES ('schedule', 'erase', due.poll, jsonb_build_object(
                'round', due.round, 'votes', (SELECT count(*) FROM votes WHERE poll = box)));
        END IF;
    END IF;
    RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION erase_pseudonyms(integer) FROM PUBLIC;

ALTER TABLE sessions
    ADD COLUMN keep_days integer CHECK (keep_days BETWEEN 1 AND 3650), -- after which it is deleted with its polls; NULL: never
    ADD COLUMN kept_from timestamptz NOT NULL DEFAULT now();           -- when `keep_days` was set

-- When a session is deleted: `keep_days` after the last closing of its polls, or after `keep_days` was set. NULL if that is
-- not known yet, because one of its polls is open, will open, or is not final.
CREATE FUNCTION session_end(s sessions) RETURNS timestamptz LANGUAGE sql STABLE
RETURN CASE WHEN (s).keep_days IS NOT NULL
    AND NOT EXISTS (SELECT FROM polls WHERE slug = ANY((s).polls) AND (state = 'open' OR (state = 'draft' AND opens_at IS NOT NULL)))
    AND NOT EXISTS (SELECT FROM closings WHERE poll = ANY((s).polls) AND final IS NULL)
    THEN greatest((s).kept_from, (SELECT max(closed) FROM closings WHERE poll = ANY((s).polls))) + make_interval(days => (s).keep_days)
    END;
