"""Counting in a real PostgreSQL: in any order, duplication and batching, the newest vote of each voter counts."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.waiting import until
from voting.broker.stream import Backlog
from voting.database import counting, migrations, roles
from voting.database.connection import Connection, connect, deadline
from voting.database.counting import DeadLetter
from voting.database.definition import Definition, DefinitionConflict
from voting.database.poll_state import poll_states, read_definitions
from voting.database.queries import QUERIES
from voting.database.status import read_status, report_backlog
from voting.polls.poll import BadPoll, Option, Poll
from voting.polls.tally import evaluate
from voting.polls.vote import EntryId, Vote
from voting.polls.vote_parser import VoteParser
from voting.worker.batch import newest_per_voter

pytestmark = pytest.mark.anyio
slugs = (f"poll-{number}" for number in itertools.count())

CONSISTENT = """
SELECT t.poll, t.choice, t.votes, count(v.*) FROM tallies t LEFT JOIN votes v ON (v.poll, v.choice) = (t.poll, t.choice)
GROUP BY t.poll, t.choice, t.votes HAVING t.votes <> count(v.*)
"""


def voter(number: int) -> bytes:
    return number.to_bytes(16)


@asynccontextmanager
async def connections(url: str, number: int) -> AsyncIterator[list[Connection]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connect(url, name="test", timeout=10)) for _ in range(number)]


async def new_poll(connection: Connection, options: str = "abc") -> str:
    slug = next(slugs)
    poll = Poll(slug, "?", tuple(Option(key, key.upper()) for key in options))
    await connection.execute(QUERIES["define_poll"], {"slug": slug, "question": "?", "options": poll.options_json()})
    return slug


async def tallies(connection: Connection, slug: str) -> dict[str, int]:
    return (await poll_states(connection, [slug]))[0][0].votes


async def choices(connection: Connection, slug: str) -> dict[bytes, str]:
    cursor = await connection.execute("SELECT voter, choice FROM votes WHERE poll = %s", [slug])
    return {bytes(name): choice for name, choice in await cursor.fetchall()}


cast_votes = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=30)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[tuple[int, str]], list[list[list[int]]]]:
    """Votes in stream order, and how workers get them: lists of batches of positions, each position at least once."""
    cast = draw(cast_votes)
    positions = list(range(len(cast)))
    delivered = draw(st.permutations(positions)) + draw(st.lists(st.sampled_from(positions), max_size=10))
    workers: list[list[list[int]]] = [[] for _ in range(draw(st.integers(1, 4)))]
    while delivered:
        size = draw(st.integers(1, len(delivered)))
        batch, delivered = delivered[:size], delivered[size:]
        workers[draw(st.integers(0, len(workers) - 1))].append(batch)
    return cast, workers


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
def test_any_order_duplication_and_batching_by_several_workers_gives_each_voters_newest_choice(
    database_url: str, delivery: tuple[list[tuple[int, str]], list[list[list[int]]]]
) -> None:
    cast, workers = delivery

    async def check() -> None:
        async with connections(database_url, len(workers)) as opened:
            slug = await new_poll(opened[0])

            async def work(connection: Connection, batches: list[list[int]]) -> None:
                for batch in batches:
                    votes = [Vote(slug, voter(cast[n][0]), cast[n][1], EntryId(1000 + n, 0)) for n in batch]
                    await counting.count(connection, newest_per_voter(votes), [])

            await asyncio.gather(*map(work, opened, workers))
            expected = {voter(number): choice for number, choice in cast}
            assert await choices(opened[0], slug) == expected
            held = {choice: votes for choice, votes in (await tallies(opened[0], slug)).items() if votes}
            assert held == {c: list(expected.values()).count(c) for c in set(expected.values())}
            assert await (await opened[0].execute(CONSISTENT)).fetchall() == []

    asyncio.run(check())


async def test_workers_that_revote_for_the_same_voters_at_once_neither_deadlock_nor_drift(database_url: str) -> None:
    async with connections(database_url, 5) as (reader, *workers):
        slug = await new_poll(reader, "ab")
        done = asyncio.Event()

        async def work(number: int, connection: Connection) -> None:
            for turn in range(40):
                batch = [
                    Vote(slug, voter(n), "ab"[(n + turn + number) % 2], EntryId(turn, number * 1000 + n))
                    for n in range(200)
                ]
                await counting.count(connection, newest_per_voter(reversed(batch)), [])

        async def check_tallies() -> int:
            checks = 0
            while not done.is_set():
                assert await (await reader.execute(CONSISTENT)).fetchall() == []
                checks += 1
            return checks

        checking = asyncio.create_task(check_tallies())
        await asyncio.gather(*itertools.starmap(work, enumerate(workers)))
        done.set()
        assert await checking > 3
        assert sum((await tallies(reader, slug)).values()) == 200


async def test_a_revote_replaces_the_vote_and_an_older_one_changes_nothing(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        slug = await new_poll(connection)
        assert await counting.count(connection, [Vote(slug, voter(1), "a", EntryId(5, 0))], []) == 1
        assert await counting.count(connection, [Vote(slug, voter(1), "b", EntryId(5, 1))], []) == 1
        assert await counting.count(connection, [Vote(slug, voter(1), "c", EntryId(4, 9))], []) == 0
        assert await counting.count(connection, [Vote(slug, voter(1), "c", EntryId(5, 1))], []) == 0
        assert await choices(connection, slug) == {voter(1): "b"}
        assert await tallies(connection, slug) == {"a": 0, "b": 1}


async def test_the_revision_grows_with_each_change_and_listeners_are_notified(database_url: str) -> None:
    async with connections(database_url, 2) as (connection, listener):
        slug = await new_poll(connection)
        await listener.execute("LISTEN tallies")
        before = (await poll_states(connection, [slug]))[0][0].revision
        await counting.count(connection, [Vote(slug, voter(1), "a", EntryId(1, 0))], [])
        async for notify in listener.notifies(timeout=5, stop_after=1):
            assert notify.payload == slug
        after = (await poll_states(connection, [slug]))[0][0].revision
        assert after > before


async def test_a_batch_notifies_of_all_its_polls_however_long_their_names(database_url: str) -> None:
    names = {f"{number:03}{'x' * 60}" for number in range(250)}
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    options = Poll("x", "?", (Option("a", "A"), Option("b", "B"))).options_json()
    async with connections(database_url, 2) as (connection, listener):
        for slug in names:
            await connection.execute(QUERIES["define_poll"], {"slug": slug, "question": "?", "options": options})
        await listener.execute("LISTEN tallies")
        votes = [Vote(slug, voter(1), "a", EntryId(1, 0)) for slug in sorted(names)]
        assert await counting.count(connection, votes, [], traceparent) == 250
        payloads = [notify.payload async for notify in listener.notifies(timeout=30, stop_after=3)]
    assert len(payloads) == 3
    assert {payload.partition(" ")[2] for payload in payloads} == {traceparent}
    assert {slug for payload in payloads for slug in payload.partition(" ")[0].split(",")} == names


async def test_a_dead_letter_is_stored_once_whatever_its_bytes(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        entry = EntryId(2**64 - 1, 2**64 - 1)
        letter = DeadLetter(entry, "unknown poll", [b"po\0ll", b"\xff\xfe" * 500_000])
        for _ in range(2):
            await counting.count(connection, [], [letter])
        cursor = await connection.execute("SELECT entry_ms, entry_seq, reason, length(fields) FROM dead_letters")
        assert await cursor.fetchall() == [(2**64 - 1, 2**64 - 1, "unknown poll", counting.MAX_FIELDS_TEXT)]
        assert await counting.newest_entry(connection, 2**63 - 1) == EntryId(0, 0)


async def test_the_newest_entry_is_found_among_many_dead_letters_without_reading_them(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        await connection.execute(
            "INSERT INTO dead_letters SELECT n, 0, 'x', 'y' FROM generate_series(1, 20000) AS n UNION ALL "
            "SELECT 18446744073709551615 - n, 0, 'x', 'y' FROM generate_series(1, 20000) AS n"
        )
        await connection.execute("ANALYZE dead_letters")
        assert await counting.newest_entry(connection, 30_000) == EntryId(20_000, 0)
        query = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {QUERIES['newest_entry']}"
        cursor = await connection.execute(query.encode(), {"max_ms": 30_000})
        plan = "\n".join(line for (line,) in await cursor.fetchall())
        assert "Seq Scan on dead_letters" not in plan
        assert "Rows Removed" not in plan


async def test_the_newest_entry_is_remembered_though_batches_commit_out_of_order(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        slug = await new_poll(connection)
        await counting.count(connection, [Vote(slug, voter(1), "a", EntryId(9_000, 3))], [])
        await counting.count(connection, [Vote(slug, voter(2), "a", EntryId(8_000, 7))], [])
        assert await counting.newest_entry(connection, 10_000) == EntryId(9_000, 3)


async def test_migrating_twice_changes_nothing_and_a_new_label_is_a_new_revision(database_url: str) -> None:
    cats, tea = Definition(labels=("Cats", "Dogs")), Definition("Tea?", ("Dogs", "Cats", "Tea"))
    async with connections(database_url, 2) as (one, two):
        first = (await poll_states(one, ["default"]))[0][0]
        assert list(await asyncio.gather(migrations.migrate(one, cats), migrations.migrate(two, cats))) == [[], []]
        assert (await poll_states(one, ["default"]))[0][0] == first
        await migrations.migrate(one, tea)
        changed = (await poll_states(one, ["default"]))[0][0]
        assert changed.poll.question == "Tea?"
        assert changed.poll.options == (Option("b", "Dogs"), Option("a", "Cats"), Option("c", "Tea"))
        assert changed.revision > first.revision


async def test_removing_an_option_with_votes_is_refused_and_changes_nothing(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        await counting.count(connection, [Vote("default", voter(1), "a", EntryId(1, 0))], [])
        before = await poll_states(connection, ["default"])
        with pytest.raises(DefinitionConflict, match=r"Cats \(1 vote\), Dogs \(0 votes\)"):
            await migrations.migrate(connection, Definition("Another?", ("Red", "Green")))
        assert await poll_states(connection, ["default"]) == before


async def test_a_vote_on_the_stream_is_counted_though_its_option_is_removed(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        await migrations.migrate(connection, Definition("Which?", ("Red", "Green")))
        ((poll,), _) = await read_definitions(connection)
        assert [option.label for option in poll.offered] == ["Red", "Green"]
        late = VoteParser([poll]).read(EntryId(1, 0), [b"poll", b"default", b"voter", voter(1), b"choice", b"a"])
        await counting.count(connection, [late], [])
        state = (await poll_states(connection, ["default"]))[0][0]
        result = evaluate(state.poll, state.votes)
        assert result.total == 1
        votes = {option.label: result.votes[option.key] for option in state.poll.options}
        assert votes == {"Red": 0, "Green": 0, "Cats": 1, "Dogs": 0}


async def test_a_vote_that_is_counted_during_a_migration_is_seen_by_it(database_url: str) -> None:
    async with connections(database_url, 3) as (migrating, worker, other):
        async with worker.transaction():
            await counting.count(worker, [Vote("default", voter(1), "a", EntryId(1, 0))], [])
            change = asyncio.create_task(migrations.migrate(migrating, Definition(labels=("Red", "Green"))))
            await waits_for_a_lock(other, migrating)
        with pytest.raises(DefinitionConflict, match=r"Cats \(1 vote\)"):
            await change


INVALID = [
    "{}",
    "null",
    "[]",
    '[{"key": "a", "label": "A"}, {"key": "a", "label": "B"}]',
    '[{"key": "a\\"b", "label": "A"}, {"key": "c", "label": "B"}]',
    '[{"key": "a"}, {"key": "b", "label": "B"}]',
    '[{"key": "a", "label": " "}, {"key": "b", "label": "B"}]',
    '[{"key": 1, "label": "A"}, {"key": "b", "label": "B"}]',
    "[1, 2]",
]
OLD_ROWS = {  # rows that were valid before the database checked them, each with a key
    '[{"key": "a,b", "label": "A"}, {"key": "c", "label": "B"}]': "a,b",
    '[{"key": "Yes or no", "label": "A"}, {"key": "{}", "label": "B"}]': "{}",
    '[{"key": "a", "label": "A"}]': "a",
    '[{"key": "a", "label": "Same"}, {"key": "b", "label": "SAME"}]': "b",
    '[{"key": "a", "label": " A "}, {"key": "b", "label": "B\\n\u202eC"}]': "b",
    '[{"key": "a", "label": "A", "colour": "red"}, {"key": "b", "label": "B"}]': "a",
    json.dumps([{"key": f"k{number}", "label": f"{number}"} for number in range(21)]): "k20",
    json.dumps([{"key": "a", "label": "x" * 201}, {"key": "b", "label": "B"}]): "a",
}
INSERT = "INSERT INTO polls (slug, question, options) VALUES (%s, %s, %s)"
GOOD = (
    '[{"key": "null", "label": "Ça, \u0663"}, {"key": "b", "label": "B", "retired": false}, {"key": "c", "label": "C"}]'
)


@pytest.mark.parametrize("options", [*INVALID, *OLD_ROWS])
async def test_the_database_refuses_a_poll_that_could_not_be_shown_or_counted(database_url: str, options: str) -> None:
    async with connections(database_url, 1) as (connection,):
        with pytest.raises(psycopg.errors.CheckViolation, match="poll lunch: "):
            await connection.execute(INSERT, ["lunch", "?", options])
        with pytest.raises(psycopg.errors.CheckViolation):
            await connection.execute("UPDATE polls SET options = %s", [options])


@pytest.mark.parametrize("question", ["", " ", "x" * 201, "two\nlines", "a\u202eb"])
async def test_the_database_refuses_a_question_that_could_not_be_shown(database_url: str, question: str) -> None:
    async with connections(database_url, 1) as (connection,):
        with pytest.raises(psycopg.errors.CheckViolation, match="question"):
            await connection.execute(INSERT, ["lunch", question, GOOD])


async def test_sql_keywords_are_valid_slugs_and_keys(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        await connection.execute(INSERT, ["null", "?", GOOD])
        assert await counting.count(connection, [Vote("null", voter(1), "null", EntryId(1, 0))], []) == 1
        assert await tallies(connection, "null") == {"null": 1}


async def test_rows_older_than_the_checks_are_migrated_and_their_votes_are_counted(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        await connection.execute("DELETE FROM schema_migrations WHERE name = '0002_polls.sql'")
        await connection.execute("DROP FUNCTION check_poll CASCADE")
        await connection.execute("UPDATE polls SET options = replace(options::text, '\"a\"', '\"A\"')::jsonb")
        for number, options in enumerate(OLD_ROWS):
            await connection.execute(INSERT, [f"old-{number}", "x" * 250, options])
        for number, options in enumerate(INVALID):
            await connection.execute(INSERT, [f"bad-{number}", "?", options])
        assert await migrations.migrate(connection, Definition(labels=("Cats", "Dogs"))) == ["0002_polls.sql"]

        polls, bad = await read_definitions(connection)
        assert {poll.slug for poll in polls} == {"default", *(f"old-{number}" for number in range(len(OLD_ROWS)))}
        assert set(bad) == {f"bad-{number}" for number in range(len(INVALID))}
        assert {len(poll.question) for poll in polls} == {len("Cats or dogs?"), 200}
        states, bad_too = await poll_states(connection, [*bad, *(poll.slug for poll in polls)])
        assert ([state.poll for state in states], bad_too) == (list(polls), bad)
        votes = [Vote(f"old-{number}", voter(1), key, EntryId(1, 0)) for number, key in enumerate(OLD_ROWS.values())]
        assert await counting.count(connection, newest_per_voter(votes), []) == len(OLD_ROWS)


async def test_an_invalid_default_poll_prevents_only_its_own_change(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        await connection.execute("ALTER TABLE polls DISABLE TRIGGER check_poll")
        await connection.execute("UPDATE polls SET options = '[]'")
        await connection.execute("ALTER TABLE polls ENABLE TRIGGER check_poll")
        await migrations.migrate(connection, Definition())
        with pytest.raises(BadPoll, match="correct its row"):
            await migrations.migrate(connection, Definition("Which?"))


async def waits_for_a_lock(other: Connection, waiting: Connection) -> None:
    query = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"

    async def waits() -> bool:
        return (await other.execute(query, [waiting.info.backend_pid])).rowcount > 0

    await until(waits)


async def test_an_update_by_hand_cannot_change_the_meaning_of_votes(database_url: str) -> None:
    update = "UPDATE polls SET options = %s WHERE slug = 'default'"
    async with connections(database_url, 1) as (connection,):
        await counting.count(connection, [Vote("default", voter(1), "a", EntryId(1, 0))], [])
        with pytest.raises(psycopg.errors.CheckViolation, match="has votes must stay"):
            await connection.execute(update, ['[{"key": "b", "label": "Dogs"}, {"key": "c", "label": "Cats"}]'])
        with pytest.raises(psycopg.errors.CheckViolation, match="stay with its key"):
            await connection.execute(update, ['[{"key": "a", "label": "Birds"}, {"key": "b", "label": "CATS"}]'])
        await connection.execute(update, ['[{"key": "a", "label": "Tomcats"}, {"key": "c", "label": "Birds"}]'])


async def test_workers_whose_plans_differ_lock_polls_in_one_order(database_url: str) -> None:
    """One plan would lock the rows in physical order, the other sorted by slug."""
    async with connections(database_url, 4) as (one, two, holder, other):
        for slug in ("zoo", "ant"):
            await one.execute(INSERT, [slug, "?", GOOD])
        await two.execute("SET enable_hashjoin = off; SET enable_hashagg = off; SET enable_seqscan = off")
        async with holder.transaction():
            await holder.execute("SELECT FROM polls WHERE slug = 'ant' FOR UPDATE")
            tasks = []
            for number, (connection, key) in enumerate(((two, "b"), (one, "c"))):
                votes = [Vote(slug, voter(number), key, EntryId(1, 0)) for slug in ("ant", "zoo")]
                tasks.append(asyncio.create_task(counting.count(connection, votes, [])))
                await waits_for_a_lock(other, connection)
        assert await asyncio.gather(*tasks) == [2, 2]


async def test_the_connection_to_a_silent_database_is_shut_down_at_the_deadline(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        with pytest.raises(psycopg.OperationalError):
            async with deadline(connection, 0.2):
                await connection.execute("SELECT pg_sleep(30)")
        assert connection.closed


async def test_counting_is_paused_until_a_worker_reports_its_backlog(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        assert (await poll_states(connection, ["default"]))[0][0].backlog.paused_since is not None
        backlog = Backlog(lag=7, pending=5, oldest=1.5, accepted=100, removed=0)
        await report_backlog(
            connection,
            "w1",
            lag=backlog.lag,
            pending=backlog.pending,
            oldest=backlog.oldest,
            is_counting=True,
            has_counted=True,
        )
        state = (await poll_states(connection, ["default"]))[0][0]
        assert state.backlog.paused_since is None
        assert state.backlog.waiting == 12
        status = await read_status(connection)
        assert status["last_count"] < 5
        assert set(status["workers"]) == {"w1"}


async def test_a_worker_that_reports_but_cannot_count_leaves_counting_paused(database_url: str) -> None:
    async with connections(database_url, 1) as (connection,):
        await report_backlog(connection, "w1", lag=0, pending=0, oldest=0, is_counting=True, has_counted=True)
        await connection.execute("UPDATE workers SET seen = seen - interval '1 minute'")
        await report_backlog(connection, "w1", lag=7, pending=0, oldest=0, is_counting=False, has_counted=False)
        state = (await poll_states(connection, ["default"]))[0][0]
        assert state.backlog.paused_since is not None
        assert state.backlog.waiting == 7


async def test_a_role_has_few_connections_and_no_temporary_tables(database_url: str) -> None:
    password = "p" * 20
    async with connections(database_url, 1) as (owner,):
        await roles.define_role(owner, "result", password)
        cursor = await owner.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'voting_result'")
        assert await cursor.fetchall() == [(roles.CONNECTIONS["result"],)]
        await owner.execute("SET ROLE voting_result")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await owner.execute("CREATE TEMPORARY TABLE t (n int)")
