"""The statements in `sql/queries.sql`, by name."""

import re
from importlib import resources
from typing import LiteralString, cast

SQL = resources.files("voting.database") / "sql"


def _load() -> dict[str, LiteralString]:
    """Return the statements by the names in their headers."""
    parts = re.split(r"^-- name: (\w+)$", (SQL / "queries.sql").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: cast("LiteralString", text.strip()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


QUERIES = _load()


def statement(name: str) -> LiteralString:
    """Return a statement, for a command that runs it unchanged."""
    return QUERIES[name]
