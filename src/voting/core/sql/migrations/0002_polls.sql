-- What a poll has to be, so that it can be counted and shown; core/ballot.py checks the same when it reads one.
-- Rows from before are not looked at (NOT VALID): a bad one is skipped when it is read, and named in the logs.

CREATE FUNCTION are_options(options jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN jsonb_typeof(options) = 'array' THEN (
        SELECT count(*) BETWEEN 2 AND 20
           AND count(DISTINCT option ->> 'key') = count(*)
           AND count(DISTINCT option ->> 'label') = count(*)
           AND bool_and(coalesce(
               jsonb_typeof(option -> 'key') = 'string' AND option ->> 'key' ~ '^[a-z0-9]{1,8}$'
               AND jsonb_typeof(option -> 'label') = 'string' AND length(btrim(option ->> 'label')) BETWEEN 1 AND 200,
               false))
        FROM jsonb_array_elements(options) AS option
    ) ELSE false END;
END;

ALTER TABLE polls ADD CONSTRAINT polls_options_check CHECK (are_options(options)) NOT VALID;
ALTER TABLE polls ADD CONSTRAINT polls_question_check CHECK (length(btrim(question)) BETWEEN 1 AND 200) NOT VALID;
