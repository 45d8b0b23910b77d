-- Voting codes: see polls/codes.py. A list belongs to a poll or to a session; its codes are computed from the key.
-- The polls of a session that has a list use that one; a poll must not be in two such sessions (admin/codes.py).

CREATE TABLE code_lists (
    owner   text PRIMARY KEY,                     -- the slug of a poll, or the code of a session: these never look the same
    key     text NOT NULL CHECK (key ~ '^[0-9a-f]{64}$'),
    issued  integer NOT NULL DEFAULT 0 CHECK (issued BETWEEN 0 AND 32767),
    changes jsonb NOT NULL DEFAULT '{}',          -- serial -> generation, or less than 0 if it was revoked
    created timestamptz NOT NULL DEFAULT now()
);

-- The owner of the list whose codes a poll accepts.
CREATE FUNCTION owner_of_codes(slug_ text) RETURNS text LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT owner FROM code_lists LEFT JOIN sessions ON code = owner
    WHERE owner = slug_ OR polls @> ARRAY[slug_]
    ORDER BY code IS NULL, sessions.created LIMIT 1;
END;

CREATE OR REPLACE FUNCTION published_fields(p polls) RETURNS jsonb LANGUAGE sql STABLE
RETURN poll_fields(p) || jsonb_build_object(
    'tracker_key', coalesce(
        (SELECT tracker_keys.key FROM tracker_keys WHERE poll = (p).slug AND round = (p).round AND (p).publish), ''),
    'codes', (SELECT jsonb_build_object('key', code_lists.key, 'issued', issued, 'changes', changes)
              FROM code_lists WHERE owner = owner_of_codes((p).slug) AND (p).access = 'code'));

-- Publishes polls again whose codes have changed.
CREATE FUNCTION codes_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    slugs text[];
BEGIN
    IF TG_TABLE_NAME = 'code_lists' THEN
        slugs := ARRAY[coalesce(NEW.owner, OLD.owner)] || (SELECT polls FROM sessions WHERE code = coalesce(NEW.owner, OLD.owner));
    ELSIF EXISTS (SELECT FROM code_lists WHERE owner = OLD.code) THEN
        slugs := ARRAY((SELECT unnest(OLD.polls) EXCEPT SELECT unnest(NEW.polls))
                       UNION (SELECT unnest(NEW.polls) EXCEPT SELECT unnest(OLD.polls)));
        IF TG_OP = 'DELETE' THEN
            DELETE FROM code_lists WHERE owner = OLD.code;
        END IF;
    END IF;
    IF coalesce(cardinality(slugs), 0) = 0 THEN
        RETURN NULL;
    END IF;
    PERFORM lock_definitions();
    PERFORM FROM polls WHERE slug = ANY(slugs) ORDER BY slug FOR NO KEY UPDATE; -- in the order of `count` in queries.sql
    UPDATE polls SET codes_version = codes_version + 1 WHERE slug = ANY(slugs);
    RETURN NULL;
END
$$;

CREATE TRIGGER codes_changed AFTER INSERT OR UPDATE OR DELETE ON code_lists FOR EACH ROW EXECUTE FUNCTION codes_changed();
CREATE TRIGGER codes_changed AFTER DELETE OR UPDATE OF polls ON sessions FOR EACH ROW EXECUTE FUNCTION codes_changed();

CREATE FUNCTION delete_codes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    DELETE FROM code_lists WHERE owner = OLD.slug;
    RETURN NULL;
END
$$;

CREATE TRIGGER delete_codes AFTER DELETE ON polls FOR EACH ROW EXECUTE FUNCTION delete_codes();
