-- The statements of the services, by name; `%(x)s` are psycopg's parameters.


-- name: count
-- Counts a batch: the newest vote of each voter in it, sorted by poll and voter, so that all workers lock in one order.
-- RETURNING old returns the row version that was replaced, even if another worker committed it after this statement
-- began. A CTE that reads `votes` first would miss that version, and the tallies would be wrong.
-- The payload of NOTIFY has up to 100 slugs, separated by commas (it must be shorter than 8,000 bytes), followed by a
-- blank and the traceparent if a vote in the batch is traced.
-- `poll` in votes and tallies is the box of a round, which begins with the slug of its poll: see polls/poll.py.
-- `tallied` reads all of `counted`, `locked` all of `tallied`, and `revised` all of `locked`: so votes are locked
-- first, then tallies, then polls, each in one order.
WITH batch AS (
    SELECT poll, decode(voter, 'hex') AS voter, choice, ms, seq
    FROM unnest(%(polls)s::text[], %(voters)s::text[], %(choices)s::text[], %(ms)s::bigint[], %(seqs)s::bigint[])
        AS vote (poll, voter, choice, ms, seq)
), counted AS (
    INSERT INTO votes AS stored (poll, voter, choice, entry_ms, entry_seq)
    SELECT poll, voter, choice, ms, seq FROM batch
    ON CONFLICT (poll, voter) DO UPDATE
        SET choice = excluded.choice, entry_ms = excluded.entry_ms, entry_seq = excluded.entry_seq
        WHERE (stored.entry_ms, stored.entry_seq) < (excluded.entry_ms, excluded.entry_seq)
    RETURNING new.poll, old.choice AS before, new.choice AS after
), changes AS (
    SELECT poll, choice, sum(change) AS change
    FROM (
        SELECT poll, after AS choice, 1 AS change FROM counted
        UNION ALL
        SELECT poll, before, -1 FROM counted WHERE before IS NOT NULL
    ) AS moves
    GROUP BY poll, choice
    ORDER BY poll, choice
), tallied AS (
    INSERT INTO tallies AS tally (poll, choice, votes)
    SELECT poll, choice, change FROM changes
    ON CONFLICT (poll, choice) DO UPDATE SET votes = tally.votes + excluded.votes
    RETURNING poll
), newest AS (
    SELECT split_part(poll, '#', 1) AS slug, max(entry) AS entry
    FROM (SELECT poll, max(ARRAY[ms, seq]) AS entry FROM batch GROUP BY poll) AS boxes
    GROUP BY slug
), locked AS (
    SELECT slug FROM polls JOIN (SELECT DISTINCT split_part(poll, '#', 1) AS slug FROM tallied) AS changed USING (slug)
    ORDER BY slug FOR NO KEY UPDATE OF polls
), revised AS (
    UPDATE polls
    SET revision = revision + 1,
        entry_ms = (greatest(ARRAY[entry_ms, entry_seq], newest.entry))[1],
        entry_seq = (greatest(ARRAY[entry_ms, entry_seq], newest.entry))[2]
    FROM locked JOIN newest USING (slug)
    WHERE polls.slug = locked.slug
    RETURNING polls.slug
), dead AS (
    INSERT INTO dead_letters (entry_ms, entry_seq, reason, fields)
    SELECT * FROM unnest(
        %(dead_ms)s::numeric[], %(dead_seqs)s::numeric[], %(dead_reasons)s::text[], %(dead_fields)s::text[]
    )
    ON CONFLICT DO NOTHING
)
SELECT pg_notify('tallies', string_agg(slug, ',') || %(trace)s::text), (SELECT count(*) FROM counted)
FROM (SELECT slug, row_number() OVER () / 100 AS part FROM revised) AS parts
GROUP BY part


-- name: polls
SELECT slug, question, options, published_fields(polls) FROM polls ORDER BY slug


-- name: newest_change
SELECT greatest(0, (SELECT max(changed) FROM polls), (SELECT max(changed) FROM sessions), (SELECT max(changed) FROM deletions))


