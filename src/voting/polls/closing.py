"""The end of a round: which votes count.

The broker orders votes: each stream entry has a larger id than those before. When a round closes, a worker stores the
last id of the stream as the round's `cut`, in the broker, with a script that no other command can interrupt
(broker/seals.py). A vote counts if its id is not larger than the cut.

The vote service reads the cut after it has added the entry, and in the same write to the broker. If there is none, the
round was not sealed yet, so its cut will be at least as large as the entry's id: the vote counts, and the answer is
200. If there is one, the two ids decide between 200 and 409. A worker reads the cuts after it has read entries, so it
decides the same. No clock takes part in this.

The round is final when the stream has no entry up to the cut any more: entries are deleted after they were counted.
"""

from typing import NamedTuple

from voting.polls.vote import EntryId


class Closing(NamedTuple):
    """A round that has closed and is not final yet."""

    slug: str
    round: int
    cut: EntryId | None  # None until the round is sealed


def counts(entry: EntryId, cut: EntryId | None) -> bool:
    """Whether a vote counts, in a round with this cut; None if the round is not sealed."""
    return cut is None or entry <= cut
