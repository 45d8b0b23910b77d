"""The text form of SECRET_KEY_OLD: keys whose signatures are accepted besides those of SECRET_KEY.

One key a line, or several with commas between them. `KEY until 2027-01-31` is accepted to the end of that day (UTC), a
key without a date for as long as it is listed. A line that begins with `# ` is a comment. See docs/operations.md for
how a key is changed.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

LEAST_KEY = 32  # characters
_WITH_END = re.compile(r"(?P<key>.*\S)\s+until\s+(?P<until>\S+)")


class AcceptedKey(NamedTuple):
    """A key whose signatures are accepted, to the end of the day `until` (UTC) if there is one."""

    key: str
    until: date | None = None

    @property
    def ends(self) -> float:
        """The moment from which it is not accepted, in seconds since the epoch; infinity without an end."""
        if self.until is None:
            return float("inf")
        return (datetime(*self.until.timetuple()[:3], tzinfo=UTC) + timedelta(days=1)).timestamp()


def parse(text: str) -> tuple[AcceptedKey, ...]:
    """Read keys from the value of the setting.

    Raises:
        ValueError: a key is too short or listed twice, or its date is none. The message has no key in it.
    """
    lines = [line.strip() for line in text.splitlines()]
    entries = [entry.strip() for line in lines if not re.match(r"#(\s|$)", line) for entry in line.split(",")]
    keys = [_entry(number, entry) for number, entry in enumerate(filter(None, entries), 1)]
    numbers: dict[str, int] = {}
    for number, accepted in enumerate(keys, 1):
        if (first := numbers.setdefault(accepted.key, number)) != number:
            raise ValueError(f"keys {first} and {number} are the same")
    return tuple(keys)


def _entry(number: int, entry: str) -> AcceptedKey:
    found = _WITH_END.fullmatch(entry)
    key, until = (found["key"], found["until"]) if found else (entry, None)
    if len(key) < LEAST_KEY:
        raise ValueError(f"key {number} has {len(key)} characters, and at least {LEAST_KEY} are needed")
    try:
        return AcceptedKey(key, date.fromisoformat(until) if until else None)
    except ValueError:
        raise ValueError(f"key {number}: the word after `until` has to be a date such as 2027-01-31") from None