-- name: changes
-- Polls and sessions that were changed, made or deleted after the change number `seen`, in order. Numbers are unique.
SELECT * FROM (
    (SELECT 'poll', slug, changed FROM polls WHERE changed > %(seen)s ORDER BY changed LIMIT %(limit)s)
    UNION ALL
    (SELECT 'session', code, changed FROM sessions WHERE changed > %(seen)s ORDER BY changed LIMIT %(limit)s)
    UNION ALL
    (SELECT kind, name, changed FROM deletions WHERE changed > %(seen)s ORDER BY changed LIMIT %(limit)s)
) AS changes (kind, name, changed)
ORDER BY changed
LIMIT %(limit)s


-- name: count_definitions
SELECT (SELECT count(*) FROM polls), (SELECT count(*) FROM sessions)


-- name: poll_names
SELECT slug FROM polls WHERE slug > %(after)s ORDER BY slug LIMIT %(limit)s


-- name: session_names
SELECT code FROM sessions WHERE code > %(after)s ORDER BY code LIMIT %(limit)s


-- name: polls_by_slug
SELECT slug, question, options, published_fields(polls) FROM polls WHERE slug = ANY(%(slugs)s)


-- name: sessions_by_code
SELECT code, title, polls, current, changed FROM sessions WHERE code = ANY(%(codes)s)


-- name: rounds_of_boxes
-- What the votes of some boxes mean. The same row numbers of `slugs` and `rounds` are one box.
SELECT 'current', slug, question, options, poll_fields(polls) FROM polls WHERE slug = ANY(%(slugs)s)
UNION ALL
SELECT 'earlier', poll, question, options,
       jsonb_build_object('kind', kind, 'max_choices', max_choices, 'scale', scale, 'round', round)
FROM rounds JOIN unnest(%(slugs)s::text[], %(rounds)s::int[]) AS box (poll, round) USING (poll, round)
UNION ALL
SELECT 'deleted', name, NULL, NULL, NULL FROM deletions WHERE kind = 'poll' AND name = ANY(%(slugs)s)


-- name: apply_schedule
SELECT apply_schedule(), EXISTS (SELECT FROM closings WHERE final IS NULL)


-- name: unfinished_closings
-- The rounds that are closed and not final, the oldest first.
SELECT poll, round, cut_ms, cut_seq FROM closings WHERE final IS NULL ORDER BY closed, poll, round LIMIT %(limit)s


-- name: cuts_of_boxes
-- The cuts of sealed rounds; the same row numbers of `slugs` and `rounds` are one box. In a final round, no vote counts.
SELECT poll_box(poll, round), CASE WHEN final IS NULL THEN cut_ms ELSE 0 END, CASE WHEN final IS NULL THEN cut_seq ELSE 0 END
FROM closings JOIN unnest(%(slugs)s::text[], %(rounds)s::int[]) AS box (poll, round) USING (poll, round)
WHERE cut_ms IS NOT NULL


-- name: seal_round
SELECT seal_round(%(slug)s, %(round)s, %(ms)s, %(seq)s)


-- name: lock_closing
SELECT closed, publish FROM lock_round(%(slug)s, %(round)s)


-- name: round_of_closing
-- What the votes of a round mean, and its tallies.
SELECT slug, question, options, poll_fields(polls),
       (SELECT coalesce(json_object_agg(choice, votes), '{}') FROM tallies WHERE poll = poll_box(slug, %(round)s)),
       revision
FROM polls WHERE slug = %(slug)s AND round = %(round)s
UNION ALL
SELECT poll, question, options,
       jsonb_build_object('kind', kind, 'max_choices', max_choices, 'scale', scale, 'round', round),
       (SELECT coalesce(json_object_agg(choice, votes), '{}') FROM tallies AS t WHERE t.poll = poll_box(r.poll, %(round)s)),
       NULL
FROM rounds AS r WHERE poll = %(slug)s AND round = %(round)s


-- name: list_ballots
SELECT list_ballots(%(slug)s, %(round)s)


-- name: ballots_of_box
SELECT tracker, choice FROM ballots WHERE poll = %(box)s ORDER BY tracker, choice


-- name: finish_round
SELECT finish_round(%(slug)s, %(round)s, %(closed)s, %(record)s)


