"""`voting doctor`: find what could break the promises of this installation, each problem with its fix.

It checks settings, both stores, clocks and disk, and changes nothing. `voting status` shows where the votes are,
`voting doctor` whether they are safe there.
"""

import asyncio
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

from voting.operate import installation
from voting.operate.addresses import Addresses, read_addresses
from voting.operate.doctor import broker, database
from voting.operate.doctor.report import Report
from voting.service import probe
from voting.settings.services import AdminSettings, MigrateSettings, ResultSettings, VoteSettings, WorkerSettings
from voting.settings.sources import BadSettings, load
from voting.web.addresses import is_loopback

CLOCK_SECONDS = 2.0
FREE_SHARE = 0.1
FREE_BYTES = 1 << 30
SERVICES = (VoteSettings, ResultSettings, AdminSettings, WorkerSettings, MigrateSettings)


def main(data: Path, *, as_json: bool) -> int:
    """Print the report; return the exit code, 0 without a finding. Raise `BadSettings` if no address is known."""
    report = asyncio.run(check(read_addresses(data)))
    print(report.as_json() if as_json else report.as_text())  # noqa: T201
    return 1 if report.findings else 0


async def check(addresses: Addresses) -> Report:
    """Run all checks."""
    report = Report()
    _check_settings(report)
    polls, database_ahead = await database.check(report, addresses.database_url)
    broker_ahead = await broker.check(report, addresses.redis_url, polls)
    if mismatch := await installation.find_mismatch(addresses.redis_url, addresses.database_url):
        what, _, fix = mismatch.partition(": ")
        report.add_problem("installation", what, fix)
    _check_clocks(report, {"database": database_ahead, "broker": broker_ahead})
    await _check_services(report, addresses.services)
    _check_public_urls(report, addresses)
    _check_admin(report, addresses)
    if addresses.data:
        _check_disk(report, addresses.data)
    return report


def _check_settings(report: Report) -> None:
    """Check the settings of all services; those not set here may be set elsewhere, as in another container."""
    problems: dict[str, None] = {}
    for settings_class in SERVICES:
        try:
            settings = load(settings_class)
        except BadSettings as bad:
            problems |= dict.fromkeys(each for each in bad.problems if "is not set;" not in each)
        else:
            if isinstance(settings, VoteSettings):
                _check_old_keys(report, settings)
    for problem in problems:
        report.add_problem("settings", problem, "correct it; docs/reference.md lists all settings")
    report.add_passed("settings", "those that are set here are valid")


def _check_old_keys(report: Report, settings: VoteSettings) -> None:
    for number, accepted in enumerate(settings.secret_key_old, 1):
        if accepted.expires_at <= time.time():
            what = f"SECRET_KEY_OLD: key {number} ended on {accepted.until}; browsers with its cookies are new voters"
            fix = "remove it, or give it a later date if a poll from that time is still open"
            report.add_advice("settings", what, fix)


def _check_public_urls(report: Report, addresses: Addresses) -> None:
    """Advise to set the services' public URLs; `voting up` on one machine works without."""
    missing = [f"{name.upper()}_URL" for name in ("vote", "result") if name not in addresses.services]
    if missing and not addresses.data:
        what = f"not set here: {', '.join(missing)}. So links and the QR code follow the request's Host header"
        fix = "for a public installation set RESULT_URL for vote and VOTE_URL for result"
        report.add_advice("addresses", what, fix)


def _check_admin(report: Report, addresses: Addresses) -> None:
    """Advise to use HTTPS where admin can be reached from elsewhere: its key and cookies open everything."""
    url = addresses.services.get("admin", "")
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        what = f"{url} is not HTTPS: whoever can read the network gets the key of admin"
        report.add_advice("admin", what, "use https:// in ADMIN_URL (docs/operations.md#https)")
    elif parts.scheme != "https" and not is_loopback(addresses.admin_bind):
        what = f"it listens on {addresses.admin_bind}: without a proxy for HTTPS, who can read the network gets its key"
        fix = "unset ADMIN_BIND and use a tunnel, or give it a host name with HTTPS (docs/operations.md#https)"
        report.add_advice("admin", what, fix)


def _check_clocks(report: Report, ahead: dict[str, float | None]) -> None:
    known = {name: seconds for name, seconds in ahead.items() if seconds is not None}
    for name, seconds in known.items():
        if abs(seconds) > CLOCK_SECONDS:
            direction = "ahead of" if seconds > 0 else "behind"
            what = f"the {name}'s clock is {abs(seconds):.1f} s {direction} ours"
            fix = "synchronize every machine with a time server (timedatectl set-ntp true; chronyc tracking)"
            report.add_problem("clock", what, fix)
    if known:
        report.add_passed("clock", f"ours and {' and '.join(known)} agree")


async def _check_services(report: Report, services: dict[str, str]) -> None:
    unready = 0
    for name, address in services.items():
        if reason := await probe.failure(address):
            unready += 1
            report.add_problem(name, f"is not ready at {address} ({reason})", "read its log and run voting status")
    if services and not unready:
        report.add_passed("services", f"{', '.join(services)} are ready")


def _check_disk(report: Report, data: Path) -> None:
    usage = shutil.disk_usage(data)
    free = usage.free / usage.total
    if free < FREE_SHARE or usage.free < FREE_BYTES:
        what = f"{usage.free / 2**30:.1f} GiB ({100 * free:.0f} %) are free at {data}; if it is full, votes are refused"
        fix = "free some space, or move the data directory to a larger disk (--data)"
        report.add_problem("disk", what, fix)
    report.add_passed("disk", f"{usage.free / 2**30:.0f} GiB free at {data}")
