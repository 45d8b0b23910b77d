-- The conditions under which a poll can be counted and shown. This is a trigger and not a CHECK: a CHECK, even NOT VALID,
-- is evaluated at each UPDATE of a row, also when only the revision grows. Votes in an older poll that violates it would
-- then become dead letters. polls.py accepts such polls; their next definition must satisfy the trigger.

CREATE FUNCTION check_poll() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    control CONSTANT text := '[\u0001-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]';
    fault text;
BEGIN
    fault := CASE
        WHEN NEW.question !~ '\S' OR length(NEW.question) > 200 OR NEW.question ~ control
            THEN 'the question must have 1 to 200 characters, and no line breaks or control characters'
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
        WHEN EXISTS (
            SELECT FROM tallies WHERE poll = NEW.slug AND votes > 0 AND choice NOT IN (
                SELECT option ->> 'key' FROM jsonb_array_elements(NEW.options) AS option))
            THEN 'an option that has votes must stay, with its key'
        WHEN EXISTS (SELECT FROM tallies WHERE poll = NEW.slug AND votes > 0) AND EXISTS (
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

CREATE TRIGGER check_poll BEFORE INSERT OR UPDATE OF question, options ON polls
    FOR EACH ROW EXECUTE FUNCTION check_poll();
