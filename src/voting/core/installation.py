"""The id of an installation, which both stores hold, so that votes are counted only into the database they belong to.

The table `installation` holds the id that a migration made, and those that came with a restored backup or
`voting adopt`. The key `installation` of the broker holds one of them; a worker writes it where there is none. Without
this check an empty database beside a broker in use, as after an image of PostgreSQL's next major version or with a
wrong volume, would count what comes from now on, and nothing would look wrong.
"""

from psycopg import Error as DatabaseError
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from voting.core import logs, store, stream
from voting.core.lifecycle import Backoff, Stop, pause

PATIENCE = 3.0

log = logs.get()


class Mismatch(Exception):
    """The database does not belong to the broker; the message says what to do."""

    def __init__(self, broker: str) -> None:
        super().__init__(
            f"the broker belongs to installation {broker}, and this database does not, so no vote is counted: "
            "let DATABASE_URL name the database of that installation, or restore its backup (voting restore); "
            f"to give that database up and count into this one: voting adopt {broker}"
        )


async def check(database: store.Connection, redis: Redis, *, write: bool = False) -> None:
    """Compare the two stores.

    Args:
        database: an open connection.
        redis: an open connection.
        write: give the broker an id of the database if it has none.

    Raises:
        Mismatch: the broker has an id that the database does not have.
        redis.NoPermissionError: the broker's user may not do this: its rights are of an earlier version.
    """
    async with store.deadline(database, PATIENCE):
        ids = await store.installations(database)
    held = await (stream.claim_installation(redis, ids[0]) if write and ids else stream.installation(redis))
    if held is not None and held not in ids:
        raise Mismatch(held)


async def matches(stop: Stop, database: store.Connection, redis: Redis) -> bool:
    """Wait until the two stores belong together; return False if told to stop before.

    Raises:
        redis.RedisError, psycopg.Error, OSError: a store failed.
    """
    backoff = Backoff(0.5, 5)
    while not stop.is_set():
        try:
            await check(database, redis, write=True)
        except Mismatch as mismatch:
            wait = backoff.next()
            log.error("installation.mismatch", error=str(mismatch), retry_in=round(wait, 2))
            await pause(stop, wait)
        except NoPermissionError as error:
            log.warning("installation.unchecked", error=str(error), fix="restart Redis: it then reads its users again")
            return True
        else:
            return True
    return False


async def problem(redis_url: str, database_url: str) -> str | None:
    """Return what is wrong, for a person; None also if a store does not answer, which others report."""
    try:
        async with (
            stream.connect(redis_url, timeout=PATIENCE) as redis,
            store.connect(database_url, name="installation", patience=PATIENCE) as database,
        ):
            await check(database, redis)
    except Mismatch as mismatch:
        return str(mismatch)
    except (DatabaseError, RedisError, OSError):
        return None
    return None


async def adopt(database_url: str, installation: str) -> str:
    """Let a database belong to one more installation, as its owner; return a sentence that says so."""
    async with store.connect(database_url, name="adopt", patience=PATIENCE) as database:
        await store.add_installations(database, [installation])
    return f"votes of installation {installation} are counted into this database"
