"""The text format of SECRET_KEY_OLD: keys whose signatures are accepted besides those of SECRET_KEY.

Keys are separated by lines or commas. `KEY until 2027-01-31` is accepted to the end of that day (UTC), a key without a
date as long as it is listed. A line that begins with `# ` is a comment. docs/operations.md says how to rotate the key.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

MIN_LENGTH = 32  # characters
_WITH_DATE = re.compile(r"(?P<key>.*\S)\s+until\s+(?P<until>\S+)")


class AcceptedKey(NamedTuple):
    """A key whose signatures are accepted, to the end of the day `until` (UTC) if that is set."""

    key: str
    until: date | None = None

    @property
    def expires_at(self) -> float:
        """When it expires, in seconds since the epoch; infinity without a date."""
        if self.until is None:
            return float("inf")
        return (datetime(*self.until.timetuple()[:3], tzinfo=UTC) + timedelta(days=1)).timestamp()


def parse(text: str) -> tuple[AcceptedKey, ...]:
    """Return the keys in the value of the setting.

    Raise ValueError if a key is too short or listed twice, or has an invalid date. The message does not contain keys.
    """
    lines = [line.strip() for line in text.splitlines()]
    entries = [entry.strip() for line in lines if not re.match(r"#(\s|$)", line) for entry in line.split(",")]
    keys = [_parse_entry(number, entry) for number, entry in enumerate(filter(None, entries), 1)]
    numbers: dict[str, int] = {}
    for number, accepted in enumerate(keys, 1):
        if (first := numbers.setdefault(accepted.key, number)) != number:
            raise ValueError(f"keys {first} and {number} are the same")
    return tuple(keys)


def _parse_entry(number: int, entry: str) -> AcceptedKey:
    found = _WITH_DATE.fullmatch(entry)
    key, until = (found["key"], found["until"]) if found else (entry, None)
    if len(key) < MIN_LENGTH:
        raise ValueError(f"key {number} has {len(key)} characters, and at least {MIN_LENGTH} are needed")
    try:
        return AcceptedKey(key, date.fromisoformat(until) if until else None)
    except ValueError:
        raise ValueError(f"key {number}: expected a date such as 2027-01-31 after `until`") from None
