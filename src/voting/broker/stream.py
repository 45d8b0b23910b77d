"""The stream of votes in Redis or Valkey, seen from the worker: a consumer group that loses no entry.

Only commands that Redis 7.0 and Valkey share. An entry leaves the stream when its acknowledgement and its
deletion, one MULTI, have run after the database's COMMIT; so the length of the stream is the number of votes
that still wait to be counted. Whatever fails here raises a redis-py error and changes nothing that a second
try would not repair.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError, WatchError

from voting.broker import removals
from voting.polls import MAX_SEQ, EntryId, latest_ms

STREAM = b"votes"
GROUP = b"workers"

Entry = tuple[EntryId, list[bytes]]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: entries not yet read, entries read but not yet counted, and the age of the oldest in seconds.

    `accepted`: entries ever added. `missing`: entries that somebody other than a worker removed lately.
    """

    lag: int
    pending: int
    oldest: float
    accepted: int
    missing: int = 0

    @property
    def waiting(self) -> int:
        """Votes that were accepted and are not counted yet."""
        return self.lag + self.pending


class ClocksApart(RedisError):
    """Nobody can say now which entry ids are forged. To be tried again, like an outage: nothing is put aside."""


class Consumer:
    """One member of the consumer group. Its name must outlive a restart, for it takes up its own pending first."""

    def __init__(self, client: Redis, name: str) -> None:
        self._client = client
        self._name = name.encode()
        for command in ("XREADGROUP", "XAUTOCLAIM"):  # plain lists: redis-py's own parsing costs more than the read
            client.set_response_callback(command, lambda response, **_: response)

    async def ensure_group(self, newest: EntryId) -> bool:
        """Create the group from the very first entry, and the stream if it is gone; True when it was missing.

        A stream that is made again must not give ids below those of votes already counted (`newest`), or a
        revote would look older than the vote it replaces, as when the clock of a new broker is behind. So it
        starts at `newest`; until then XADD NOMKSTREAM refuses votes. WATCH keeps two workers from doing this over
        each other. https://redis.io/docs/latest/commands/xsetid/
        """
        async with self._client.pipeline(transaction=True) as transaction:
            await transaction.watch(STREAM)
            stream_exists = bool(await transaction.exists(STREAM))
            if stream_exists and any(group["name"] == GROUP for group in await transaction.xinfo_groups(STREAM)):
                return False
            transaction.multi()  # type: ignore[no-untyped-call]
            transaction.xgroup_create(STREAM, GROUP, "0", mkstream=True)
            if not stream_exists and newest > (0, 0):
                transaction.execute_command("XSETID", STREAM, str(newest))
            try:
                await transaction.execute()
            except WatchError:
                return False  # another worker was quicker, or a vote arrived; the next read tells
        return True

    async def latest_ms(self) -> int:
        """Return the largest id that may be a vote's, as `ballot.latest_ms` does.

        Raises:
            ClocksApart: the broker's clock is past it, so that all its new entries would be.
        """
        seconds, _ = await self._client.time()
        latest = latest_ms()
        if seconds * 1000 > latest:
            raise ClocksApart("The broker's clock is more than a day ahead of ours. Set the one that is wrong.")
        return latest

    async def align(self, newest: EntryId, latest: int) -> str:
        """See to it that the stream gives ids between the newest entry counted and a limit; return what had to be done.

        "raised": it would have given ids up to `newest`, as after a database was restored that had counted the votes of
        another broker, whose clock was ahead; or a forged id had such a sequence number that the database could not
        hold those that follow. "renewed": an entry with an id above the limit, which only a forger's can be, had made
        it give none, or such ids alone. Such an id stays with the key (XSETID refuses to go below a deleted entry), so
        the key is made anew as soon as no entry is on it. In both cases vote refuses votes meanwhile.

        Args:
            newest: from `store.newest_entry`.
            latest: from `latest_ms`.
        """
        async with self._client.pipeline(transaction=True) as transaction:
            await transaction.watch(STREAM)
            info = await transaction.xinfo_stream(STREAM)
            last = EntryId.parse(info["last-generated-id"])
            if last.seq > MAX_SEQ and last.ms <= latest:
                newest = max(newest, EntryId(last.ms + 1, 0))
            if newest <= last and last.ms <= latest:
                return ""
            renew = last.ms > latest
            if renew and info["length"]:
                return ""  # first votes are counted, and forged entries put aside
            transaction.multi()  # type: ignore[no-untyped-call]
            if renew:
                transaction.delete(STREAM)
                transaction.xgroup_create(STREAM, GROUP, "0", mkstream=True)
                transaction.set(removals.DELETED, 0)  # or it would hide as many entries that are removed next
            if newest > (0, 0):
                transaction.execute_command("XSETID", STREAM, str(newest))
            try:
                await transaction.execute()
            except WatchError:
                return ""  # a vote arrived, or another worker was quicker; the next look tells
        return "renewed" if renew else "raised"

    async def read_new(self, count: int, block: float) -> list[Entry]:
        """Up to `count` entries that no consumer has had; waits up to `block` seconds for the first."""
        return await self._read(b">", count, b"BLOCK", int(block * 1000))

    async def read_own_pending(self, count: int) -> list[Entry]:
        """Entries that this consumer had before and did not acknowledge, oldest first."""
        return await self._read(b"0", count)

    async def _read(self, start: bytes, count: int, *options: Any) -> list[Entry]:
        reply = await self._client.execute_command(  # type: ignore[no-untyped-call]
            "XREADGROUP", "GROUP", GROUP, self._name, "COUNT", count, *options, "STREAMS", STREAM, start
        )
        return _entries(reply[0][1]) if reply else []

    async def claim(self, count: int, idle: float) -> AsyncIterator[list[Entry]]:
        """Take over entries that other consumers have held for `idle` seconds or longer: their worker has died.

        Yields them in batches of at most `count`, until all pending entries have been looked at; one call of XAUTOCLAIM
        looks at ten times as many as it may return. https://redis.io/docs/latest/commands/xautoclaim/
        """
        cursor = b"0-0"
        while True:
            cursor, claimed, *deleted = await self._client.execute_command(  # type: ignore[no-untyped-call]
                "XAUTOCLAIM", STREAM, GROUP, self._name, int(idle * 1000), cursor, "COUNT", count
            )
            gone = [[entry_id, None] for entry_id in (deleted[0] if deleted else ())]
            if entries := _entries([*claimed, *gone]):
                yield entries
            if cursor == b"0-0":
                return

    async def done(self, entries: list[EntryId]) -> None:
        """Acknowledge and delete entries whose outcome is committed; both or neither happen."""
        ids = [b"%d-%d" % entry for entry in entries]
        async with self._client.pipeline(transaction=True) as transaction:
            transaction.xack(STREAM, GROUP, *ids)
            transaction.xdel(STREAM, *ids)
            removals.count_deleted(transaction, len(ids))
            await transaction.execute()


