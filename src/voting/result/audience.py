"""Writes how many people are in each session, as this process counts them: the ballots that are open.

The admin service adds up what the processes have written in the last seconds.
"""

import secrets

import psycopg

from voting.database.connection import Connection
from voting.database.session_state import delete_audiences, write_audiences
from voting.result.hub import Hub
from voting.service import logs

AGAIN_SECONDS = 1.5  # after which the same number is written again

# The number is not worth an outage: the role may lack a grant until the next migration, or the server be a replica.
_TOLERATED = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,
    psycopg.errors.ReadOnlySqlTransaction,
)

log = logs.get()


class AudienceWriter:
    """Writes the numbers that have changed, and each number above 0 again after `AGAIN_SECONDS`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._replica = secrets.token_hex(8)
        self._written: dict[str, tuple[int, float]] = {}  # code -> number, and when it was written

    async def write(self, connection: Connection, now: float) -> None:
        """Write what is due; called once a second, with the time of a monotonic clock."""
        people = {code: session.people for code, session in self._hub.sessions.items()}
        due = {code: number for code, number in people.items() if self._is_due(code, number, now)}
        due |= {code: 0 for code, (number, _) in self._written.items() if number and code not in people}
        if due:
            try:
                await write_audiences(connection, self._replica, due)
            except _TOLERATED as error:
                log.warning("audience.unwritten", error=f"{type(error).__name__}: {error}")
            self._written |= {code: (number, now) for code, number in due.items()}
            self._written = {code: each for code, each in self._written.items() if each[0]}

    def _is_due(self, code: str, number: int, now: float) -> bool:
        written, at = self._written.get(code, (0, now))
        return number != written or (number > 0 and now - at > AGAIN_SECONDS)

    async def delete(self, connection: Connection) -> None:
        """Delete the rows of this process, and old ones of others."""
        try:
            await delete_audiences(connection, self._replica)
        except _TOLERATED as error:
            log.warning("audience.unwritten", error=f"{type(error).__name__}: {error}")
