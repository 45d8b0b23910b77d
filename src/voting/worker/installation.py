"""The check that the database belongs to the broker, before a worker counts."""

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from voting.broker.connection import RIGHTS_FIX
from voting.broker.installation import InstallationMismatch, check_installation
from voting.database.connection import Connection, deadline
from voting.database.installations import installations
from voting.service import logs
from voting.service.lifecycle import Backoff, Stop, pause

TIMEOUT = 3.0  # seconds; time limit of the database

log = logs.get()


async def wait_for_match(stop: Stop, database: Connection, redis: Redis) -> bool:
    """Wait until the database belongs to the broker; return False if `stop` is set first."""
    backoff = Backoff(0.5, 5)
    while not stop.is_set():
        async with deadline(database, TIMEOUT):
            ids = await installations(database)
        try:
            await check_installation(redis, ids, claim=True)
        except InstallationMismatch as mismatch:
            wait = backoff.next()
            log.error("installation.mismatch", error=str(mismatch), retry_in=round(wait, 2))
            await pause(stop, wait)
        except NoPermissionError as error:
            log.warning("installation.unchecked", error=str(error), fix=RIGHTS_FIX)
            return True
        else:
            return True
    return False