-- name: newest_entry
-- The newest entry id that was counted or became a dead letter, up to a limit. One dead letter is read, by primary key.
-- Only one row of each table is cast, which takes a third less time with 10,000 polls.
SELECT entry_ms, entry_seq FROM (
    SELECT entry_ms::numeric, entry_seq::numeric FROM (
        SELECT entry_ms, entry_seq FROM polls WHERE entry_ms <= %(max_ms)s ORDER BY entry_ms DESC, entry_seq DESC LIMIT 1
    ) AS newest
    UNION ALL
    SELECT entry_ms::numeric, entry_seq::numeric FROM (
        SELECT entry_ms, entry_seq FROM deletions WHERE entry_ms <= %(max_ms)s ORDER BY entry_ms DESC, entry_seq DESC LIMIT 1
    ) AS newest
    UNION ALL
    (SELECT entry_ms, entry_seq FROM dead_letters WHERE entry_ms <= %(max_ms)s::numeric
     ORDER BY entry_ms DESC, entry_seq DESC LIMIT 1)
) AS entries
ORDER BY entry_ms DESC, entry_seq DESC
LIMIT 1


-- name: snapshot
-- Everything that viewers of some polls see, at one moment. The cost does not depend on the number of votes.
SELECT p.slug, p.question, p.options, poll_fields(p), p.revision, p.defined,
       (SELECT coalesce(json_object_agg(choice, votes), '{}') FROM tallies WHERE poll = poll_box(p.slug, p.round))::text AS tallies,
       coalesce(w.waiting, 0) AS waiting,
       CASE WHEN w.seen > now() - interval '3 seconds' THEN NULL ELSE coalesce(w.seen, p.created) END AS paused_since,
       c.final, c.record::json ->> 'fingerprint', (c.record::json ->> 'revision')::bigint, c.publish
FROM polls AS p
LEFT JOIN (SELECT seen, lag + pending AS waiting FROM workers ORDER BY seen DESC LIMIT 1) AS w ON true
LEFT JOIN closings AS c ON p.state = 'final' AND c.poll = p.slug AND c.round = p.round
WHERE p.slug = ANY(%(slugs)s)
ORDER BY p.slug


-- name: revisions
-- Whether some polls must be read again, and what `snapshot` has that changes without a new revision.
SELECT p.slug, p.revision, coalesce(w.waiting, 0) AS waiting,
       CASE WHEN w.seen > now() - interval '3 seconds' THEN NULL ELSE coalesce(w.seen, p.created) END AS paused_since
FROM polls AS p
LEFT JOIN (SELECT seen, lag + pending AS waiting FROM workers ORDER BY seen DESC LIMIT 1) AS w ON true
WHERE p.slug = ANY(%(slugs)s)


-- name: record
-- The end of a round.
SELECT publish, final, record FROM closings WHERE poll = %(slug)s AND round = %(round)s


-- name: ballot
SELECT choice FROM ballots WHERE poll = %(box)s AND tracker = %(tracker)s


-- name: ballots_after
-- The ballots of the published list after one of them, in its order.
SELECT tracker, choice FROM ballots
WHERE poll = %(box)s AND (tracker, choice) > (%(tracker)s, %(choice)s)
ORDER BY tracker, choice LIMIT %(limit)s


-- name: session_changes
SELECT code, changed FROM sessions WHERE code = ANY(%(codes)s)


-- name: write_audiences
INSERT INTO audiences AS known (session, replica, people, seen)
SELECT code, %(replica)s, people, now() FROM unnest(%(codes)s::text[], %(people)s::integer[]) AS here (code, people)
ON CONFLICT (session, replica) DO UPDATE SET people = excluded.people, seen = excluded.seen


-- name: delete_audiences
-- Deletes the rows of a result process, and those of processes that were killed.
DELETE FROM audiences WHERE replica = %(replica)s OR seen < now() - interval '1 minute'


-- name: installations
SELECT id::text FROM installation ORDER BY created, id


-- name: add_installations
INSERT INTO installation (id) SELECT unnest(%(ids)s::uuid[]) ON CONFLICT DO NOTHING


