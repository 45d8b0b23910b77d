"""The admin service, which dies at a failpoint: the product patched in memory, for tests only.

python -m tests.faults.admin_failpoints FAILPOINT admin
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.faults.failpoints import die, first_call
from voting import __main__ as command
from voting.admin import webhooks
from voting.admin.change import Change
from voting.admin.database import Database


def change_recorded() -> None:
    """Die when a change of a poll's state and its row of the audit log are written, before COMMIT."""
    original = Change.record

    async def record(self: Change, action: str, **more: Any) -> None:
        await original(self, action, **more)
        if action in {"open", "close"} and first_call():
            die()

    Change.record = record  # type: ignore[method-assign]


def change_committed() -> None:
    """Die when a change is committed, before the answer."""
    original = Database.write

    @asynccontextmanager
    async def write(self: Database, who: Any) -> AsyncIterator[Any]:
        async with original(self, who) as change:
            yield change
        if first_call():
            die()

    Database.write = write  # type: ignore[method-assign]


def webhook_sent() -> None:
    """Die when a webhook is delivered, before that is stored."""
    original = webhooks._post

    def post(url: str, body: bytes, headers: dict[str, str]) -> int:
        status = original(url, body, headers)
        if 200 <= status < 300 and first_call():
            die()
        return status

    webhooks._post = post


FAILPOINTS = {function.__name__: function for function in (change_recorded, change_committed, webhook_sent)}

if __name__ == "__main__":
    FAILPOINTS[sys.argv.pop(1)]()
    command.main()
