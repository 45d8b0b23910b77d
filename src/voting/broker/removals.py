"""Entries that left the stream though no worker deleted them: votes that may be lost.

Redis counts the entries that were ever added to a stream. Workers count those that they delete, in the same MULTI.
An entry that is neither on the stream nor in this count was removed by somebody else, with XDEL, XTRIM, or XADD and
MAXLEN. `notice` compares the numbers in one script, so the result is exact while votes arrive and are deleted.
XINFO's `lag` is not enough: it forgets removed entries as soon as the next one is added.

Both scripts run at `maxmemory` too, or a full broker could not be drained.
https://redis.io/docs/latest/develop/programmability/lua-api/#script_flags
"""

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

DELETED = b"{votes}:deleted"  # entries that workers have deleted
REMOVED = b"{votes}:removed"  # entries that somebody else has removed; kept for a day after the last of them
KEEP_SECONDS = 24 * 3600

_COUNT = """\
#!lua flags=allow-oom
return redis.call('INCRBY', KEYS[1], ARGV[1])
"""
# An entry that two workers have dealt with is counted twice, and a new stream starts from zero: then the count is too
# high, and is put right without a word.
_NOTICE = """\
#!lua flags=allow-oom
local info, stream = redis.call('XINFO', 'STREAM', KEYS[1]), {}
for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end
local gone = stream['entries-added'] - stream['length']
local deleted = redis.call('GET', KEYS[2])
local missing = gone - (deleted or gone)
if missing ~= 0 or not deleted then redis.call('SET', KEYS[2], gone) end
if missing > 0 then
    redis.call('INCRBY', KEYS[3], missing)
    redis.call('EXPIRE', KEYS[3], ARGV[1])
end
return math.max(0, missing)
"""


def count_deleted(transaction: Pipeline, entries: int) -> None:
    """Add to a transaction that it deletes this many entries."""
    transaction.eval(_COUNT, 1, DELETED, str(entries))


async def notice(client: Redis, stream: bytes) -> int:
    """Return how many entries somebody else has removed since this was last asked, by any worker."""
    missing: int = await client.eval(_NOTICE, 3, stream, DELETED, REMOVED, str(KEEP_SECONDS))
    return missing