-- name: report
-- Writes the backlog, and the time if the worker counts. Deletes the rows of workers not seen for a day.
WITH cleared AS (DELETE FROM workers WHERE seen < now() - interval '1 day')
INSERT INTO workers AS w (name, seen, lag, pending, oldest, counted)
VALUES (%(name)s, now(), %(lag)s, %(pending)s, %(oldest)s, CASE WHEN %(counted)s THEN now() END)
ON CONFLICT (name) DO UPDATE
SET seen = CASE WHEN %(is_counting)s THEN now() ELSE w.seen END, lag = excluded.lag, pending = excluded.pending, oldest = excluded.oldest,
    counted = coalesce(excluded.counted, w.counted), stopped = false


-- name: retire
UPDATE workers SET stopped = true WHERE name = %(name)s


-- name: status
SELECT (SELECT coalesce(sum(votes), 0) FROM tallies)::bigint AS counted,
       (SELECT count(*) FROM dead_letters) AS dead,
       (SELECT count(*) FROM dead_letters
        WHERE arrived > now() - make_interval(secs => %(within)s::float) OR %(within)s::float IS NULL) AS dead_within,
       extract(epoch FROM now() - (SELECT max(counted) FROM workers))::float AS last_count,
       current_setting('transaction_read_only')::bool AS read_only,
       (SELECT coalesce(json_object_agg(name, extract(epoch FROM now() - seen)), '{}') FROM workers WHERE NOT stopped) AS workers


-- name: latest_polls
-- The polls that `voting status` lists: open ones first, then those that changed last.
SELECT slug, state, round, (SELECT coalesce(sum(votes), 0) FROM tallies WHERE poll = poll_box(slug, round))::bigint AS votes,
       (SELECT count(*) FROM polls) AS polls
FROM polls
ORDER BY state = 'open' DESC, changed DESC, slug
LIMIT %(most)s


-- name: grant_worker
GRANT SELECT, INSERT, UPDATE ON votes, tallies TO voting_worker;
GRANT SELECT, UPDATE (revision, entry_ms, entry_seq) ON polls TO voting_worker;
GRANT SELECT, INSERT ON dead_letters TO voting_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON workers TO voting_worker;
GRANT SELECT ON schema_migrations, installation, rounds, sessions, deletions, audit, closings, ballots, code_lists, tracker_keys TO voting_worker;
GRANT EXECUTE ON FUNCTION apply_schedule, seal_round, lock_round, list_ballots, finish_round TO voting_worker


-- name: grant_result
GRANT SELECT ON polls, tallies, workers, sessions, ballots TO voting_result;
GRANT SELECT (poll, round, closed, publish, final, record) ON closings TO voting_result;
GRANT SELECT, INSERT, UPDATE, DELETE ON audiences TO voting_result


-- name: grant_admin
GRANT SELECT, INSERT, DELETE ON polls TO voting_admin;
GRANT UPDATE (question, options, kind, max_choices, scale, state, round, results, access, opens_at, closes_at, timer, opened, closed, ticket,
              publish, erase_days)
    ON polls TO voting_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO voting_admin;
GRANT SELECT, UPDATE, DELETE ON webhook_events TO voting_admin;
GRANT SELECT, INSERT ON rounds, audit TO voting_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON code_lists TO voting_admin;
GRANT SELECT ON tallies, workers, audiences, deletions, schema_migrations TO voting_admin;
GRANT SELECT (poll, round, closed, publish, erase_days, final, record, erased) ON closings TO voting_admin;
GRANT EXECUTE ON FUNCTION next_change, sweep_deleted, erase_pseudonyms TO voting_admin


-- name: summary
SELECT (SELECT count(*) FROM polls), (SELECT count(*) FROM votes), (SELECT count(*) FROM dead_letters)


-- name: drift
-- Tallies that differ from GROUP BY: none, unless another program has changed the tables.
SELECT poll, choice, coalesce(tally.votes, 0), coalesce(counted.votes, 0)
FROM tallies AS tally
FULL JOIN (SELECT poll, choice, count(*) AS votes FROM votes GROUP BY poll, choice) AS counted USING (poll, choice)
WHERE coalesce(tally.votes, 0) <> coalesce(counted.votes, 0)
ORDER BY poll, choice