async def backlog(client: Redis) -> Backlog | None:
    """What waits on the stream now; None while there is no stream or no group.

    The lag is reckoned from the length, because XINFO's own can be unknown after deletions:
    https://redis.io/docs/latest/commands/xinfo-groups/#lag
    """
    async with client.pipeline(transaction=True) as transaction:
        transaction.xinfo_stream(STREAM)
        transaction.xpending(STREAM, GROUP)
        transaction.time()
        transaction.get(removals.REMOVED)
        try:
            info, pending, (seconds, microseconds), removed = await transaction.execute()
        except ResponseError as error:
            if "no such key" in str(error) or "NOGROUP" in str(error):
                return None
            raise
    oldest = 0.0
    if info["first-entry"]:
        born = EntryId.parse(info["first-entry"][0]).ms / 1000
        oldest = max(0.0, seconds + microseconds / 1e6 - born)
    waiting = info["length"] - pending["pending"]
    return Backlog(waiting, pending["pending"], oldest, info["entries-added"], int(removed or 0))


def _entries(reply: list[Any]) -> list[Entry]:
    """Give ids their form; an entry that was deleted while pending has no fields, and reads as an empty one."""
    return [(EntryId.parse(entry_id), fields or []) for entry_id, fields in reply if entry_id is not None]
