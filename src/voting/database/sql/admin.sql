-- The statements of the admin service, by name; see queries.sql.


-- name: admin_poll
-- One poll with the tallies of a round, at one moment.
SELECT p.slug, p.question, p.options, poll_fields(p) AS more, p.timer, p.opens_at, p.closes_at, p.opened, p.closed, p.created,
       p.erase_days,
       (SELECT coalesce(json_object_agg(choice, votes), '{}') FROM tallies WHERE poll = poll_box(p.slug, p.round)) AS tallies,
       (SELECT coalesce(json_agg(code ORDER BY created, code), '[]') FROM sessions WHERE polls @> ARRAY[p.slug]) AS sessions,
       coalesce((SELECT lag + pending FROM workers ORDER BY seen DESC LIMIT 1), 0) AS waiting,
       c.final, c.record::json ->> 'fingerprint' AS fingerprint
FROM polls AS p LEFT JOIN closings AS c ON c.poll = p.slug AND c.round = p.round WHERE slug = %(slug)s


-- name: admin_lock_poll
SELECT slug FROM polls WHERE slug = %(slug)s FOR NO KEY UPDATE


-- name: admin_polls
-- Polls, newest first, after one of them.
SELECT p.slug, p.question, p.options, poll_fields(p) AS more, p.timer, p.opens_at, p.closes_at, p.opened, p.closed, p.created,
       p.erase_days,
       (SELECT coalesce(sum(votes), 0)::bigint FROM tallies WHERE poll = poll_box(p.slug, p.round)) AS total
FROM polls AS p
WHERE %(created)s::timestamptz IS NULL OR (p.created, p.slug) < (%(created)s::timestamptz, %(slug)s)
ORDER BY p.created DESC, p.slug DESC LIMIT %(limit)s


-- name: admin_open_polls
SELECT p.slug, p.question, p.options, poll_fields(p) AS more, p.timer, p.opens_at, p.closes_at, p.opened, p.closed, p.created,
       p.erase_days,
       (SELECT coalesce(sum(votes), 0)::bigint FROM tallies WHERE poll = poll_box(p.slug, p.round)) AS total
FROM polls AS p WHERE state = 'open' ORDER BY opened DESC NULLS LAST, slug LIMIT 20


-- name: admin_some_polls
SELECT p.slug, p.question, p.options, poll_fields(p) AS more, p.timer, p.opens_at, p.closes_at, p.opened, p.closed, p.created,
       p.erase_days,
       (SELECT coalesce(sum(votes), 0)::bigint FROM tallies WHERE poll = poll_box(p.slug, p.round)) AS total
FROM polls AS p WHERE slug = ANY(%(slugs)s)


-- name: admin_rounds
-- The earlier rounds of a poll, the last first.
SELECT r.round, r.question, r.kind, r.opened, r.closed,
       (SELECT coalesce(sum(votes), 0)::bigint FROM tallies WHERE poll = poll_box(r.poll, r.round)) AS total,
       c.final, c.record::json ->> 'fingerprint' AS fingerprint, c.publish
FROM rounds AS r LEFT JOIN closings AS c USING (poll, round)
WHERE poll = %(slug)s ORDER BY round DESC LIMIT 1000


-- name: admin_round
SELECT r.question, r.options, r.kind, r.max_choices, r.scale, r.opened, r.closed,
       (SELECT coalesce(json_object_agg(choice, votes), '{}') FROM tallies WHERE poll = poll_box(r.poll, r.round)) AS tallies,
       c.final, c.record::json ->> 'fingerprint' AS fingerprint
FROM rounds AS r LEFT JOIN closings AS c USING (poll, round) WHERE poll = %(slug)s AND round = %(round)s


-- name: admin_insert_poll
INSERT INTO polls (slug, question, options, kind, max_choices, scale, state, results, access, publish,
                   opens_at, closes_at, timer, erase_days)
VALUES (%(slug)s, %(question)s, %(options)s, %(kind)s, %(max_choices)s, %(scale)s, 'draft', %(results)s, %(access)s, %(publish)s,
        %(opens_at)s, %(closes_at)s, %(timer)s, %(erase_days)s)


-- name: admin_update_poll
-- The trigger `stamp_poll` sees whether something has changed that others must learn.
UPDATE polls
SET question = %(question)s, options = %(options)s, kind = %(kind)s, max_choices = %(max_choices)s, scale = %(scale)s,
    results = %(results)s, access = %(access)s, publish = %(publish)s, state = %(state)s, opens_at = %(opens_at)s, closes_at = %(closes_at)s, timer = %(timer)s,
    opened = %(opened)s, closed = %(closed)s,
    erase_days = %(erase_days)s
WHERE slug = %(slug)s


-- name: admin_archive_round
INSERT INTO rounds (poll, round, question, options, kind, max_choices, scale, opened, closed)
SELECT slug, round, question, options, kind, max_choices, scale, opened, coalesce(closed, now()) FROM polls WHERE slug = %(slug)s


-- name: admin_next_round
UPDATE polls
SET round = round + 1, state = 'draft', options = %(options)s, ticket = %(ticket)s,
    opens_at = NULL, closes_at = NULL, opened = NULL, closed = NULL
WHERE slug = %(slug)s


-- name: admin_delete_poll
DELETE FROM polls WHERE slug = %(slug)s


-- name: admin_known
-- Which of these are polls.
SELECT slug FROM polls WHERE slug = ANY(%(slugs)s)


-- name: admin_name_taken
-- Whether a slug or a code is used, or was used by something that is deleted and whose votes may still arrive.
SELECT EXISTS (SELECT FROM polls WHERE slug = %(name)s) OR EXISTS (SELECT FROM sessions WHERE code = %(name)s)
    OR EXISTS (SELECT FROM deletions WHERE name = %(name)s)


