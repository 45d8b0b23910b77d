"""`voting status`: show whether each part is up, and how many votes are accepted, waiting and counted.

It queries both stores and the readiness of the web services. Their addresses are REDIS_URL, DATABASE_URL, VOTE_URL,
RESULT_URL and ADMIN_URL, or those of `voting up` (`addresses`).
"""

import asyncio
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from redis.exceptions import RedisError

from voting.broker import stream
from voting.broker.connection import redis_client
from voting.database.connection import connect, deadline
from voting.database.definition import poll_problems
from voting.database.poll_state import read_definitions
from voting.database.status import latest_polls, read_status
from voting.operate import addresses, installation
from voting.service import probe
from voting.settings.urls import redacted

TIMEOUT_SECONDS = 3.0
WORKER_SECONDS = 3.0  # a worker reports every second
OLDEST_SECONDS = 10.0
RECHECK_SECONDS = 2.0  # two reports of a worker
MAX_POLLS = 20  # in the list


@dataclass
class Status:
    """The state of the installation; `problems` are sentences that say what is wrong and what to do."""

    parts: dict[str, str] = field(default_factory=dict)  # name -> "up" or "down"
    accepted: int | None = None
    lag: int | None = None
    pending: int | None = None
    oldest_seconds: float | None = None
    counted: int | None = None
    dead_letters: int | None = None
    last_count_seconds: float | None = None
    polls: list[dict[str, Any]] = field(default_factory=list)  # slug, state, round, votes of at most MAX_POLLS
    more_polls: int = 0  # that are not listed
    problems: list[str] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Whether votes wait and none was counted recently; this does not depend on the broker's clock."""
        lately = self.last_count_seconds is not None and self.last_count_seconds <= OLDEST_SECONDS
        return bool(self.lag or self.pending) and not lately

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    def as_text(self) -> str:
        rows = [*self.parts.items(), ("", "")]
        facts = {
            "votes accepted": self.accepted,
            "waiting, not read": self.lag,
            "waiting, being counted": self.pending,
            "oldest waiting": _seconds(self.oldest_seconds if self.lag or self.pending else None),
            "counted (one a voter)": self.counted,
            "last count": _seconds(self.last_count_seconds, " ago"),
            "dead letters": self.dead_letters,
        }
        rows += [
            (name, "-" if fact is None else f"{fact:,}" if isinstance(fact, int) else fact)
            for name, fact in facts.items()
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}".rstrip() for name, value in rows]
        return "\n".join([*lines, *self._poll_lines(), "", *(self.problems or ["All is well."])])

    def _poll_lines(self) -> list[str]:
        if not self.polls:
            return []
        rows = [("poll", "state", "round", "votes")]
        rows += [(poll["slug"], poll["state"], str(poll["round"]), f"{poll['votes']:,}") for poll in self.polls]
        slugs, states, rounds, votes = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [f"{slug:<{slugs}}  {state:<{states}}  {number:>{rounds}}  {count:>{votes}}"
                 for slug, state, number, count in rows]  # fmt: skip
        return ["", *lines, *([f"and {self.more_polls:,} more"] if self.more_polls else [])]


def _seconds(value: float | None, suffix: str = "") -> str:
    return "-" if value is None else f"{value:.1f} s{suffix}"


async def check(
    redis_url: str, database_url: str, services: dict[str, str], dead_letters_within: float | None = None
) -> Status:
    """Check the stores, the workers and the web services (name -> address).

    Dead letters older than `dead_letters_within` seconds are not a problem; with None, all are.
    """
    status = Status()
    await _check_stores(status, redis_url, database_url, dead_letters_within)
    if status.is_idle:  # check again, because the vote may have just arrived
        await asyncio.sleep(RECHECK_SECONDS)
        again = Status()
        await _check_stores(again, redis_url, database_url, dead_letters_within)
        if again.is_idle:
            ago = _seconds(again.last_count_seconds, " ago")
            status.problems.append(f"Votes wait and none is counted (last: {ago}): read the log of a worker.")
    if mismatch := await installation.find_mismatch(redis_url, database_url):
        status.problems.append(f"{mismatch[:1].upper()}{mismatch[1:]}.")
    for name, address in services.items():
        reason = await probe.failure(address)
        status.parts[name] = "down" if reason else "up"
        if reason:
            status.problems.append(f"{name} is not ready at {address} ({reason}): read its log.")
    return status


