"""Is the broker what the promise rests on: does it keep every vote it says yes to, and refuse rather than forget?

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
from voting.operate.doctor.report import Report, is_far
from voting.polls import Poll
from voting.settings.urls import redacted

ABOUT = "broker"
PATIENCE = 3.0
OLDEST = 7
CONFIG = {
    "appendfsync": ("always", "a vote that was acknowledged in the last second may be lost with the machine"),
    "no-appendfsync-on-rewrite": ("no", "while the file is rewritten, acknowledged votes are not on disk"),
}


async def examine(report: Report, url: str, polls: tuple[Poll, ...] | None) -> float | None:
    """Look at the broker; return how far its clock is ahead of ours in seconds, give or take the way there.

    Args:
        report: gets the findings.
        url: of Redis or Valkey.
        polls: what the database holds, if that is known.
    """
    before = len(report.findings)
    parts = urlsplit(url)
    if is_far(parts.hostname or "") and (parts.scheme != "rediss" or "ssl_cert_reqs=none" in parts.query):
        report.problem(
            ABOUT,
            f"the connection to {parts.hostname} is not verified",
            "use rediss://, with ?ssl_ca_certs=<file> for an authority of your own, in REDIS_URL",
        )
    async with redis_client(url, timeout=PATIENCE) as client:
        try:
            await client.ping()
            info = await client.info()
        except ResponseError as error:
            report.unchecked(ABOUT, f"INFO is refused ({error})", "allow its user +info, as `voting secrets` does")
            return None
        except (RedisError, OSError) as error:
            report.problem(
                ABOUT,
                f"{redacted(url)} does not answer ({error})",
                "start it, or correct REDIS_URL; votes are refused until then",
            )
            return None
        _examine_server(report, info)
        _examine_memory(report, info)
        await _examine_persistence(report, client, info)
        await _examine_polls(report, client, polls)
        report.note(ABOUT, f"{_name(info)}: durable, and its memory is bounded", unless=before)
        return await _clock(report, client)


def _name(info: dict[str, Any]) -> str:
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


def _examine_server(report: Report, info: dict[str, Any]) -> None:
    if int(str(info["redis_version"]).split(".")[0]) < OLDEST:
        report.problem(ABOUT, f"{_name(info)} is too old", f"use Redis {OLDEST} or newer, or Valkey")
    if info.get("role", "master") != "master":
        report.problem(ABOUT, "it is a replica, and takes no votes", "let REDIS_URL name the primary")


def _examine_memory(report: Report, info: dict[str, Any]) -> None:
    limit, policy = int(info["maxmemory"]), info["maxmemory_policy"]
    if policy != "noeviction":
        report.problem(
            ABOUT, f"maxmemory-policy is {policy}: votes may be thrown away", "set maxmemory-policy noeviction"
        )
    if not limit:
        report.problem(
            ABOUT,
            "maxmemory is not set: a long backlog ends with the kernel killing it",
            "set maxmemory to half of what the machine or container has, such as 192mb of 512",
        )
    elif int(info["used_memory"]) > MEMORY_SHARE * limit:
        report.problem(
            ABOUT,
            f"{100 * int(info['used_memory']) // limit} % of maxmemory is used: votes are refused",
            "start workers, so that the backlog is counted, or raise maxmemory",
        )


async def _examine_persistence(report: Report, client: Redis, info: dict[str, Any]) -> None:
    if not info["aof_enabled"]:
        report.problem(
            ABOUT,
            "appendonly is no: all that waits is lost with its process",
            "set appendonly yes; ElastiCache has no such file, and cannot keep the promise",
        )
        return
    for fact, what in (("aof_last_write_status", "writing"), ("aof_last_bgrewrite_status", "rewriting")):
        if info.get(fact, "ok") != "ok":
            report.problem(ABOUT, f"{what} the append-only file failed", "make room on its disk, and look at its log")
    for name, (wanted, consequence) in CONFIG.items():
        try:
            found = (await client.config_get(name)).get(name)
        except (RedisError, OSError) as error:
            report.unchecked(
                ABOUT,
                f"{name} ({error})",
                f"allow its user +config|get, as `voting secrets` does, or see to it that {name} is {wanted}",
            )
            continue
        if found != wanted:
            report.problem(ABOUT, f"{name} is {found}: {consequence}", f"set {name} {wanted}")


async def _examine_polls(report: Report, client: Redis, polls: tuple[Poll, ...] | None) -> None:
    try:
        published, bad = await read_polls(client)
        backlog = await stream.backlog(client)
    except (RedisError, OSError) as error:
        report.unchecked(ABOUT, f"stream and polls ({error})", "use the worker's REDIS_URL, whose user may read them")
        return
    try:
        await read_installation(client)
    except (RedisError, OSError) as error:
        fix = "restart Redis, so that it reads its users again; allow its user what `voting secrets` does"
        report.unchecked(ABOUT, f"which installation it belongs to ({error})", fix)
    if backlog is None:
        report.problem(ABOUT, "there is no stream: votes are refused", "start a worker, which makes it")
    elif polls is not None and (bad or _ballots(published.values()) != _ballots(polls)):
        report.problem(
            ABOUT, "its polls are not those of the database", "start a worker, which publishes them within a second"
        )


def _ballots(polls: Iterable[Poll]) -> dict[str, str]:
    return {poll.slug: poll.to_json() for poll in polls}


async def _clock(report: Report, client: Redis) -> float | None:
    began = time.time()
    try:
        seconds, microseconds = await client.time()
    except (RedisError, OSError) as error:
        report.unchecked(ABOUT, f"its clock ({error})", "allow its user +time, as `voting secrets` does")
        return None
    return float(seconds + microseconds / 1e6 - (began + time.time()) / 2)
