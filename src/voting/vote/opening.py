"""When a poll takes votes, by the clock of this process.

A worker changes the state of a poll whose time has come. Until that has reached this process, `opens_at` and
`closes_at` are compared with its own clock, so that no vote is accepted after the time that the page shows. Whether an
accepted vote counts does not depend on any clock: see polls/closing.py.
"""

from voting.polls.poll import Poll
from voting.polls.state import State
from voting.web.language import translatable
from voting.web.problems import Problem


def state_at(poll: Poll, now: float) -> State:
    """Return the state of a poll at a time, in seconds since the epoch."""
    if poll.state == "draft" and poll.opens_at is not None and poll.opens_at <= now:
        return "draft" if _is_over(poll, now) else "open"
    return "closed" if poll.state == "open" and _is_over(poll, now) else poll.state


def _is_over(poll: Poll, now: float) -> bool:
    return poll.closes_at is not None and poll.closes_at <= now


def not_open(state: State) -> Problem:
    """Return the refusal of a vote in a poll that is in this state, and takes none."""
    if state == "draft":
        message = translatable("Voting has not opened yet, so your vote was not counted.")
        return Problem(409, "not_open", message, title=translatable("Voting has not opened yet"))
    message = translatable("Voting is closed, so your vote was not counted.")
    return Problem(409, "closed", message, title=translatable("Voting is closed"))
