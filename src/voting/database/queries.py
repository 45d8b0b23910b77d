"""TODO voting.database.queries."""

import re
from importlib import resources
from typing import LiteralString, cast

SQL = resources.files("voting.database") / "sql"


def _load() -> dict[str, LiteralString]:
    """Read `queries.sql` into a dict: the name in each header -> the statement below it."""
    parts = re.split(r"^-- name: (\w+)$", (SQL / "queries.sql").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: cast("LiteralString", text.strip()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


QUERIES = _load()


def statement(name: str) -> LiteralString:
    """One of the statements in `queries.sql`, for a command that runs it as it is."""
    return QUERIES[name]
