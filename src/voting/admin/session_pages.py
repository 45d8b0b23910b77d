"""The pages on which the admin makes, edits and deletes a session."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voting.admin import codes, reads, sessions
from voting.admin.change import Change
from voting.admin.code_lists import Owner
from voting.admin.forms import Form, read_form
from voting.admin.identity import Identity
from voting.admin.inputs import NewSession, SessionChange
from voting.admin.pages import PageMaker, see
from voting.admin.problems import Invalid, parse
from voting.polls.session import new_code, parse_code
from voting.web.language import translatable
from voting.web.problems import Problem

SHOWN_SECONDS = 600  # how long a new host link can be shown, once
OFFERED = 100  # newest polls that can be added
KEEP_DAYS = (1, 7, 30, 90, 365)
_COOKIE = "new_host_link"


class SessionPages:
    """The endpoints."""

    def __init__(self, maker: PageMaker) -> None:
        self._maker, self._services, self._database = maker, maker.services, maker.services.database

    def routes(self) -> list[BaseRoute]:
        route = self._maker.route
        return [
            route("/sessions/new", self.new),
            route("/sessions/new", self.create, "POST"),
            route("/sessions/{code}", self.editor),
            route("/sessions/{code}", self.save, "POST"),
            route("/sessions/{code}/host-link", self.replace_host_link, "POST"),
            route("/sessions/{code}/delete", self.confirm_delete),
            route("/sessions/{code}/delete", self.delete, "POST"),
        ]

    async def new(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        return self._maker.show(request, who, "new_session.html", title="", code=new_code(), problem=None, error=None)

    async def create(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        form = await read_form(request)
        title, code = form.get("title"), parse_code(form.get("code")) or new_code()
        token = ""
        try:
            wanted = parse(NewSession, {"title": title})
            async with self._database.write(who) as change:
                if not await self._is_made(change, code, wanted.title):
                    code, token = await sessions.create(change, wanted, code)
        except Problem as problem:
            error = problem.errors[0] if isinstance(problem, Invalid) else None
            context = {"title": title, "code": code, "problem": problem, "error": error}
            return self._maker.show(request, who, "new_session.html", problem.status, **context)
        return self._see_with_link(request, code, token)

    async def _is_made(self, change: Change, code: str, title: str) -> bool:
        """Whether the same form has made a session before."""
        try:
            return bool((await sessions.read_session(change.connection, code))["title"] == title)
        except Problem:
            return False

    async def editor(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        return await self._show(request, who)

    async def _show(self, request: Request, who: Identity, problem: Problem | None = None, title: str = "") -> Response:
        async with self._database.read() as connection:
            session = await reads.session(connection, who, request.path_params["code"])
            listed = await reads.some_polls(connection, session["polls"])
            held = await codes.read(connection, who, Owner(session=session["code"]))
            newest, _ = await reads.poll_list(connection, who, limit=OFFERED)
        links = self._services.links(request)
        of_session = links.of_session(session["code"])
        token = request.cookies.get(_COOKIE, "")
        response = self._maker.show(
            request,
            who,
            "session.html",
            problem.status if problem else 200,
            session=session,
            title=title or session["title"],
            keep_days=sorted({*KEEP_DAYS, *([session["keep_days"]] if session["keep_days"] else [])}),
            polls=listed,
            codes=held.fields,
            offered=[poll for poll in newest if poll["slug"] not in session["polls"]],
            links=of_session,
            vote_address=links.vote.partition("://")[2],
            invitation=self._maker.invitation(of_session["join_url"]),
            host_url=links.of_host(token) if token else None,
            problem=problem,
            error=problem.errors[0] if isinstance(problem, Invalid) else None,
        )
        if token:
            response.delete_cookie(_COOKIE, path=f"/sessions/{session['code']}")
        return response

    async def save(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        form = await read_form(request)
        code = parse_code(request.path_params["code"]) or ""
        try:
            async with self._database.write(who) as change:
                session = await reads.session(change.connection, who, code)
                await sessions.edit(change, code, parse(SessionChange, _change(session["polls"], form)))
        except Problem as problem:
            if problem.status == 404:
                raise
            return await self._show(request, who, problem, form.get("title"))
        slug = form.get("do").partition(" ")[2]
        return see(f"/sessions/{code}" + (f"#poll-{slug}" if slug else ""))

    async def replace_host_link(self, request: Request, who: Identity) -> Response:
        code = parse_code(request.path_params["code"]) or ""
        async with self._database.write(who) as change:
            token = await sessions.replace_host_link(change, code)
        return self._see_with_link(request, code, token)

    def _see_with_link(self, request: Request, code: str, token: str) -> Response:
        """Lead on to the page of a session, which shows the new host link once: a cookie brings it there."""
        response = see(f"/sessions/{code}")
        if token:
            secure = self._services.is_secure(request)
            response.set_cookie(
                _COOKIE, token, SHOWN_SECONDS, path=f"/sessions/{code}", secure=secure, httponly=True, samesite="strict"
            )
        return response

    async def confirm_delete(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        async with self._database.read() as connection:
            session = await reads.session(connection, who, request.path_params["code"])
            held = await codes.read(connection, who, Owner(session=session["code"]))
        return self._maker.show(request, who, "delete_session.html", session=session, codes=held.fields)

    async def delete(self, request: Request, who: Identity) -> Response:
        try:
            async with self._database.write(who) as change:
                await sessions.delete(change, request.path_params["code"])
        except Problem as problem:
            if problem.status != 404:  # it was deleted by the same form, sent before
                raise
        return see("/")


def _change(slugs: list[str], form: Form) -> dict[str, Any]:
    """Return the change that a button of the page asks for. A button that was pressed twice asks for the same."""
    name, _, slug = form.get("do").partition(" ")
    if name == "title":
        return {"title": form.get("title")}
    if name == "keep":
        return {"keep_days": form.number("keep_days")}
    others = [each for each in slugs if each != slug]
    if name == "add":
        return {"polls": [*slugs, *([each] if (each := form.get("poll")) and each not in slugs else [])]}
    if name == "remove":
        return {"polls": others}
    if re.fullmatch(r"place\.[0-9]{1,3}", name, re.ASCII):
        place = int(name.removeprefix("place."))
        return {"polls": [*others[:place], slug, *others[place:]] if slug in slugs else slugs}
    raise Problem(422, "action", translatable("This page does not know this button. Load it again."))
