"""The stream of votes and its consumer group, for the worker.

Only commands of both Redis 7.0 and Valkey are used. A worker acknowledges and deletes an entry in one MULTI after the
database's COMMIT, so the length of the stream is the number of votes that wait to be counted. All methods raise
redis-py's errors, and can be repeated after an error.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError, ResponseError, WatchError

from voting.broker import removals
from voting.polls.vote import MAX_SEQ, EntryId, max_entry_ms

STREAM = b"votes"
GROUP = b"workers"
SEALS, VERSION = b"{votes}:seals", "#"  # the hash of seals, and the field that counts its changes: see seals.py

_ZERO = EntryId(0, 0)

Entry = tuple[EntryId, list[bytes]]


@dataclass(frozen=True, slots=True)
class Backlog:
    """The entries that wait to be counted."""

    lag: int  # entries that no worker has read
    pending: int  # entries that were read and are not acknowledged
    oldest: float  # age of the oldest of all these, in seconds
    accepted: int  # entries ever added
    removed: int  # entries that other clients removed, see `removals.REMOVED`

    @property
    def waiting(self) -> int:
        """Votes that are accepted and not counted yet."""
        return self.lag + self.pending


class ClockSkew(RedisError):
    """The clocks of broker and worker differ too much to detect forged ids: an outage, which makes no dead letters."""


class Consumer:
    """One member of the consumer group. Its name must survive a restart, so that it finds its pending entries.

    Attributes:
        seals: the version of the seals, read after the entries that were read last: see seals.py.
    """

    def __init__(self, client: Redis, name: str) -> None:
        self.seals = b""
        self._client = client
        self._name = name.encode()
        for command in ("XREADGROUP", "XAUTOCLAIM"):  # plain lists: redis-py's parsing costs more than the read
            client.set_response_callback(command, lambda response, **_: response)

    async def ensure_group(self, newest: EntryId) -> bool:
        """Create the group, and the stream if it is missing; return whether the group was created.

        The group starts at the first entry. The last id of a new stream is `newest`, that of the newest entry
        counted. Otherwise a broker whose clock is behind would generate lower ids, and a revote would seem older than
        the vote it replaces. Until the stream exists, XADD NOMKSTREAM refuses votes.
        """
        async with self._client.pipeline(transaction=True) as transaction:
            await transaction.watch(STREAM)
            stream_exists = bool(await transaction.exists(STREAM))
            if stream_exists and any(group["name"] == GROUP for group in await transaction.xinfo_groups(STREAM)):
                return False
            transaction.multi()  # type: ignore[no-untyped-call]
            return await _set_up_stream(transaction, create_group=True, last_id=_ZERO if stream_exists else newest)

    async def max_entry_ms(self) -> int:
        """Return the largest valid time of an entry id, a day ahead of our clock (`polls.vote.max_entry_ms`).

        Raises:
            ClockSkew: the broker's clock is already past it, so all new entries would be invalid.
        """
        seconds, _ = await self._client.time()
        max_ms = max_entry_ms()
        if seconds * 1000 > max_ms:
            raise ClockSkew("The broker's clock is more than a day ahead of ours. Set the one that is wrong.")
        return max_ms

    async def align(self, newest: EntryId, max_ms: int) -> str:
        """Make the stream generate ids between the newest entry counted and `max_ms`; return what was changed, or "".

        "raised": the last id was increased. The next ids would have been below `newest`, as after restoring a database
        that had counted votes of another broker, whose clock was ahead. Or a forged id had a sequence number that the
        database cannot store; the last id is then set to the next millisecond.

        "renewed": the stream was deleted and created again. Its last id was above the limit, so it was forged; the next
        ids would have been higher, or there would be none. XSETID cannot set an id below that of a deleted entry, so
        the stream is deleted, as soon as it has no entries. The vote service refuses votes until then.
        """
        async with self._client.pipeline(transaction=True) as transaction:
            await transaction.watch(STREAM)
            info = await transaction.xinfo_stream(STREAM)
            last = EntryId.parse(info["last-generated-id"])
            if last.seq > MAX_SEQ and last.ms <= max_ms:
                newest = max(newest, EntryId(last.ms + 1, 0))
            if newest <= last and last.ms <= max_ms:
                return ""
            renew = last.ms > max_ms
            if renew and info["length"]:
                return ""  # its votes are counted first, and the forged entries become dead letters
            transaction.multi()  # type: ignore[no-untyped-call]
            if renew:
                transaction.delete(STREAM)
                transaction.set(removals.DELETED, 0)  # else removed entries could go undetected
            if not await _set_up_stream(transaction, create_group=renew, last_id=newest):
                return ""  # the next call tries again
        return "renewed" if renew else "raised"

    async def read_new(self, count: int, block: float) -> list[Entry]:
        """Return up to `count` entries that no consumer has read; wait up to `block` seconds for the first."""
        return await self._read(b">", count, b"BLOCK", int(block * 1000))

    async def read_own_pending(self, count: int) -> list[Entry]:
        """Return up to `count` entries that this consumer has read and not acknowledged, oldest first."""
        return await self._read(b"0", count)

    async def _read(self, start: bytes, count: int, *options: Any) -> list[Entry]:
        async with self._client.pipeline(transaction=False) as commands:
            commands.execute_command(
                "XREADGROUP", "GROUP", GROUP, self._name, "COUNT", count, *options, "STREAMS", STREAM, start
            )
            commands.hget(SEALS, VERSION)
            reply, version = await commands.execute()
        self.seals = version or b""
        return _entries(reply[0][1]) if reply else []

    async def claim(self, count: int, idle: float) -> AsyncIterator[list[Entry]]:
        """Claim entries that have been pending for `idle` seconds or longer, because their worker seems dead.

        Yield batches of at most `count`, until all pending entries have been scanned; one call of XAUTOCLAIM scans ten
        times as many as it may return. https://redis.io/docs/latest/commands/xautoclaim/
        """
        cursor = b"0-0"
        while True:
            async with self._client.pipeline(transaction=False) as commands:
                commands.execute_command(
                    "XAUTOCLAIM", STREAM, GROUP, self._name, int(idle * 1000), cursor, "COUNT", count
                )
                commands.hget(SEALS, VERSION)
                (cursor, claimed, *deleted), version = await commands.execute()
            self.seals = version or b""
            removed = [[entry_id, None] for entry_id in (deleted[0] if deleted else ())]
            if entries := _entries([*claimed, *removed]):
                yield entries
            if cursor == b"0-0":
                return

    async def acknowledge(self, entries: list[EntryId]) -> None:
        """Acknowledge and delete entries whose outcome is committed, in one transaction."""
        ids = [b"%d-%d" % entry for entry in entries]
        async with self._client.pipeline(transaction=True) as transaction:
            transaction.xack(STREAM, GROUP, *ids)
            transaction.xdel(STREAM, *ids)
            removals.add_deleted(transaction, len(ids))
            await transaction.execute()


async def _set_up_stream(transaction: Pipeline, *, create_group: bool, last_id: EntryId) -> bool:
    """Create the group of the watched stream if asked; set the last id unless it is 0-0.

    Return False if the stream has changed since WATCH: another worker was faster, or a vote arrived.
    https://redis.io/docs/latest/commands/xsetid/
    """
    if create_group:
        transaction.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    if last_id > _ZERO:
        transaction.execute_command("XSETID", STREAM, str(last_id))
    try:
        await transaction.execute()
    except WatchError:
        return False
    return True


async def backlog(client: Redis) -> Backlog | None:
    """Return the backlog of the stream; None if the stream or the group is missing.

    The lag is computed from the length, because XINFO's own can be unknown after deletions:
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
        added = EntryId.parse(info["first-entry"][0]).ms / 1000
        oldest = max(0.0, seconds + microseconds / 1e6 - added)
    lag = info["length"] - pending["pending"]
    return Backlog(lag, pending["pending"], oldest, info["entries-added"], int(removed or 0))


def _entries(reply: list[Any]) -> list[Entry]:
    """Parse the ids of a reply; an entry that was deleted while pending gets an empty list of fields."""
    return [(EntryId.parse(entry_id), fields or []) for entry_id, fields in reply if entry_id is not None]
