"""A change of the database: a transaction, who makes it, and its rows in the audit log."""

import json
from typing import Any

from voting.admin.identity import Identity
from voting.database.connection import Connection
from voting.database.queries import QUERIES


class Change:
    """What operations get: they write through `connection`, and `record` what they did in the same transaction."""

    def __init__(self, connection: Connection, who: Identity) -> None:
        self.connection, self.who = connection, who
        self.actions: list[str] = []

    async def record(self, action: str, *, poll: str | None = None, session: str | None = None, **detail: Any) -> None:
        """Write a row of the audit log; `detail` must have no key and no link."""
        self.actions.append(action)
        row = {"actor": self.who.role, "action": action, "poll": poll, "session": session or self.who.session}
        await self.connection.execute(QUERIES["admin_record"], row | {"detail": json.dumps(detail)})

    async def execute(self, query: str, **values: Any) -> None:
        """Run a statement of admin.sql."""
        await self.connection.execute(QUERIES[query], values)