-- name: closing_faults
-- Rounds that do not become final, and final ones whose record differs from the tables: what somebody has changed who has
-- the rights of the owner.
SELECT poll, round, 'open' AS fault FROM closings WHERE final IS NULL AND closed < now() - interval '1 minute'
UNION ALL
SELECT poll, round, 'tallies' FROM closings
WHERE final IS NOT NULL AND record::jsonb -> 'tally' IS DISTINCT FROM (
    SELECT coalesce(jsonb_object_agg(choice, votes), '{}') FROM tallies WHERE poll = poll_box(closings.poll, round) AND votes > 0)
UNION ALL
SELECT poll, round, 'ballots' FROM closings
WHERE final IS NOT NULL AND publish AND record::jsonb -> 'tally' IS DISTINCT FROM (
    SELECT coalesce(jsonb_object_agg(choice, votes), '{}')
    FROM (SELECT choice, count(*) AS votes FROM ballots WHERE poll = poll_box(closings.poll, round) GROUP BY choice) AS listed)
ORDER BY poll, round


-- name: grants_lacking
-- Privileges that the roles of the services lack. The current role is checked as a worker.
WITH needed (service, relation, privilege) AS (
    VALUES ('worker', 'votes', 'SELECT'), ('worker', 'votes', 'INSERT'), ('worker', 'votes', 'UPDATE'),
           ('worker', 'tallies', 'SELECT'), ('worker', 'tallies', 'INSERT'), ('worker', 'tallies', 'UPDATE'),
           ('worker', 'polls', 'SELECT'), ('worker', 'polls', 'UPDATE'),
           ('worker', 'dead_letters', 'SELECT'), ('worker', 'dead_letters', 'INSERT'),
           ('worker', 'workers', 'SELECT'), ('worker', 'workers', 'INSERT'), ('worker', 'workers', 'UPDATE'),
           ('worker', 'workers', 'DELETE'), ('worker', 'installation', 'SELECT'),
           ('worker', 'rounds', 'SELECT'), ('worker', 'sessions', 'SELECT'), ('worker', 'deletions', 'SELECT'),
           ('worker', 'audit', 'SELECT'), ('worker', 'closings', 'SELECT'), ('worker', 'ballots', 'SELECT'),
           ('worker', 'code_lists', 'SELECT'), ('worker', 'tracker_keys', 'SELECT'),
           ('result', 'polls', 'SELECT'), ('result', 'tallies', 'SELECT'), ('result', 'workers', 'SELECT'),
           ('result', 'closings', 'SELECT'), ('result', 'ballots', 'SELECT'), ('result', 'sessions', 'SELECT'),
           ('result', 'audiences', 'INSERT'), ('result', 'audiences', 'DELETE'),
           ('admin', 'polls', 'SELECT'), ('admin', 'polls', 'INSERT'), ('admin', 'polls', 'UPDATE'),
           ('admin', 'polls', 'DELETE'), ('admin', 'sessions', 'SELECT'), ('admin', 'sessions', 'INSERT'),
           ('admin', 'sessions', 'UPDATE'), ('admin', 'sessions', 'DELETE'), ('admin', 'rounds', 'INSERT'),
           ('admin', 'closings', 'SELECT'), ('admin', 'code_lists', 'UPDATE'),
           ('admin', 'audit', 'INSERT'), ('admin', 'tallies', 'SELECT'), ('admin', 'audiences', 'SELECT'),
           ('admin', 'deletions', 'SELECT'), ('admin', 'webhook_events', 'DELETE')
), roles (service, role) AS (
    SELECT replace(rolname, 'voting_', ''), rolname FROM pg_roles WHERE rolname IN ('voting_worker', 'voting_result', 'voting_admin')
    UNION
    SELECT 'worker', current_user
)
SELECT role, privilege, relation
FROM needed JOIN roles USING (service)
WHERE NOT CASE WHEN privilege = 'DELETE' THEN has_table_privilege(role, relation, privilege)
               ELSE has_any_column_privilege(role, relation, privilege) END
ORDER BY role, relation, privilege


