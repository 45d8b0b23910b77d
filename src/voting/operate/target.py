"""Where the installation is that a command looks at: from the settings, or from what `voting up` left behind."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from voting.settings.services import DatabaseSettings, StatusSettings
from voting.settings.sources import BadSettings, load


class Target(NamedTuple):
    """The two stores' URLs, the probe address of each service that is known, and the data directory if it is here."""

    redis_url: str
    database_url: str
    services: dict[str, str]
    data: Path | None = None


def find(data: Path) -> Target:
    """Where everything is.

    Raises:
        BadSettings: neither the settings nor the data directory tells.
    """
    try:
        settings = load(StatusSettings)
    except BadSettings as bad:
        found = _left_by_up(data, bad)
        parts: dict[str, str] = found["parts"]
        services = {name: f"unix:{path}" for name, path in parts.items()}
        return Target(found["redis_url"], found["database_url"], services, data)
    urls = {"vote": settings.vote_url, "result": settings.result_url}
    services = {name: url for name, url in urls.items() if url}
    return Target(settings.redis_url, settings.database_url, services)


def find_database(data: Path) -> str:
    """The URL of the database alone.

    Raises:
        BadSettings: as for `find`.
    """
    try:
        return load(DatabaseSettings).database_url
    except BadSettings as bad:
        return str(_left_by_up(data, bad)["database_url"])


def _left_by_up(data: Path, bad: BadSettings) -> Any:
    try:
        return json.loads((data / "run" / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = (
            f"nothing runs with the data directory {data}: start it with ./voting up --data {data}, or name another "
            "with --data. To look at stores that voting up did not start:"
        )
        raise BadSettings([hint, *bad.problems]) from None
