"""TODO voting.worker.batch."""

from collections.abc import Iterable
from operator import attrgetter

from voting.polls import Vote


def newest_per_voter(votes: Iterable[Vote]) -> list[Vote]:
    """Keep each voter's newest vote, sorted by poll and voter: the order in which all workers lock rows."""
    newest = {vote[:2]: vote for vote in sorted(votes, key=attrgetter("entry"))}
    return sorted(newest.values())
