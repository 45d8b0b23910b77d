"""Sessions: an ordered list of polls that an audience joins with a code."""

import json
import re
import secrets
from dataclasses import asdict, dataclass
from typing import Self, TypeGuard

from voting.polls.json_object import parse_object
from voting.polls.labels import displayable
from voting.polls.slug import SLUG

ALPHABET = (
    "34679ACDEFGHJKMNPQRTUWXY"  # without look-alikes such as 0 and O, 1 and I, 2 and Z, 5 and S, 8 and B, U and V
)
CODE_LENGTH = 6
CODE = re.compile(f"[{ALPHABET}]{{{CODE_LENGTH}}}")


class BadSession(ValueError):
    """The data is not a valid session; the message says why."""


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

    def position(self, slug: str | None) -> int | None:
        """Return the place of a poll in the list, from 1; None if it is not in it."""
        return self.polls.index(slug) + 1 if slug in self.polls else None

    def to_json(self) -> str:
        """Return the JSON that the worker publishes."""
        data = asdict(self)
        del data["code"]
        return json.dumps(data)

    @classmethod
    def from_json(cls, code: str, text: str | bytes) -> Self:
        """Parse the output of `to_json`, or raise `BadSession`."""
        data = parse_object(text, BadSession)
        return cls.from_parts(code, *(data.get(name) for name in ("title", "polls", "current", "changed")))

    @classmethod
    def from_parts(cls, code: str, title: object, polls: object, current: object, changed: object) -> Self:
        """Return the session of a row of `sessions`, or raise `BadSession`."""
        if not CODE.fullmatch(code):
            raise BadSession("the code is not six characters of its alphabet")
        if not isinstance(title, str):
            raise BadSession("the title is not a string")
        if not isinstance(polls, list) or not all(map(_is_slug, polls)):
            raise BadSession("polls is not a list of slugs")
        if current is not None and not _is_slug(current):
            raise BadSession("current is neither a slug nor null")
        if not isinstance(changed, int):
            raise BadSession("changed is not a number")
        return cls(code, displayable(title), tuple(polls), current, changed)


def _is_slug(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and SLUG.fullmatch(value) is not None


def new_code() -> str:
    """Return a random join code."""
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))


def parse_code(text: str) -> str | None:
    """Return the join code that somebody typed, in upper case and without blanks or hyphens; None if it is none."""
    code = re.sub(r"[\s-]", "", text[:50]).upper()
    return code if CODE.fullmatch(code) else None
