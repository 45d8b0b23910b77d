"""Parses stream entries into votes.

A stream entry is a vote if it names the box of a known poll, a choice that this poll accepts, and a voter of 16 bytes.
For all other bytes, `VoteParser.read` raises `Malformed`. A vote that was added after its round was sealed does not
count: `Late`, see closing.py.
"""

from collections.abc import Iterable, Mapping

from voting.polls.closing import counts
from voting.polls.poll import Poll
from voting.polls.vote import VOTER_BYTES, EntryId, Vote

CACHED_CHOICES = 50_000
KNOWN_POLLS = 1000  # rounds that a parser keeps
_FIELDS = [b"poll", b"voter", b"choice"]


class Malformed(Exception):
    """The stream entry cannot become a vote; the message is the reason."""


class Undefined(Malformed):
    """It cannot become one by the definitions that are known: it may by the current definition of its `box`."""

    def __init__(self, reason: str, box: bytes) -> None:
        super().__init__(reason)
        self.box = box


class Deleted(Undefined):
    """The vote's poll was deleted, so the vote is dropped."""


class Late(Exception):
    """The vote was added after its round was sealed; the vote service has refused it, so it is dropped."""


class VoteParser:
    """Parses stream entries and validates them against the known polls; no round of `polls` is sealed."""

    def __init__(self, polls: Iterable[Poll] = ()) -> None:
        self._polls = {poll.box.encode(): poll for poll in polls}
        # Box and choice -> the same as text, and the cut of the round.
        self._choices: dict[tuple[bytes, bytes], tuple[str, str, EntryId | None]] = {}
        self._cuts: dict[bytes, EntryId | None] = dict.fromkeys(
            self._polls
        )  # as far as they were read; None: not sealed
        self._seals = b""  # the version of the seals when they were read
        self._deleted: frozenset[bytes] = frozenset()
        self.forgotten = 0  # how often `forget` was called: what was read before the last call may be outdated

    def define(
        self, polls: Iterable[Poll], deleted: Iterable[str] = (), cuts: Mapping[bytes, EntryId | None] | None = None
    ) -> None:
        """Accept votes of these rounds, as they are defined now, and drop votes for these deleted polls only.

        Polls that were known before stay known, unless there are very many.

        Args:
            polls: the rounds.
            deleted: slugs of polls that were deleted.
            cuts: of boxes, None of those that are not sealed; without it, no round of these polls is sealed.
        """
        if len(self._polls) >= KNOWN_POLLS:
            self._polls.clear()
            self._cuts.clear()
        polls = list(polls)
        self._cuts |= dict.fromkeys(poll.box.encode() for poll in polls) if cuts is None else cuts
        self._polls |= {poll.box.encode(): poll for poll in polls}
        self._choices.clear()
        self._deleted = frozenset(slug.encode() for slug in deleted)

    def forget(self, slug: str) -> None:
        """Forget a poll that has changed."""
        self.forgotten += 1
        changed = [box for box in self._polls if box.partition(b"#")[0] == slug.encode()]
        for box in changed:
            del self._polls[box]
            self._cuts.pop(box, None)
        if changed:
            self._choices.clear()

    def forget_all(self) -> None:
        """Forget all polls."""
        self.forgotten += 1
        self._polls.clear()
        self._choices.clear()

    def notice_seals(self, version: bytes) -> None:
        """Forget the cuts if the version of the seals, which was read after the entries that come next, is another."""
        if version != self._seals:
            self.forgotten += 1
            self._seals = version
            self._cuts.clear()
            self._choices.clear()

    def read(self, entry: EntryId, fields: list[bytes]) -> Vote:
        """Return the vote of an entry with these fields, names and values in turn.

        Raises:
            Malformed: it is none.
            Late: it does not count.
        """
        names, values = fields[::2], fields[1::2]
        if names != _FIELDS:  # a traced vote has more; entries of other clients may have any
            by_name = dict(zip(names, values, strict=True))
            if missing := [name.decode() for name in _FIELDS if name not in by_name]:
                raise Malformed(f"missing field: {', '.join(missing)}")
            values = [by_name[name] for name in _FIELDS]
        box, voter, choice = values
        if len(voter) != VOTER_BYTES:
            raise Malformed(f"voter has {len(voter)} bytes, expected {VOTER_BYTES}")
        poll, text, cut = self._choices.get((box, choice)) or self._check(box, choice)
        if cut is not None and not counts(entry, cut):
            raise Late
        return Vote(poll, voter, text, entry)

    def _check(self, box: bytes, choice: bytes) -> tuple[str, str, EntryId | None]:
        poll = self._polls.get(box)
        if poll is None:
            if box.partition(b"#")[0] in self._deleted:
                raise Deleted("deleted poll", box)
            raise Undefined("unknown poll", box)
        text = choice.decode(errors="replace")
        if not poll.accepts(text):
            raise Undefined("choice is not an option of the poll", box)
        if box not in self._cuts:
            raise Undefined("it is not known whether the round is sealed", box)
        if len(self._choices) >= CACHED_CHOICES:
            self._choices.clear()
        self._choices[box, choice] = known = (poll.box, text, self._cuts[box])
        return known