-- name: admin_session
SELECT s.code, s.title, s.polls, s.current, s.changed, s.created, s.keep_days, session_end(s) AS deletes_at,
       (SELECT coalesce(sum(people), 0)::bigint FROM audiences
        WHERE session = s.code AND seen > now() - interval '5 seconds') AS people
FROM sessions AS s WHERE code = %(code)s


-- name: admin_sessions
-- Sessions, newest first, after one of them.
SELECT s.code, s.title, s.polls, s.current, s.changed, s.created, s.keep_days, session_end(s) AS deletes_at,
       (SELECT coalesce(sum(people), 0)::bigint FROM audiences
        WHERE session = s.code AND seen > now() - interval '5 seconds') AS people
FROM sessions AS s
WHERE %(created)s::timestamptz IS NULL OR (s.created, s.code) < (%(created)s::timestamptz, %(slug)s)
ORDER BY s.created DESC, s.code DESC LIMIT %(limit)s


-- name: admin_insert_session
INSERT INTO sessions (code, title, polls, host_hash, keep_days)
VALUES (%(code)s, %(title)s, %(polls)s, %(host_hash)s, %(keep_days)s)


-- name: admin_update_session
UPDATE sessions SET title = %(title)s, polls = %(polls)s, current = %(current)s WHERE code = %(code)s


-- name: admin_keep_session
UPDATE sessions SET keep_days = %(keep_days)s, kept_from = now() WHERE code = %(code)s


-- name: admin_ended_sessions
-- Sessions that are to be deleted, some at a time.
SELECT code FROM sessions AS s WHERE keep_days IS NOT NULL AND session_end(s) <= now() ORDER BY created LIMIT 100


-- name: admin_polls_of_session
-- Those of these polls that are in no other session.
SELECT slug FROM polls WHERE slug = ANY(%(polls)s) AND NOT EXISTS (
    SELECT FROM sessions WHERE polls @> ARRAY[slug] AND code <> %(code)s)
ORDER BY slug


-- name: admin_replace_host
UPDATE sessions SET host_hash = %(host_hash)s WHERE code = %(code)s


-- name: admin_delete_session
DELETE FROM sessions WHERE code = %(code)s


-- name: admin_host
SELECT code FROM sessions WHERE host_hash = %(host_hash)s


-- name: admin_record
INSERT INTO audit (actor, action, poll, session, detail)
VALUES (%(actor)s, %(action)s, %(poll)s, %(session)s, %(detail)s)


-- name: admin_audit
SELECT id, at, actor, action, poll, session, detail, encode(hash, 'hex') AS hash FROM audit
WHERE %(after)s::bigint IS NULL OR id < %(after)s::bigint
ORDER BY id DESC LIMIT %(limit)s


-- name: admin_audit_texts
-- What was hashed, in the order of the chain.
SELECT id, audit_text(audit) AS text, encode(hash, 'hex') AS hash FROM audit
WHERE id > %(after)s AND id <= %(last)s ORDER BY id LIMIT %(limit)s


-- name: admin_in_session
SELECT code FROM sessions WHERE code = %(code)s AND polls @> ARRAY[%(slug)s]


-- name: admin_codes
SELECT key, issued, changes FROM code_lists WHERE owner = %(owner)s


-- name: admin_codes_of_poll
-- The list whose codes a poll accepts.
SELECT owner, owner <> %(slug)s AS of_session, key, issued, changes FROM code_lists WHERE owner = owner_of_codes(%(slug)s)


-- name: admin_other_codes
-- Those of some polls that have a list already, of their own or of another session.
SELECT slug, owner FROM unnest(%(slugs)s::text[]) WITH ORDINALITY AS wanted (slug, place), code_lists
WHERE owner = slug OR owner IN (SELECT code FROM sessions WHERE polls @> ARRAY[slug] AND code <> %(session)s)
ORDER BY place, owner LIMIT 1


-- name: admin_open_with_codes
SELECT slug FROM polls WHERE slug = ANY(%(slugs)s) AND state = 'open' AND access = 'code' ORDER BY slug LIMIT 1


-- name: admin_save_codes
INSERT INTO code_lists (owner, key, issued, changes) VALUES (%(owner)s, %(key)s, %(issued)s, %(changes)s)
ON CONFLICT (owner) DO UPDATE SET key = excluded.key, issued = excluded.issued, changes = excluded.changes


-- name: admin_sweep
SELECT sweep_deleted(%(most)s)


-- name: admin_erase
SELECT erase_pseudonyms(%(most)s)


-- name: admin_forget_webhooks
DELETE FROM webhook_events


-- name: admin_expire_webhooks
DELETE FROM webhook_events WHERE at < now() - interval '1 day' RETURNING event, poll


-- name: admin_claim_webhook
-- Takes the oldest event that is due, and sets when it is tried again if it is not delivered now. The event of a closing
-- waits until the round is final, for a minute at most.
UPDATE webhook_events
SET attempts = attempts + 1, next_try = now() + make_interval(secs => least(3600, 10 * 2 ^ least(attempts, 10)) * (0.5 + random() / 2))
WHERE id = (
    SELECT id FROM webhook_events AS event
    WHERE next_try <= now() AND (
        event.event = 'poll.opened' OR body IS NOT NULL OR at < now() - interval '1 minute'
        OR EXISTS (SELECT FROM closings WHERE closings.poll = event.poll AND closings.round = event.round AND final IS NOT NULL))
    ORDER BY at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id::text, event, poll, round, at, body


-- name: admin_keep_webhook
UPDATE webhook_events SET body = %(body)s WHERE id = %(id)s::uuid


-- name: admin_webhook_done
DELETE FROM webhook_events WHERE id = %(id)s::uuid
