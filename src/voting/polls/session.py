"""Sessions: an ordered list of polls that an audience joins with a code."""

import re
import secrets
from dataclasses import dataclass

ALPHABET = (
    "34679ACDEFGHJKMNPQRTUWXY"  # without look-alikes such as 0 and O, 1 and I, 2 and Z, 5 and S, 8 and B, U and V
)
CODE_LENGTH = 6
_CODE = re.compile(f"[{ALPHABET}]{{{CODE_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Session:
    """A list of polls (slugs) in order; `current` is the one that the audience sees, None before the first.

    `changed` grows with each change.
    """

    code: str
    title: str
    polls: tuple[str, ...] = ()
    current: str | None = None
    changed: int = 0


def new_code() -> str:
    """Return a random join code."""
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))


def parse_code(text: str) -> str | None:
    """Return the join code that somebody typed, in upper case and without blanks or hyphens; None if it is none."""
    code = re.sub(r"[\s-]", "", text[:50]).upper()
    return code if _CODE.fullmatch(code) else None
