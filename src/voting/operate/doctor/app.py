"""`voting doctor`: is this installation set up so that the promises hold; for everything that is not, the fix.

It looks at settings, both stores, clocks and disk, and changes nothing. `voting status` says where the votes are;
this says whether they are safe there.
"""

import asyncio
import shutil
import time
from pathlib import Path

from voting.operate import installation, target
from voting.operate.doctor import broker, database
from voting.operate.doctor.report import Report
from voting.service import probe
from voting.settings.services import MigrateSettings, ResultSettings, VoteSettings, WorkerSettings
from voting.settings.sources import BadSettings, load

CLOCK_SECONDS = 2.0
FREE_SHARE = 0.1
FREE_BYTES = 1 << 30
SERVICES = (VoteSettings, ResultSettings, WorkerSettings, MigrateSettings)


def main(data: Path, *, as_json: bool) -> int:
    """Print what is found; return 0 only when that is nothing.

    Raises:
        config.BadSettings: nobody says where to look.
    """
    report = asyncio.run(examine(target.find(data)))
    print(report.as_json() if as_json else report.as_text())  # noqa: T201
    return 1 if report.findings else 0


async def examine(where: target.Target) -> Report:
    """Look at everything."""
    report = Report()
    _examine_settings(report)
    polls, database_ahead = await database.examine(report, where.database_url)
    broker_ahead = await broker.examine(report, where.redis_url, polls)
    if mismatch := await installation.find_mismatch(where.redis_url, where.database_url):
        what, _, fix = mismatch.partition(": ")
        report.problem("installation", what, fix)
    _examine_clocks(report, {"database": database_ahead, "broker": broker_ahead})
    await _examine_services(report, where.services)
    _examine_addresses(report, where)
    if where.data:
        _examine_disk(report, where.data)
    return report


def _examine_settings(report: Report) -> None:
    """Settings of any service that stand here; what is not set may stand elsewhere, as in another container."""
    before = len(report.findings)
    problems: dict[str, None] = {}
    for settings_class in SERVICES:
        try:
            settings = load(settings_class)
        except BadSettings as bad:
            problems |= dict.fromkeys(each for each in bad.problems if "is not set;" not in each)
        else:
            if isinstance(settings, VoteSettings):
                _examine_keys(report, settings)
    for problem in problems:
        report.problem("settings", problem, "correct it; README.md lists all settings")
    report.note("settings", "those that are set here are valid", unless=before)


def _examine_keys(report: Report, settings: VoteSettings) -> None:
    for number, accepted in enumerate(settings.secret_key_old, 1):
        if accepted.expires_at <= time.time():
            what = f"SECRET_KEY_OLD: key {number} ended on {accepted.until}; its browsers are new voters"
            report.advise(
                "settings", what, "take it out, or give it a later date if a poll from that time is still open"
            )


def _examine_addresses(report: Report, where: target.Target) -> None:
    """Say what the addresses are needed for where they are not set; `voting up` on one machine works without."""
    missing = [f"{name.upper()}_URL" for name in ("vote", "result") if name not in where.services]
    if missing and not where.data:
        report.advise(
            "addresses",
            f"not set here: {', '.join(missing)}. Without them links and the QR code follow the request's Host header",
            "for a public installation set RESULT_URL for vote and VOTE_URL for result",
        )


def _examine_clocks(report: Report, ahead: dict[str, float | None]) -> None:
    before = len(report.findings)
    known = {name: seconds for name, seconds in ahead.items() if seconds is not None}
    for name, seconds in known.items():
        if abs(seconds) > CLOCK_SECONDS:
            way = "ahead of" if seconds > 0 else "behind"
            report.problem(
                "clock",
                f"that of the {name} is {abs(seconds):.1f} s {way} ours",
                "let every machine follow a time server (timedatectl set-ntp true; chronyc tracking)",
            )
    if known:
        report.note("clock", f"ours and {' and '.join(known)} agree", unless=before)


async def _examine_services(report: Report, services: dict[str, str]) -> None:
    before = len(report.findings)
    for name, address in services.items():
        if trouble := await probe.failure(address):
            report.problem(name, f"is not ready at {address} ({trouble})", "look at its log, and at `voting status`")
    if services:
        report.note("services", f"{', '.join(services)} are ready", unless=before)


def _examine_disk(report: Report, data: Path) -> None:
    usage = shutil.disk_usage(data)
    free = usage.free / usage.total
    if free < FREE_SHARE or usage.free < FREE_BYTES:
        report.problem(
            "disk",
            f"{usage.free / 2**30:.1f} GiB ({100 * free:.0f} %) are free at {data}: when it is full, votes are refused",
            "make room, or move the data directory to a larger disk (--data)",
        )
    else:
        report.well.append(f"disk: {usage.free / 2**30:.0f} GiB free at {data}")
