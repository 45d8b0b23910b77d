"""Where the installation is that a command looks at: from the settings, or from what `voting up` left behind."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from voting.core import config


def stores(data: Path) -> tuple[str, str, dict[str, str]]:
    """The two stores' URLs, and the probe address of each service that is known.

    Raises:
        config.BadSettings: neither the settings nor the data directory tells.
    """
    try:
        settings = config.load(config.StatusSettings)
    except config.BadSettings as bad:
        found = _left_by_up(data, bad)
        parts: dict[str, str] = found["parts"]
        return found["redis_url"], found["database_url"], {name: f"unix:{path}" for name, path in parts.items()}
    urls = {"vote": settings.vote_url, "result": settings.result_url}
    return settings.redis_url, settings.database_url, {name: _address(url) for name, url in urls.items() if url}


def database(data: Path) -> str:
    """The URL of the database alone.

    Raises:
        config.BadSettings: as for `stores`.
    """
    try:
        return config.load(config.DatabaseSettings).database_url
    except config.BadSettings as bad:
        return str(_left_by_up(data, bad)["database_url"])


def _left_by_up(data: Path, bad: config.BadSettings) -> Any:
    try:
        return json.loads((data / "run" / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = f"nothing runs with the data directory {data}: start it with ./voting up, or name it with --data"
        raise config.BadSettings([hint, *bad.problems]) from None


def _address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 80}"
