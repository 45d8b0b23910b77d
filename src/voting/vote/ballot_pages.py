"""The pages of ballots, rendered once for each poll, state, session, language and choice, and then kept."""

import functools
import re
from itertools import chain
from typing import Any, NamedTuple

from voting.polls.session import Session
from voting.polls.state import State, is_visible
from voting.settings.services import VoteSettings
from voting.vote.prepared import PreparedBallot
from voting.web.language import Language, language
from voting.web.rendering import Pages

PLACEHOLDER = "0000000000000-receipt"  # stands for the receipt (an entry id) in rendered pages
TRACKER = "0000-0000-0000-tracker"  # stands for the tracker
# In this order in the template, each once or not at all.
_PLACEHOLDERS = re.compile(f"{PLACEHOLDER}|{TRACKER}".encode())
MAX_PAGES = 500  # pages kept, of 3 to 30 kB; the least recently used leave first


class BallotView(NamedTuple):
    """What a page shows.

    Args:
        ballot: the poll's ballot.
        state: the poll's state now.
        reader: the code of the language.
        session: the session in which the poll is shown.
        choice: the choice that was accepted just now; empty if none was.
        voted: whether to say that the voter has voted, where the choice is not known.
        has_code: whether this browser remembers a voting code that the poll accepts.
    """

    ballot: PreparedBallot
    state: State
    reader: str
    session: Session | None = None
    choice: bytes = b""
    voted: bool = False
    has_code: bool = False


class BallotPages:
    """Renders ballots, and the page of a session without a current poll."""

    def __init__(self, settings: VoteSettings, pages: Pages) -> None:
        self._pages = pages
        self._result = {"result_url": settings.result_url, "result_port": settings.result_port}
        self._kept = functools.lru_cache(MAX_PAGES)(self._render)

    def ballot(self, view: BallotView, receipt: bytes = b"", tracker: bytes = b"") -> bytes:
        """Return the page of a poll, with the receipt and the tracker of the choice, if any."""
        is_rare = view.choice and view.ballot.poll.limit > 1  # its choices are too many to keep a page for each
        before, *parts = self._render(view) if is_rare else self._kept(view)
        return b"".join([before, *chain.from_iterable(zip((receipt, tracker), parts, strict=False))])

    def waiting(self, session: Session, reader: Language) -> bytes:
        """Return the page of a session that has no current poll."""
        return self._pages.render("waiting.html", reader, session=session, here=f"/{session.code}", **self._result)

    def _render(self, view: BallotView) -> list[bytes]:
        poll, chosen, reader = view.ballot.poll, view.choice.decode(), language(view.reader)
        labels = {option.key: option for option in poll.offered}
        due = poll.opens_at if view.state == "draft" else poll.closes_at
        text = self._pages.render(
            "ballot.html",
            reader,
            state=view.state,
            chosen=[labels[key] for key in (chosen if poll.limit > 1 else [chosen]) if key],
            voted=view.voted,
            has_code=view.has_code,
            sees_result=view.state != "draft"
            and is_visible(poll.results, view.state, has_ticket=bool(chosen) or view.voted),
            receipt=PLACEHOLDER,
            tracker=TRACKER if poll.publish and poll.tracker_key else "",
            due=reader.moment(due) if due else "",
            **self._result,
            **_context(view.ballot, view.session),
        )
        return _PLACEHOLDERS.split(text)


def _context(ballot: PreparedBallot, session: Session | None) -> dict[str, Any]:
    poll = ballot.poll
    path = poll.path or "/"
    results = f"/{session.code}/results" if session else f"{poll.path}/results"
    return {
        "poll": poll,
        "digest": ballot.digest,
        "session": session,
        "position": session.position(poll.slug) if session else None,
        "here": f"/{session.code}" if session else path,
        "action": f"{path}?s={session.code}" if session else path,
        "socket": f"/s/{session.code}/ws?view=ballot" if session else f"{poll.path}/ws?view=ballot",
        "results_href": results,
        "ballots_href": f"{poll.path}/ballots",
        "voted_token": ballot.voted_token,
        "ticket_href": f"{poll.path}/results?ticket={ballot.ticket}",
    }
