"""Detects entries that other clients than workers removed from the stream: votes that may be lost.

Redis counts the entries ever added to a stream. Workers count those that they delete, in the same MULTI. An entry that
is neither on the stream nor in this count was removed by another client, with XDEL, XTRIM, or XADD and MAXLEN.
`detect` compares the numbers in one script, so the result is exact while votes arrive and are deleted.
XINFO's `lag` is not enough: it no longer includes removed entries after the next XADD.

Both scripts also run at `maxmemory`; otherwise the stream of a full broker could not be emptied.
https://redis.io/docs/latest/develop/programmability/lua-api/#script_flags
"""

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

DELETED = b"{votes}:deleted"  # entries that workers have deleted
REMOVED = b"{votes}:removed"  # entries that others have removed; expires a day after the last of them
KEEP_SECONDS = 24 * 3600

_ADD_DELETED = """\
#!lua flags=allow-oom
return redis.call('INCRBY', KEYS[1], ARGV[1])
"""
# An entry that two workers have acknowledged is counted twice, and a new stream starts from zero. In both cases the
# count is too high; it is corrected and nothing is reported.
_DETECT = """\
#!lua flags=allow-oom
local info, stream = redis.call('XINFO', 'STREAM', KEYS[1]), {}
for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end
local removed = stream['entries-added'] - stream['length']
local deleted = redis.call('GET', KEYS[2])
local missing = removed - (deleted or removed)
if missing ~= 0 or not deleted then redis.call('SET', KEYS[2], removed) end
if missing > 0 then
    redis.call('INCRBY', KEYS[3], missing)
    redis.call('EXPIRE', KEYS[3], ARGV[1])
end
return math.max(0, missing)
"""


def add_deleted(transaction: Pipeline, entries: int) -> None:
    """Add to the count of deleted entries, in the transaction that deletes them."""
    transaction.eval(_ADD_DELETED, 1, DELETED, str(entries))


async def detect(client: Redis, stream: bytes) -> int:
    """Return how many entries others have removed since the last call by any worker."""
    removed: int = await client.eval(_DETECT, 3, stream, DELETED, REMOVED, str(KEEP_SECONDS))
    return removed
