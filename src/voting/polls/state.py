"""The states of a poll, and the changes between them.

A poll takes votes only while it is open. A reset begins the next round at the same address: a draft without votes. The
earlier round is kept. `TRANSITIONS` is the only definition of the changes: the admin service, the tests and the picture
in docs/architecture.md use it.
"""

from typing import Literal, get_args

State = Literal["draft", "open", "closed"]
Action = Literal["open", "close", "reset"]

STATES: tuple[State, ...] = get_args(State)
TRANSITIONS: dict[tuple[State, State], Action] = {
    ("draft", "open"): "open",
    ("open", "closed"): "close",
    ("open", "draft"): "reset",
    ("closed", "draft"): "reset",
}


class ForbiddenTransition(Exception):
    """The poll cannot go from its state to the one that was asked for; the message says what can be done."""


def transition(state: State, to: State) -> Action | None:
    """Return the action that leads from one state to another, None if they are the same.

    Raise `ForbiddenTransition` if no action does.
    """
    if state == to:
        return None
    try:
        return TRANSITIONS[state, to]
    except KeyError:
        ways = " or ".join(f"{action} it" for (before, _), action in TRANSITIONS.items() if before == state)
        raise ForbiddenTransition(f"a poll that is {state} cannot become {to}; you can {ways}") from None


def is_visible(results: str, state: State, *, has_ticket: bool) -> bool:
    """Whether a browser may see the numbers of a poll.

    Args:
        results: who sees them, see `Poll.results`.
        state: of the poll.
        has_ticket: whether the browser has the poll's ticket, which the vote service gives to those who have voted.
    """
    if results == "after_vote":
        return has_ticket or state == "closed"
    return results == "live" or (results == "after_close" and state == "closed")
