"""Closing a round: from a producer through a real Valkey and workers to the record in a real PostgreSQL."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest
import redis
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.integration.test_counter import working
from tests.integration.test_definitions import RESET, Stores
from tests.integration.test_producer import Publisher, running
from tests.waiting import until
from voting.broker import seals
from voting.broker.connection import redis_client
from voting.broker.producer import Refused
from voting.broker.stream import SEALS, STREAM, VERSION
from voting.database.connection import connect
from voting.database.roles import define_role
from voting.operate.secrets import ACL
from voting.polls.record import ballot_line, header_line, parse_record
from voting.polls.tracker import tracker
from voting.polls.vote import EntryId, max_entry_ms
from voting.settings.services import WorkerSettings

pytestmark = pytest.mark.anyio
PASSWORD = "p" * 32
CLOSE = "UPDATE polls SET state = 'closed', closed = now() WHERE slug = 'lunch'"
BALLOTS = "SELECT tracker, choice FROM ballots WHERE poll = 'lunch' ORDER BY tracker"


class Rounds(Stores):
    """The stores of a test, and the closings in them; workers have the rights of their role."""

    def settings(self, name: str = "w1", **more: Any) -> WorkerSettings:
        url = self.database_url.replace("//voting@", f"//voting_worker:{PASSWORD}@")
        return super().settings(name, database_url=url, **more)

    def closings(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT poll, round, cut_ms, cut_seq, final IS NOT NULL FROM closings ORDER BY poll, round")

    def is_final(self, slug: str = "lunch", number: int = 1) -> bool:
        return any(row[:2] == (slug, number) and row[4] for row in self.closings())

    def record(self, number: int = 1) -> dict[str, Any]:
        ((text,),) = self.rows(f"SELECT record FROM closings WHERE poll = 'lunch' AND round = {number}")  # noqa: S608
        found: dict[str, Any] = json.loads(text)
        return found

    def has_stream(self) -> bool:
        with redis.Redis.from_url(self.redis_url) as client:
            return bool(client.exists(STREAM))

    def seals(self) -> dict[bytes, bytes]:
        with redis.Redis.from_url(self.redis_url) as client:
            found = client.hgetall(SEALS)
        return {box: cut for box, cut in found.items() if box != VERSION.encode()}


@pytest.fixture
async def rounds(redis_url: str, database_url: str) -> Rounds:
    async with connect(database_url, name="test", timeout=10) as owner:
        await define_role(owner, "worker", PASSWORD)
    stores = Rounds(redis_url, database_url)
    stores.define("lunch", publish="true")
    return stores


@contextlib.asynccontextmanager
async def voting(rounds: Rounds, *settings: WorkerSettings) -> AsyncIterator[Publisher]:
    """Run workers and the part of a vote service that adds votes, which are accepted inside the block."""
    async with working(*settings), running(rounds.redis_url) as publisher:
        await until(rounds.has_stream)
        yield publisher


async def vote(publisher: Publisher, voters: Sequence[int], choice: bytes = b"a") -> list[bytes | BaseException]:
    votes = (publisher.producer.publish(b"lunch", number.to_bytes(16), choice) for number in voters)
    return await asyncio.gather(*votes, return_exceptions=True)


def accepted(answers: list[bytes | BaseException]) -> int:
    """Return the number of accepted votes; each other one must be refused because the round is closed."""
    refused = [each for each in answers if isinstance(each, BaseException)]
    assert {(str(each), getattr(each, "sent", None)) for each in refused} <= {("closed", False)}
    return len(answers) - len(refused)


async def test_votes_in_flight_at_the_closing_are_counted_or_refused_and_the_record_has_the_counted(
    rounds: Rounds,
) -> None:
    async with voting(rounds, rounds.settings("w1"), rounds.settings("w2")) as publisher:
        answers = []
        closing = asyncio.create_task(asyncio.to_thread(rounds.run, CLOSE))
        first = 0
        while not rounds.is_final():
            answers += await vote(publisher, range(first, first + 50))
            first += 50
        await closing
    total = accepted(answers)
    assert 0 < total < len(answers)
    assert rounds.counted() == {"lunch": total}
    record = rounds.record()
    assert (record["total"], record["tally"]) == (total, {"a": total})
    assert rounds.rows("SELECT count(*) FROM votes") == [(total,)]
    assert rounds.rows("SELECT state FROM polls WHERE slug = 'lunch'") == [("final",)]
    assert rounds.rows("SELECT action, detail ->> 'total' FROM audit WHERE actor = 'worker'") == [("final", str(total))]


async def test_the_published_list_has_the_tracker_that_each_voter_can_compute(rounds: Rounds) -> None:
    ((key,),) = rounds.rows("SELECT key FROM tracker_keys WHERE poll = 'lunch'")
    async with voting(rounds, rounds.settings()) as publisher:
        replaced = await vote(publisher, range(40))
        receipts = await vote(publisher, range(40), b"b")
        await asyncio.to_thread(rounds.run, CLOSE)
        await until(rounds.is_final)
    ballots = rounds.rows(BALLOTS)
    expected = {(tracker(key, EntryId.parse(each)), "b") for each in receipts if isinstance(each, bytes)}
    assert set(ballots) == expected
    assert len(ballots) == len(replaced) == 40
    file = header_line() + b"".join(ballot_line(*ballot) for ballot in ballots)
    assert rounds.record()["ballots"] == hashlib.sha256(file).hexdigest()
    assert not rounds.rows("SELECT 1 FROM tracker_keys WHERE poll = 'lunch'")


async def test_a_round_is_not_final_before_the_votes_up_to_its_cut_are_counted(rounds: Rounds) -> None:
    async with running(rounds.redis_url, wait=False) as publisher:
        async with working(rounds.settings()):
            await until(lambda: publisher.ready and rounds.has_stream())
        assert accepted(await vote(publisher, range(3))) == 3
        with redis.Redis.from_url(rounds.redis_url) as client:
            client.xreadgroup("workers", "frozen", {STREAM: ">"}, count=2)  # by a worker that does not acknowledge
        async with working(rounds.settings(reclaim_seconds=3600)):
            await asyncio.to_thread(rounds.run, CLOSE)
            await until(lambda: rounds.counted() == {"lunch": 1} and bool(rounds.seals()))
            assert not rounds.is_final()
            assert rounds.rows("SELECT state FROM polls WHERE slug = 'lunch'") == [("closed",)]
        async with working(rounds.settings("frozen")):
            await until(rounds.is_final)
    assert rounds.record()["total"] == 3


async def test_a_reset_seals_the_round_that_it_ends(rounds: Rounds) -> None:
    async with voting(rounds, rounds.settings()) as publisher:
        assert accepted(await vote(publisher, range(5))) == 5
        await asyncio.to_thread(rounds.run, RESET)
        await until(rounds.is_final)
        assert accepted(await vote(publisher, range(5, 9))) == 0
        await asyncio.to_thread(rounds.run, "UPDATE polls SET state = 'open' WHERE slug = 'lunch'")
        answers = await asyncio.gather(publisher.producer.publish(b"lunch#2", b"v" * 16, b"a"))
        assert len(answers) == 1
        await until(lambda: rounds.counted() == {"lunch": 5, "lunch#2": 1})
    assert rounds.record()["total"] == 5
    assert rounds.rows("SELECT state, round FROM polls WHERE slug = 'lunch'") == [("open", 2)]


async def test_two_workers_seal_a_round_once(redis: Redis) -> None:
    await redis.xadd(STREAM, {"x": "1"}, id="5-1")
    cut = await seals.seal(redis, "lunch")
    await redis.xadd(STREAM, {"x": "2"}, id="7-0")
    assert (cut, await seals.seal(redis, "lunch"), await seals.seal(redis, "other")) == ((5, 1), (5, 1), (7, 0))
    assert await redis.hget(SEALS, VERSION) == b"2"


async def test_a_forged_last_id_is_no_cut(redis: Redis) -> None:
    await redis.xadd(STREAM, {"x": "1"}, id=f"{max_entry_ms() + 1000}-0")
    with pytest.raises(ResponseError, match="a day ahead"):
        await seals.seal(redis, "lunch")
    assert not await redis.exists(SEALS)


async def test_a_broker_that_lost_the_seal_of_a_closing_gets_the_same_one_again(rounds: Rounds) -> None:
    async with running(rounds.redis_url, wait=False) as publisher:
        async with working(rounds.settings()):
            await until(lambda: publisher.ready and rounds.has_stream())
        await vote(publisher, range(3))
        with redis.Redis.from_url(rounds.redis_url) as client:
            client.xreadgroup("workers", "frozen", {STREAM: ">"}, count=2)
        async with working(rounds.settings(reclaim_seconds=3600)):
            await asyncio.to_thread(rounds.run, CLOSE)
            await until(lambda: any(row[2] for row in rounds.closings()))
            before = rounds.seals()
            with redis.Redis.from_url(rounds.redis_url) as client:
                client.delete(SEALS)
            await until(lambda: rounds.seals() == before)


async def test_a_poll_that_a_restore_has_opened_again_takes_votes(rounds: Rounds) -> None:
    async with voting(rounds, rounds.settings()) as publisher:
        await asyncio.to_thread(rounds.run, CLOSE)
        await until(rounds.is_final)
        assert accepted(await vote(publisher, range(3))) == 0
        restored = "UPDATE polls SET state = 'open' WHERE slug = 'lunch'"
        without = ("ALTER TABLE polls DISABLE TRIGGER check_poll", "ALTER TABLE polls ENABLE TRIGGER check_poll")
        await asyncio.to_thread(rounds.run, "DELETE FROM closings", without[0], restored, without[1])
        await until(lambda: not rounds.seals())
        assert accepted(await vote(publisher, range(3))) == 3
        await until(lambda: rounds.counted() == {"lunch": 3})


async def test_the_seals_of_a_deleted_poll_are_removed(rounds: Rounds) -> None:
    rounds.define("other")
    async with working(rounds.settings()):
        await asyncio.to_thread(rounds.run, RESET, CLOSE.replace("lunch", "other"))
        await until(lambda: set(rounds.seals()) == {b"lunch", b"other"})
        await until(lambda: rounds.is_final() and rounds.is_final("other"))
        await asyncio.to_thread(rounds.run, "DELETE FROM polls WHERE slug = 'lunch'")
        await until(lambda: set(rounds.seals()) == {b"other"})
    assert [row[0] for row in rounds.closings()] == ["other"]


async def test_a_final_round_cannot_be_changed_by_anybody(rounds: Rounds) -> None:
    async with voting(rounds, rounds.settings()) as publisher:
        await vote(publisher, range(3))
        await asyncio.to_thread(rounds.run, CLOSE)
        await until(rounds.is_final)
    for statement in (
        "UPDATE polls SET state = 'open' WHERE slug = 'lunch'",
        "UPDATE polls SET question = 'Other?' WHERE slug = 'lunch'",
        "UPDATE tallies SET votes = votes + 1 WHERE poll = 'lunch'",
        "INSERT INTO tallies VALUES ('lunch', 'b', 1)",
        "UPDATE closings SET record = '{}'",
        "UPDATE closings SET final = NULL",
    ):
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.ObjectNotInPrerequisiteState), match="final"):
            rounds.run(statement)
    parse_record(json.dumps(rounds.record()))


async def test_a_late_entry_that_returns_after_the_end_is_dropped(rounds: Rounds) -> None:
    async with voting(rounds, rounds.settings()) as publisher:
        (receipt,) = await vote(publisher, [1])
        await asyncio.to_thread(rounds.run, CLOSE)
        await until(rounds.is_final)
        assert isinstance(receipt, bytes)
        with redis.Redis.from_url(rounds.redis_url) as client:
            client.xadd(STREAM, {"poll": "lunch", "voter": b"w" * 16, "choice": "b"})
        await until(lambda: rounds.left() == (0, 0))
    assert rounds.counted() == {"lunch": 1}
    assert rounds.rows("SELECT count(*) FROM dead_letters") == [(0,)]


async def test_users_with_the_rights_of_an_earlier_version_vote_on_and_nothing_is_sealed(redis_url: str) -> None:
    rights = ACL["vote"].replace(" %R~{votes}:seals", "")
    assert rights != ACL["vote"]
    async with redis_client(redis_url, timeout=5) as owner:
        await owner.execute_command("ACL", "SETUSER", "early", "reset", "on", ">secret", *rights.split())  # type: ignore[no-untyped-call]
        await owner.xgroup_create(STREAM, "workers", "0", mkstream=True)
        await owner.hset("polls", "lunch", "{}")
        try:
            url = redis_url.replace("unix://", "unix://early:secret@")
            async with running(url, wait=False) as publisher:
                await until(lambda: publisher.producer.refusal_reason is None)
                assert accepted(await vote(publisher, range(2))) == 2
        finally:
            await owner.execute_command("ACL", "DELUSER", "early")  # type: ignore[no-untyped-call]


async def test_a_vote_whose_cut_could_not_be_read_is_neither_accepted_nor_certain(redis_url: str) -> None:
    async with redis_client(redis_url, timeout=5) as owner:
        await owner.xgroup_create(STREAM, "workers", "0", mkstream=True)
        await owner.set(SEALS, "of another type")
        async with running(redis_url, wait=False) as publisher:
            await until(lambda: publisher.producer.refusal_reason is None)
            (answer,) = await vote(publisher, [1])
    assert isinstance(answer, Refused)
    assert answer.sent
