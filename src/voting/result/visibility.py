"""The audience that a request belongs to, and the ticket of those who have voted."""

import hmac
from collections.abc import Iterable
from urllib.parse import parse_qs

from voting.polls.poll import Poll
from voting.result.channel import Audience

TICKET_SECONDS = 30 * 24 * 3600


def is_ticket(text: str, poll: Poll) -> bool:
    """Whether a text is the poll's ticket."""
    return bool(poll.ticket) and hmac.compare_digest(text.encode("utf-8", "replace"), poll.ticket.encode())


def audience(poll: Poll | None, query: str, cookies: Iterable[str]) -> Audience:
    """Return the audience that a request belongs to.

    Args:
        poll: the poll; None for a session, which has no voters.
        query: of the URL. `view=ballot` is for ballots; `view=public` for what others see too, whoever asks.
        cookies: values of the header Cookie.
    """
    view = parse_qs(query).get("view") if "view=" in query else None
    if view == ["ballot"]:
        return "ballot"
    if poll is None or view == ["public"]:
        return "public"
    return "voter" if any(is_ticket(ticket, poll) for ticket in _tickets(poll, cookies)) else "public"


def _tickets(poll: Poll, cookies: Iterable[str]) -> Iterable[str]:
    for part in ";".join(cookies).split(";"):
        name, _, value = part.strip().partition("=")
        if name == f"ticket_{poll.slug}":
            yield value


def ticket_cookie(poll: Poll, *, secure: bool) -> str:
    """Return the Set-Cookie value with which a browser keeps the ticket; it is sent to the pages of this poll only."""
    secured = "; Secure" if secure else ""
    path = poll.path or "/"
    return f"ticket_{poll.slug}={poll.ticket}; Path={path}; Max-Age={TICKET_SECONDS}; HttpOnly; SameSite=Lax{secured}"
