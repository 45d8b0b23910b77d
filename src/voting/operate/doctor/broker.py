"""Checks that the broker keeps every accepted vote, and refuses votes when its memory is full.

https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
"""

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from voting.broker import stream
from voting.broker.connection import redis_client
from voting.broker.installation import read_installation
from voting.broker.monitor import MEMORY_SHARE
from voting.broker.poll_hash import read_polls
from voting.operate.doctor.report import Report, is_remote
from voting.polls.poll import Poll
from voting.settings.urls import redacted

ABOUT = "broker"
TIMEOUT_SECONDS = 3.0
MIN_VERSION = 7
CONFIG = {
    "appendfsync": ("always", "if the machine fails, votes accepted in the last second may be lost"),
    "no-appendfsync-on-rewrite": ("no", "accepted votes are not on disk while the file is rewritten"),
}


async def check(report: Report, url: str, polls: tuple[Poll, ...] | None) -> float | None:
    """Check the broker; return by how many seconds its clock is ahead of ours, to within half a round trip.

    Args:
        report: gets the findings.
        url: the URL of Redis or Valkey.
        polls: the polls in the database, if known.
    """
    parts = urlsplit(url)
    if is_remote(parts.hostname or "") and (parts.scheme != "rediss" or "ssl_cert_reqs=none" in parts.query):
        what = f"the connection to {parts.hostname} is not verified"
        fix = "use rediss:// in REDIS_URL, with ?ssl_ca_certs=<file> for a private authority"
        report.add_problem(ABOUT, what, fix)
    async with redis_client(url, timeout=TIMEOUT_SECONDS) as client:
        try:
            await client.ping()
            info = await client.info()
        except ResponseError as error:
            report.add_unchecked(ABOUT, f"INFO is refused ({error})", "give its user +info, as voting secrets does")
            return None
        except (RedisError, OSError) as error:
            what = f"{redacted(url)} does not answer ({error})"
            fix = "start it, or correct REDIS_URL; votes are refused until then"
            report.add_problem(ABOUT, what, fix)
            return None
        _check_server(report, info)
        _check_memory(report, info)
        await _check_persistence(report, client, info)
        await _check_polls(report, client, polls)
        report.add_passed(ABOUT, f"{_name(info)}: durable, and its memory is bounded")
        return await _clock(report, client)


def _name(info: dict[str, Any]) -> str:
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


def _check_server(report: Report, info: dict[str, Any]) -> None:
    if int(str(info["redis_version"]).split(".")[0]) < MIN_VERSION:
        report.add_problem(ABOUT, f"{_name(info)} is too old", f"use Redis {MIN_VERSION} or newer, or Valkey")
    if info.get("role", "master") != "master":
        report.add_problem(ABOUT, "it is a replica, which accepts no votes", "use the primary in REDIS_URL")


def _check_memory(report: Report, info: dict[str, Any]) -> None:
    limit, policy = int(info["maxmemory"]), info["maxmemory_policy"]
    if policy != "noeviction":
        what = f"maxmemory-policy is {policy}: votes may be evicted"
        report.add_problem(ABOUT, what, "set maxmemory-policy noeviction")
    if not limit:
        what = "maxmemory is not set: with a long backlog, the kernel may kill the process"
        fix = "set maxmemory to less than half of the memory of the machine or container, such as 192mb of 512"
        report.add_problem(ABOUT, what, fix)
    elif int(info["used_memory"]) > MEMORY_SHARE * limit:
        what = f"{100 * int(info['used_memory']) // limit} % of maxmemory is used: votes are refused"
        fix = "start workers to count the backlog, or raise maxmemory"
        report.add_problem(ABOUT, what, fix)


async def _check_persistence(report: Report, client: Redis, info: dict[str, Any]) -> None:
    if not info["aof_enabled"]:
        what = "appendonly is no: waiting votes are lost when the process ends"
        fix = "set appendonly yes; ElastiCache does not support it and cannot be used"
        report.add_problem(ABOUT, what, fix)
        return
    for fact, step in (("aof_last_write_status", "writing"), ("aof_last_bgrewrite_status", "rewriting")):
        if info.get(fact, "ok") != "ok":
            what = f"{step} the append-only file failed"
            report.add_problem(ABOUT, what, "free some space on its disk, and read its log")
    for name, (wanted, consequence) in CONFIG.items():
        try:
            found = (await client.config_get(name)).get(name)
        except (RedisError, OSError) as error:
            what = f"{name} ({error})"
            fix = f"give its user +config|get, as voting secrets does, or make sure that {name} is {wanted}"
            report.add_unchecked(ABOUT, what, fix)
            continue
        if found != wanted:
            report.add_problem(ABOUT, f"{name} is {found}: {consequence}", f"set {name} {wanted}")


async def _check_polls(report: Report, client: Redis, polls: tuple[Poll, ...] | None) -> None:
    try:
        published, bad = await read_polls(client)
        backlog = await stream.backlog(client)
    except (RedisError, OSError) as error:
        what = f"stream and polls ({error})"
        report.add_unchecked(ABOUT, what, "use the worker's REDIS_URL, whose user has the right")
        return
    try:
        await read_installation(client)
    except (RedisError, OSError) as error:
        fix = "restart Redis, which then reads users.acl again; give its user the rights that voting secrets does"
        report.add_unchecked(ABOUT, f"which installation it belongs to ({error})", fix)
    if backlog is None:
        report.add_problem(ABOUT, "there is no stream: votes are refused", "start a worker, which creates it")
    elif polls is not None and (bad or _ballots(published.values()) != _ballots(polls)):
        what = "its polls are not those of the database"
        report.add_problem(ABOUT, what, "start a worker, which publishes them within a second")


def _ballots(polls: Iterable[Poll]) -> dict[str, str]:
    return {poll.slug: poll.to_json() for poll in polls}


async def _clock(report: Report, client: Redis) -> float | None:
    began = time.time()
    try:
        seconds, microseconds = await client.time()
    except (RedisError, OSError) as error:
        report.add_unchecked(ABOUT, f"its clock ({error})", "give its user +time, as voting secrets does")
        return None
    return float(seconds + microseconds / 1e6 - (began + time.time()) / 2)
