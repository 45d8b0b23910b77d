"""Whether the two stores belong to one installation, and `voting adopt`, which makes them belong to one."""

from psycopg import Error as DatabaseError
from redis.exceptions import RedisError

from voting.broker.connection import redis_client
from voting.broker.installation import InstallationMismatch, check_installation
from voting.database.connection import connect, deadline
from voting.database.installations import add_installations, installations

TIMEOUT = 3.0


async def find_mismatch(redis_url: str, database_url: str) -> str | None:
    """Return what is wrong, for a person; None also if a store does not answer, which others report."""
    try:
        async with (
            redis_client(redis_url, timeout=TIMEOUT) as redis,
            connect(database_url, name="installation", timeout=TIMEOUT) as database,
        ):
            async with deadline(database, TIMEOUT):
                ids = await installations(database)
            await check_installation(redis, ids)
    except InstallationMismatch as mismatch:
        return str(mismatch)
    except (DatabaseError, RedisError, OSError):
        return None
    return None


async def adopt(database_url: str, installation: str) -> str:
    """Let a database belong to one more installation, as its owner; return a sentence that says so."""
    async with connect(database_url, name="adopt", timeout=TIMEOUT) as database:
        await add_installations(database, [installation])
    return f"votes of installation {installation} are counted into this database"
