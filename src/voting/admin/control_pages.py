"""The pages with which a poll and a session are run: open, close, more time, show or hide, next, reset.

A form names the poll and the state that it asks for, so it does no harm to send it twice, or after somebody else did.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voting.admin import polls, reads, sessions
from voting.admin.change import Change
from voting.admin.forms import Form, read_form
from voting.admin.identity import Identity
from voting.admin.inputs import PollChange
from voting.admin.pages import PageMaker, see
from voting.polls.state import is_over, is_visible
from voting.polls.tally import bar_lengths
from voting.web.language import translatable
from voting.web.problems import Problem

MORE_SECONDS = 60

Fields = dict[str, Any]


class ControlPages:
    """The endpoints."""

    def __init__(self, maker: PageMaker) -> None:
        self._maker, self._services, self._database = maker, maker.services, maker.services.database

    def routes(self) -> list[BaseRoute]:
        route = self._maker.route
        return [
            route("/polls/{slug}/control", self.poll),
            route("/polls/{slug}/control", self.change_poll, "POST"),
            route("/sessions/{code}/control", self.session),
            route("/sessions/{code}/control", self.change_session, "POST"),
        ]

    async def poll(self, request: Request, who: Identity) -> Response:
        async with self._database.read() as connection:
            poll = await reads.poll(connection, who, request.path_params["slug"])
        links = self._services.links(request).of_poll(poll["slug"])
        invitation = self._maker.invitation(links["vote_url"])
        return self._maker.show(
            request,
            who,
            "control_poll.html",
            links=links,
            invitation=invitation,
            action=request.url.path,
            **_parts(poll),
        )

    async def change_poll(self, request: Request, who: Identity) -> Response:
        form = await read_form(request)
        async with self._database.write(who) as change:
            await _apply(change, request.path_params["slug"], form)
        return see(request.url.path)

    async def session(self, request: Request, who: Identity) -> Response:
        async with self._database.read() as connection:
            session = await reads.session(connection, who, request.path_params["code"])
            found = await reads.some_polls(connection, session["polls"])
            known = {each["slug"] for each in found}
            poll = await reads.poll(connection, who, session["current"]) if session["current"] in known else None
        services_links = self._services.links(request)
        links = services_links.of_session(session["code"])
        slugs = [each["slug"] for each in found]
        place = slugs.index(poll["slug"]) if poll else -1
        return self._maker.show(
            request,
            who,
            "control_session.html",
            session=session,
            polls=found,
            place=place,
            before=found[place - 1] if place > 0 else None,
            after=found[place + 1] if place + 1 < len(found) else None,
            links=links,
            vote_address=services_links.vote.partition("://")[2],
            invitation=self._maker.invitation(links["join_url"]),
            action=request.url.path,
            **_parts(poll),
        )

    async def change_session(self, request: Request, who: Identity) -> Response:
        form, code = await read_form(request), request.path_params["code"]
        name, _, slug = form.get("do").partition(" ")
        async with self._database.write(who) as change:
            if name == "show":
                await sessions.show(change, code, slug)
            else:
                session = await reads.session(change.connection, who, code)
                if form.get("poll") not in session["polls"]:
                    raise Problem(409, "not_in_session", translatable("This poll is not in the list of the session."))
                await _apply(change, form.get("poll"), form)
        return see(request.url.path)


async def _apply(change: Change, slug: str, form: Form) -> None:
    """Do what a button of the control page asks for."""
    action = form.get("do")
    if action == "more":
        wanted = PollChange(closes_at=_more(form))
    elif action in {"open", "close"}:
        wanted = PollChange(state="open" if action == "open" else "closed")
        if action == "open" and is_over((await reads.poll(change.connection, change.who, slug))["state"]):
            message = translatable("This poll is closed already. Reset it to vote again.")
            raise Problem(409, "closed", message)
    elif action in {"show_result", "hide_result"}:
        wanted = PollChange(results="live" if action == "show_result" else "hidden")
    else:
        raise Problem(422, "action", translatable("This page does not know this button. Load it again."))
    await polls.edit(change, slug, wanted)


def _more(form: Form) -> datetime:
    """Return the time of closing a minute later than the page showed; without one, a minute from now."""
    now = datetime.now(UTC)
    shown = form.get("closes_at")
    try:
        at = datetime.fromisoformat(shown) if shown else now
        later: datetime = (at if at.tzinfo else at.replace(tzinfo=UTC)) + timedelta(seconds=MORE_SECONDS)
    except (ValueError, OverflowError):
        later = now + timedelta(seconds=MORE_SECONDS)
    return later if later > now else now + timedelta(seconds=MORE_SECONDS)


def _parts(poll: Fields | None) -> Mapping[str, Any]:
    """Return the parts of a page that show a poll, its numbers as bars."""
    if poll is None:
        return {"poll": None}
    visible = is_visible(poll["results"], poll["state"], has_ticket=False)
    return {"poll": poll, "bars": bars(poll), "is_shown": visible, "now": datetime.now(UTC)}


def bars(poll: Mapping[str, Any]) -> list[Fields]:
    """Return the options with the length of their bars, in percent."""
    lengths = bar_lengths(poll["kind"], poll["options"], poll["total"])
    return [option | {"share": length} for option, length in zip(poll["options"], lengths, strict=True)]
