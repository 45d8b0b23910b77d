"""Check that both stores belong to the same installation; `voting adopt` makes them belong to the same one."""

from psycopg import Error as DatabaseError
from redis.exceptions import RedisError

from voting.broker.connection import redis_client
from voting.broker.installation import InstallationMismatch, check_installation
from voting.database.audit import record_command
from voting.database.connection import connect, deadline
from voting.database.installations import add_installations, installations

TIMEOUT = 3.0


async def find_mismatch(redis_url: str, database_url: str) -> str | None:
    """Return a sentence that describes a mismatch; None if there is none or a store does not answer."""
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
    """Add an installation to those that the database belongs to, as its owner; return a sentence for the operator."""
    async with connect(database_url, name="adopt", timeout=TIMEOUT) as database, database.transaction():
        if await add_installations(database, [installation]):
            await record_command(database, "adopt", installation=installation)
    return f"votes of installation {installation} are counted into this database"
