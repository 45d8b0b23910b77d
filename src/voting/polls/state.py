"""The states of a poll, and the changes between them.

A poll takes votes only while it is open. A closed poll becomes final by itself, when the last vote that was accepted
before it closed is counted: see closing.py. A reset begins the next round at the same address: a draft without votes.
The earlier round is kept. `TRANSITIONS` is the only definition of the changes: the admin service, the tests and the
picture in docs/architecture.md use it.
"""

from typing import Literal, get_args

State = Literal["draft", "open", "closed", "final"]
Action = Literal["open", "close", "finish", "reset"]

STATES: tuple[State, ...] = get_args(State)
TRANSITIONS: dict[tuple[State, State], Action] = {
    ("draft", "open"): "open",
    ("open", "closed"): "close",
    ("closed", "final"): "finish",  # only workers do this
    ("open", "draft"): "reset",
    ("closed", "draft"): "reset",
    ("final", "draft"): "reset",
}


class ForbiddenTransition(Exception):
    """The poll cannot go from its state to the one that was asked for; the message says what can be done."""


def transition(state: State, to: State) -> Action | None:
    """Return what somebody must do to bring a poll from one state to another, None if nothing.

    Raise `ForbiddenTransition` if nobody can.
    """
    if state == to or (state == "final" and to == "closed"):
        return None
    action = TRANSITIONS.get((state, to))
    if action is None or action == "finish":
        actions = {action for (before, _), action in TRANSITIONS.items() if before == state and action != "finish"}
        ways = " or ".join(f"{action} it" for action in sorted(actions))
        raise ForbiddenTransition(f"a poll cannot go from {state} to {to}; you can {ways}")
    return action


def is_over(state: State) -> bool:
    """Whether a poll in this state takes no more votes in its round."""
    return state in {"closed", "final"}


def is_visible(results: str, state: State, *, has_ticket: bool) -> bool:
    """Whether a browser may see the numbers of a poll.

    Args:
        results: who sees them, see `Poll.results`.
        state: of the poll.
        has_ticket: whether the browser has the poll's ticket, which the vote service gives to those who have voted.
    """
    if results == "after_vote":
        return has_ticket or is_over(state)
    return results == "live" or (results == "after_close" and is_over(state))
