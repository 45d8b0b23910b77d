"""The addresses of the installation that a command uses: those in the settings, else those of `voting up`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from voting.settings.services import AdminLinkSettings, DatabaseSettings, StatusSettings
from voting.settings.sources import BadSettings, load
from voting.settings.urls import admin_link


class Addresses(NamedTuple):
    """The stores' URLs, the readiness address of each known service, and the data directory of `voting up`.

    `admin_bind` is the address at which the admin service is published.
    """

    redis_url: str
    database_url: str
    services: dict[str, str]
    data: Path | None = None
    admin_bind: str = "127.0.0.1"


def read_addresses(data: Path) -> Addresses:
    """Return the addresses in the settings, else those of the `voting up` that uses `data`; or raise `BadSettings`."""
    try:
        settings = load(StatusSettings)
    except BadSettings as bad:
        state = _read_state(data, bad)
        services = {name: f"unix:{path}" for name, path in state["parts"].items()}
        return Addresses(state["redis_url"], state["database_url"], services, data, state["admin_host"])
    urls = {"vote": settings.vote_url, "result": settings.result_url, "admin": settings.admin_url}
    services = {name: url for name, url in urls.items() if url}
    return Addresses(settings.redis_url, settings.database_url, services, None, settings.admin_bind)


def read_database_url(data: Path) -> str:
    """Return the database's URL, as `read_addresses` does."""
    try:
        return load(DatabaseSettings).database_url
    except BadSettings as bad:
        return str(_read_state(data, bad)["database_url"])


def read_admin_link(data: Path) -> str:
    """Return the link that opens the admin service; its key and address are found as by `read_addresses`."""
    try:
        settings = load(AdminLinkSettings)
    except BadSettings as bad:
        url = str(_read_state(data, bad)["admin_url"])
        key = (data / "admin_key").read_text(encoding="ascii")
    else:
        url, key = settings.admin_url or f"http://localhost:{settings.admin_port}", settings.admin_key
    return admin_link(url, key)


def _read_state(data: Path, bad: BadSettings) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((data / "run" / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = (
            f"nothing runs with the data directory {data}: start it with ./voting up --data {data}, or name another "
            "with --data. For stores that voting up did not start:"
        )
        raise BadSettings([hint, *bad.problems]) from None
    return state
