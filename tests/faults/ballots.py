"""What the load can vote in: rounds of polls, of every kind."""

from dataclasses import dataclass, replace
from typing import Any

from voting.polls.poll import DEFAULT_POLL
from voting.polls.slug import box

KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {  # fields of a new poll, and some choices that it accepts
    "single": ({"options": ["Red", "Green"]}, ("a", "b")),
    "multiple": ({"options": ["Red", "Green", "Blue"], "max_choices": 2}, ("a", "b", "ac", "bc")),
    "rating": ({"scale": 5}, ("1", "3", "5")),
    "ranking": ({"options": ["Red", "Green", "Blue"]}, ("abc", "cab", "b")),
}


@dataclass(frozen=True)
class Ballot:
    """A round of a poll, and choices that it accepts."""

    slug: str = DEFAULT_POLL
    kind: str = "single"
    round: int = 1

    @property
    def choices(self) -> tuple[str, ...]:
        return KINDS[self.kind][1]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `POST /api/polls`."""
        return KINDS[self.kind][0] | {"slug": self.slug, "kind": self.kind, "question": f"The question of {self.slug}?"}

    @property
    def box(self) -> str:
        return box(self.slug, self.round)

    @property
    def path(self) -> bytes:
        """The path on the vote service."""
        return b"/" if self.slug == DEFAULT_POLL else b"/p/" + self.slug.encode()

    def next(self) -> "Ballot":
        """Return the next round."""
        return replace(self, round=self.round + 1)
