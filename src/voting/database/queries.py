"""The statements in `sql/queries.sql` and `sql/admin.sql`, by name."""

import re
from importlib import resources
from typing import LiteralString, cast

SQL = resources.files("voting.database") / "sql"


def _load(file: str) -> dict[str, LiteralString]:
    parts = re.split(r"^-- name: (\w+)$", (SQL / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: cast("LiteralString", text.strip()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


QUERIES = _load("queries.sql") | _load("admin.sql")
