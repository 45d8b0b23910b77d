"""The hash of seals: the box of each closed round -> its cut, the last entry id that counts. See polls/closing.py.

A seal is set once, in a script, so that no vote is added between reading the stream's last id and storing it. The field
`#` counts the changes of the hash, so that a worker can see with one small read that nothing was sealed.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import WatchError

from voting.broker.stream import SEALS, STREAM, VERSION
from voting.polls.vote import EntryId, max_entry_ms

# The stream's last id is refused if it is forged: then a worker creates it again, and the round is sealed later.
# HSET also when nothing changes: a transaction that watches the hash must fail then.
_SEAL = """\
#!lua flags=allow-oom
local cut = redis.call('HGET', KEYS[2], ARGV[1])
if not cut then
    cut = ARGV[2]
    if cut == '' then
        local info = redis.call('XINFO', 'STREAM', KEYS[1])
        for i = 1, #info, 2 do
            if info[i] == 'last-generated-id' then cut = info[i + 1] end
        end
        if tonumber(string.match(cut, '^%d+')) > tonumber(ARGV[3]) then
            return redis.error_reply('the last id of the stream is more than a day ahead')
        end
    end
    redis.call('HINCRBY', KEYS[2], '#', 1)
end
redis.call('HSET', KEYS[2], ARGV[1], cut)
return cut
"""


async def seal(client: Redis, box: str, cut: EntryId | None = None) -> EntryId:
    """Seal a round, unless it is sealed; return its cut.

    Args:
        client: has the rights of a worker.
        box: of the round.
        cut: the one that the database has; None for the last id of the stream.

    Raises:
        redis.ResponseError: there is no stream yet, or its last id is not valid.
    """
    known = "" if cut is None else str(cut)
    reply = await cast("Awaitable[bytes]", client.eval(_SEAL, 2, STREAM, SEALS, box, known, str(max_entry_ms())))
    return EntryId.parse(reply)


async def read_cuts(client: Redis, boxes: Iterable[bytes]) -> dict[bytes, EntryId]:
    """Return the cuts of those of these rounds that are sealed."""
    names = list(boxes)
    cuts = cast("list[bytes | None]", await client.hmget(SEALS, cast("list[str]", names))) if names else []
    return {box: EntryId.parse(cut) for box, cut in zip(names, cuts, strict=True) if cut is not None}


async def has_passed(client: Redis, cut: EntryId) -> bool:
    """Whether the stream exists and has no entry up to a cut any more, so all of them are counted."""
    async with client.pipeline(transaction=True) as transaction:
        transaction.exists(STREAM)
        transaction.xrange(STREAM, "-", str(cut), count=1)
        exists, entries = await transaction.execute()
    return bool(exists) and not entries


async def unseal(
    client: Redis, slugs: Sequence[str], open_boxes: Callable[[Sequence[str]], Awaitable[set[str]]]
) -> int:
    """Remove the seals of rounds that are open: after a restore of an older database. Return their number.

    Args:
        client: has the rights of a worker.
        slugs: of polls.
        open_boxes: returns the current rounds of those of these polls that are not closed. It is called while the hash
            is watched: a round that closes later is sealed again, so the transaction fails.
    """
    if not await client.hlen(SEALS):
        return 0
    while True:
        async with client.pipeline(transaction=True) as transaction:
            await transaction.watch(SEALS)
            sealed = await read_cuts(transaction, [box.encode() for box in await open_boxes(slugs)])
            if not sealed:
                return 0
            transaction.multi()  # type: ignore[no-untyped-call]
            transaction.hdel(SEALS, *cast("list[str]", list(sealed)))
            transaction.hincrby(SEALS, VERSION, 1)
            try:
                await transaction.execute()
            except WatchError:
                continue
            return len(sealed)


async def forget(client: Redis, slugs: Sequence[str]) -> None:
    """Remove the seals of polls that were deleted: no vote in them counts any more."""
    deleted = {slug.encode() for slug in slugs}
    if not deleted:
        return
    async with client.pipeline(transaction=True) as transaction:
        await transaction.watch(SEALS)
        boxes = cast("list[bytes]", await transaction.hkeys(SEALS))
        gone = [box for box in boxes if box.partition(b"#")[0] in deleted]
        transaction.multi()  # type: ignore[no-untyped-call]
        if gone:
            transaction.hdel(SEALS, *cast("list[str]", gone))
            transaction.hincrby(SEALS, VERSION, 1)
        with contextlib.suppress(WatchError):  # one may be of a poll that was made again; they stay
            await transaction.execute()