async def _check_stores(status: Status, redis_url: str, database_url: str, within: float | None) -> None:
    await _check_broker(status, redis_url)
    await _check_database(status, database_url, within)


async def _check_broker(status: Status, url: str) -> None:
    status.parts["broker"] = "down"
    try:
        async with redis_client(url, timeout=TIMEOUT_SECONDS) as client:
            await client.ping()
            backlog = await stream.backlog(client)
    except (RedisError, OSError) as error:
        status.problems.append(f"The broker at {redacted(url)} does not answer ({error}): no vote is accepted.")
        return
    status.parts["broker"] = "up"
    if backlog is None:
        status.problems.append(
            "The stream does not exist: votes are refused until a worker has created it. Start one (voting worker)."
        )
        return
    status.accepted, status.lag, status.pending = backlog.accepted, backlog.lag, backlog.pending
    if backlog.removed:
        status.problems.append(
            f"In the last 24 hours {backlog.removed} entries were removed from the stream, but not by a worker: "
            "accepted votes may be lost. See EntriesRemoved in docs/runbooks.md."
        )
    status.oldest_seconds = backlog.oldest
    if backlog.waiting and backlog.oldest > OLDEST_SECONDS:
        status.problems.append(
            f"Votes have waited {backlog.oldest:.0f} s to be counted: start more workers, or read their logs."
        )


async def _check_database(status: Status, url: str, within: float | None) -> None:
    status.parts["database"] = "down"
    try:
        async with (
            connect(url, name="status", timeout=TIMEOUT_SECONDS) as connection,
            deadline(connection, TIMEOUT_SECONDS),
        ):
            found = await read_status(connection, within)
            status.polls, number = await latest_polls(connection, MAX_POLLS)
            status.more_polls = number - len(status.polls)
            polls, bad_polls = await read_definitions(connection)
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        status.problems.append(
            f"The database at {redacted(url)} does not answer ({reason}): votes are accepted, but not counted."
        )
        return
    status.parts["database"] = "up"
    status.counted, status.dead_letters = found["counted"], found["dead"]
    status.last_count_seconds = found["last_count"]
    live = 0
    for name, age in sorted(found["workers"].items()):
        up = age < WORKER_SECONDS
        live += up
        status.parts[name] = "up" if up else f"down (last seen {age:.0f} s ago)"
    if found["read_only"]:
        status.problems.append(
            "The database is read-only: votes are accepted and wait. Workers continue when it accepts writes again. "
            "If no failover is in progress, check default_transaction_read_only."
        )
    elif not live:
        status.problems.append("No worker counts: votes are accepted and wait. Start one (voting worker).")
    if found["dead_within"]:
        status.problems.append(
            f"{found['dead_within']} malformed entries became dead letters: the table dead_letters shows what wrote "
            "them. Correct that, then delete the rows."
        )
    status.problems += [f"{fault[:1].upper()}{fault[1:]}; {fix}." for fault, fix in poll_problems(polls, bad_polls)]


def main(data: Path, *, as_json: bool, dead_letters_within: float | None) -> int:
    """Print the status; return the exit code, 0 without a problem. Raise `BadSettings` if no address is known."""
    found = addresses.read_addresses(data)
    status = asyncio.run(check(found.redis_url, found.database_url, found.services, dead_letters_within))
    print(status.as_json() if as_json else status.as_text())  # noqa: T201
    return 1 if status.problems else 0