-- name: grants_beyond
-- Privileges that the roles of the services do not need: to change or read votes, or to fill the disk.
WITH forbidden (role, relation, privilege) AS (
    VALUES ('voting_worker', 'votes', 'DELETE'), ('voting_worker', 'votes', 'TRUNCATE'),
           ('voting_worker', 'tallies', 'DELETE'), ('voting_worker', 'polls', 'INSERT'),
           ('voting_worker', 'polls', 'DELETE'), ('voting_worker', 'dead_letters', 'DELETE'),
           ('voting_result', 'votes', 'SELECT'), ('voting_result', 'votes', 'UPDATE'),
           ('voting_result', 'tallies', 'INSERT'), ('voting_result', 'tallies', 'UPDATE'),
           ('voting_result', 'polls', 'UPDATE'), ('voting_result', 'dead_letters', 'SELECT'),
           ('voting_admin', 'votes', 'SELECT'), ('voting_admin', 'votes', 'INSERT'), ('voting_admin', 'votes', 'UPDATE'),
           ('voting_admin', 'votes', 'DELETE'), ('voting_admin', 'tallies', 'INSERT'), ('voting_admin', 'tallies', 'UPDATE'),
           ('voting_worker', 'closings', 'UPDATE'), ('voting_worker', 'ballots', 'INSERT'),
           ('voting_result', 'code_lists', 'SELECT'), ('voting_admin', 'closings', 'UPDATE'),
           ('voting_admin', 'ballots', 'SELECT'), ('voting_result', 'tracker_keys', 'SELECT'),
           ('voting_admin', 'tracker_keys', 'SELECT'),
           ('voting_admin', 'audit', 'UPDATE'), ('voting_admin', 'audit', 'DELETE'), ('voting_worker', 'audit', 'INSERT')
)
SELECT role, privilege, relation
FROM forbidden JOIN pg_roles ON rolname = role
WHERE has_table_privilege(pg_roles.oid, relation, privilege)  -- by oid: the name of a missing role is an error
UNION ALL
SELECT 'PUBLIC', 'TEMPORARY', 'DATABASE ' || current_database()
WHERE has_database_privilege('public', current_database(), 'TEMPORARY')
    AND EXISTS (SELECT FROM pg_roles WHERE rolname IN ('voting_worker', 'voting_result', 'voting_admin'))
ORDER BY role, relation, privilege


-- name: announce_all
-- Announces each poll and session, so that those which a restore removes are looked for, and not found.
SELECT pg_notify('definitions', 'poll ' || slug) FROM polls
UNION ALL
SELECT pg_notify('definitions', 'session ' || code) FROM sessions


-- name: clear_missed_openings
-- A poll whose time to open passed before it was restored must not open by surprise.
UPDATE polls SET opens_at = NULL WHERE state = 'draft' AND opens_at <= now() RETURNING slug


-- name: restored
-- Sets the revisions of every poll above those that open pages show, which may be newer than the backup. The new
-- revision comes from the clock, which grows faster than batches are counted.
WITH raised AS (
    UPDATE polls SET revision = greatest(revision + 1, %(now)s), defined = greatest(revision + 1, %(now)s) RETURNING slug
)
SELECT pg_notify('tallies', slug) FROM raised


-- name: restored_deletions
-- Workers read the deletions whose number is newer than the last one that they have seen.
UPDATE deletions SET changed = next_change()


-- name: chain_audit
SELECT chain_audit()


-- name: add_closings
SELECT add_closings()


-- name: audit_head
SELECT id, hash FROM audit_head()


-- name: record_command
-- Writes what an operator did with a command into the audit log.
INSERT INTO audit (actor, action, poll, detail) VALUES ('operator', %(action)s, %(poll)s, %(detail)s)


-- name: audit_fault
-- The number of rows of the audit log, and the first one whose hash is not that of the rows up to it.
SELECT count(*), min(id) FILTER (WHERE hash <> computed)
FROM (SELECT id, hash, audit_hash(lag(hash) OVER (ORDER BY id), audit) AS computed FROM audit) AS rows


-- name: default_poll
SELECT question, options, poll_fields(polls) FROM polls WHERE slug = %(slug)s FOR UPDATE


-- name: votes_of_box
SELECT choice, votes FROM tallies WHERE poll = %(box)s


-- name: define_poll
-- Writes a poll; the trigger `stamp_poll` increases its revision, since viewers see the change.
INSERT INTO polls (slug, question, options) VALUES (%(slug)s, %(question)s, %(options)s)
ON CONFLICT (slug) DO UPDATE
SET question = excluded.question, options = excluded.options
WHERE (polls.question, polls.options) IS DISTINCT FROM (excluded.question, excluded.options)
