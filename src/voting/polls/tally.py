"""What the votes of a poll add up to, for each kind of poll.

Tallies are stored by choice: how many voters made exactly this choice. From that profile `evaluate` derives what pages
show. The profile is complete, so the result is exact for every kind.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from voting.polls.poll import Kind, Poll


class RunoffRound(NamedTuple):
    """One round of an instant run-off."""

    votes: dict[str, int]  # key of each option that is still in -> ballots that prefer it to the others
    exhausted: int  # ballots that name no option that is still in
    eliminated: str | None  # the option that is out after this round; None in the last


class Evaluation(NamedTuple):
    """The result of a poll."""

    votes: dict[str, int]  # option key -> voters who chose it; in a ranking, those who prefer it to all others
    total: int  # number of voters
    mean: float | None = None  # of a rating with votes
    points: dict[str, int] | None = None  # of a ranking: Borda points
    runoff: tuple[RunoffRound, ...] | None = None  # of a ranking: instant run-off

    @property
    def winner(self) -> str | None:
        """The option that the run-off leaves as the winner."""
        if not self.runoff or not self.total:
            return None
        last = self.runoff[-1].votes
        return next((key for key, votes in last.items() if 2 * votes > sum(last.values())), None)


def evaluate(poll: Poll, profile: Mapping[str, int]) -> Evaluation:
    """Return the result of a poll.

    Args:
        poll: the poll.
        profile: choice -> number of voters who made it. Choices that the poll does not accept are left out.
    """
    keys = [option.key for option in poll.options]
    if poll.kind in {"single", "rating"}:
        votes = {key: profile.get(key, 0) for key in keys}
        total = sum(votes.values())
        if poll.kind == "single" or not total:
            return Evaluation(votes, total)
        return Evaluation(votes, total, mean=sum(int(key) * count for key, count in votes.items()) / total)
    valid = {choice: count for choice, count in profile.items() if count > 0 and poll.accepts(choice)}
    total = sum(valid.values())
    votes = dict.fromkeys(keys, 0)
    if poll.kind == "multiple":
        for choice, count in valid.items():
            for key in choice:
                votes[key] += count
        return Evaluation(votes, total)
    for choice, count in valid.items():
        votes[choice[0]] += count
    offered = [option.key for option in poll.options if not option.retired or votes[option.key]]
    points = borda(offered, valid)
    return Evaluation(votes, total, points=points, runoff=instant_runoff(offered, valid, points))


def option_rows(poll: Poll, result: Evaluation) -> list[dict[str, Any]]:
    """Return the options with their numbers, as pages and APIs have them; a retired option only if it has votes."""
    return [
        {"key": option.key, "label": option.label, "votes": result.votes.get(option.key, 0)}
        | ({} if result.points is None else {"points": result.points.get(option.key, 0)})
        for option in poll.options
        if not option.retired or result.votes.get(option.key)
    ]


def bar_lengths(kind: Kind, options: Sequence[Mapping[str, Any]], total: int) -> list[float]:
    """Return the length of the bar of each of `option_rows`, in percent, as web/pages/numbers.js does.

    It is the share of the voters or, in a ranking, of the points that an option could have.
    """
    if kind == "multiple":
        return [_round(1000 * option["votes"] / total) if total else 0.0 for option in options]
    if kind != "ranking":
        return shares([option["votes"] for option in options])
    most = max(1, total * (len(options) - 1))
    return [_round(1000 * option["points"] / most) for option in options]


def _round(tenths: float) -> float:
    return math.floor(tenths + 0.5) / 10  # as Math.round


def borda(keys: list[str], profile: Mapping[str, int]) -> dict[str, int]:
    """Return the Borda points of each option.

    With n options, a ballot gives n - 1 points to its first, n - 2 to its second, and so on; none to those it does not
    name. https://en.wikipedia.org/wiki/Borda_count
    """
    points = dict.fromkeys(keys, 0)
    for choice, count in profile.items():
        for place, key in enumerate(choice):
            if key in points:
                points[key] += count * (len(keys) - 1 - place)
    return points


def instant_runoff(keys: list[str], profile: Mapping[str, int], points: Mapping[str, int]) -> tuple[RunoffRound, ...]:
    """Return the rounds of an instant run-off, until one option has more than half of the ballots, or two are left.

    Each round leaves out the option with the fewest ballots. If several have the fewest, it is the one that had fewer
    in an earlier round, the latest first; then the one with fewer Borda points; then the last in the poll's order.
    https://en.wikipedia.org/wiki/Instant-runoff_voting
    """
    rounds: list[RunoffRound] = []
    piles: dict[str, list[tuple[str, int, int]]] = {key: [] for key in keys}  # choice, ballots, place of the key in it
    votes = dict.fromkeys(keys, 0)
    exhausted = sum(_transfer(choice, count, 0, piles, votes) for choice, count in profile.items())
    while True:
        counted = sum(votes.values())
        is_last = len(votes) <= 2 or any(2 * count > counted for count in votes.values()) or not counted
        if is_last:
            return (*rounds, RunoffRound(votes, exhausted, None))
        history = [earlier.votes for earlier in reversed(rounds)]
        remaining = list(votes)
        lowest = min(
            remaining,
            key=lambda key: (votes[key], [each[key] for each in history], points[key], -remaining.index(key)),
        )
        rounds.append(RunoffRound(votes, exhausted, lowest))
        votes = {key: count for key, count in votes.items() if key != lowest}
        exhausted += sum(_transfer(choice, count, place, piles, votes) for choice, count, place in piles.pop(lowest))


def _transfer(
    choice: str, count: int, start: int, piles: Mapping[str, list[tuple[str, int, int]]], votes: dict[str, int]
) -> int:
    """Give ballots to the first option from a place on that is still in; return how many name no such option."""
    for place in range(start, len(choice)):
        key = choice[place]
        if key in votes:
            piles[key].append((choice, count, place + 1))
            votes[key] += count
            return 0
    return count


def shares(votes: list[int]) -> list[float]:
    """Return percentages with one decimal that add up to 100.0, by the largest remainder; all 0 without votes.

    https://en.wikipedia.org/wiki/Quota_method
    """
    total = sum(votes)
    if not total:
        return [0.0] * len(votes)
    tenths = [1000 * count // total for count in votes]
    by_remainder = sorted(range(len(votes)), key=lambda n: (-(1000 * votes[n] % total), n))
    for number in by_remainder[: 1000 - sum(tenths)]:
        tenths[number] += 1
    return [tenth / 10 for tenth in tenths]
