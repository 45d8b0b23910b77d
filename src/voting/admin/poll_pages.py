"""The pages on which the admin makes, edits, copies, resets and deletes a poll."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voting.admin import polls, reads, sessions
from voting.admin.change import Change
from voting.admin.forms import Form, PollForm, read_form
from voting.admin.identity import Identity
from voting.admin.inputs import NewPoll, PollChange, SessionChange
from voting.admin.pages import PageMaker, see
from voting.admin.problems import Invalid, parse
from voting.polls.poll import DEFAULT_POLL, MAX_OPTIONS
from voting.polls.session import parse_code
from voting.web.problems import Problem

TIMERS = (15, 30, 60, 90, 120, 180, 300, 600, 900, 1800, 3600)  # seconds
ERASE_DAYS = (0, 1, 7, 30, 90, 365)


class PollPages:
    """The endpoints."""

    def __init__(self, maker: PageMaker) -> None:
        self._maker, self._database = maker, maker.services.database

    def routes(self) -> list[BaseRoute]:
        route = self._maker.route
        return [
            route("/polls/new", self.new),
            route("/polls/new", self.create, "POST"),
            route("/polls/{slug}", self.editor),
            route("/polls/{slug}", self.save, "POST"),
            route("/polls/{slug}/copy", self.copy, "POST"),
            route("/polls/{slug}/delete", self.confirm_delete),
            route("/polls/{slug}/delete", self.delete, "POST"),
            route("/polls/{slug}/reset", self.confirm_reset),
            route("/polls/{slug}/reset", self.reset, "POST"),
        ]

    async def new(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        session = parse_code(request.query_params.get("session", ""))
        return self._edit(request, who, PollForm(), form_id=polls.new_suffix(), session=session)

    async def create(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        form = await read_form(request)
        poll_form, action = PollForm.sent(form), form.get("do")
        form_id, session = form.get("form") or polls.new_suffix(), parse_code(form.get("session"))
        again: dict[str, Any] = {"form_id": form_id, "session": session}
        if poll_form.rearrange(action):
            return self._edit(request, who, poll_form, **again)
        try:
            wanted = parse(NewPoll, poll_form.values() | {"slug": polls.slug_of(poll_form.question, form_id)})
            try:
                slug = await self._create(who, wanted, session, opens=action == "open")
            except Problem as problem:
                if problem.reason != "slug_taken":
                    raise
                slug = await self._made_before(who, wanted, poll_form) or await self._create(
                    who, wanted.model_copy(update={"slug": None}), session, opens=action == "open"
                )
        except Problem as problem:
            return self._edit(request, who, poll_form, problem=problem, **again)
        if session:
            return see(f"/sessions/{session}#poll-{slug}")
        if wanted.access == "code":  # it cannot be opened before there are codes
            return see(f"/polls/{slug}/codes")
        return see(f"/polls/{slug}/control")

    async def _create(self, who: Identity, wanted: NewPoll, session: str | None, *, opens: bool) -> str:
        async with self._database.write(who) as change:
            slug = await polls.create(change, wanted)
            if opens and wanted.access != "code":
                await polls.edit(change, slug, PollChange(state="open"))
            if session:
                row = await sessions.read_session(change.connection, session)
                await sessions.edit(change, session, SessionChange(polls=[*row["polls"], slug]))
        return slug

    async def _made_before(self, who: Identity, wanted: NewPoll, form: PollForm) -> str | None:
        """Return the slug of the poll that the same form has made, if it was sent twice."""
        async with self._database.read() as connection:
            try:
                poll = await reads.poll(connection, who, wanted.slug or "")
            except Problem:
                return None
        known = PollForm.of(poll)
        is_same = (known.question, known.kind) == (wanted.question, wanted.kind)
        return wanted.slug if is_same and (form.kind == "rating" or known.options == wanted.options) else None

    async def editor(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        poll = await self._read(request, who)
        return self._edit(request, who, PollForm.of(poll), poll=poll)

    async def save(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        form = await read_form(request)
        poll_form, action = PollForm.sent(form), form.get("do")
        poll = await self._read(request, who)
        if poll_form.rearrange(action):
            return self._edit(request, who, _filled(poll_form, poll), poll=poll, seen=form.number("changed"))
        try:
            wanted = parse(PollChange, poll_form.values(poll))
            async with self._database.write(who) as change:
                await self._save(change, poll, poll_form, wanted, form)
        except Problem as problem:
            seen = None if problem.reason == "changed" else form.number("changed")
            return self._edit(request, who, _filled(poll_form, poll), poll=poll, problem=problem, seen=seen)
        return see(f"/polls/{poll['slug']}/control")

    async def _save(
        self, change: Change, poll: Mapping[str, Any], poll_form: PollForm, wanted: PollChange, form: Form
    ) -> None:
        slug: str = poll["slug"]
        try:
            await polls.edit(change, slug, wanted, expected=form.number("changed"))
        except Problem as problem:
            known = PollForm.of(poll).values()
            if problem.reason != "changed" or known | poll_form.values(poll) != known:
                raise  # else the same form was sent twice
        if form.get("do") == "open":
            await polls.edit(change, slug, PollChange(state="open"))

    async def copy(self, request: Request, who: Identity) -> Response:
        async with self._database.write(who) as change:
            slug = await polls.copy(change, request.path_params["slug"])
        return see(f"/polls/{slug}")

    async def confirm_delete(self, request: Request, who: Identity) -> Response:
        who.require_admin()
        return self._maker.show(request, who, "delete_poll.html", poll=await self._read(request, who))

    async def delete(self, request: Request, who: Identity) -> Response:
        try:
            async with self._database.write(who) as change:
                await polls.delete(change, request.path_params["slug"])
        except Problem as problem:
            if problem.status != 404:  # it was deleted by the same form, sent before
                raise
        return see("/")

    async def confirm_reset(self, request: Request, who: Identity) -> Response:
        poll = await self._read(request, who)
        return self._maker.show(request, who, "reset_poll.html", poll=poll, back=_control(request.query_params, poll))

    async def reset(self, request: Request, who: Identity) -> Response:
        form = await read_form(request)
        async with self._database.write(who) as change:
            poll = await reads.poll(change.connection, who, request.path_params["slug"])
            if form.number("round") == poll["round"]:  # else the same form was sent twice
                await polls.reset(change, poll["slug"])
        return see(_control({"session": form.get("session")}, poll))

    async def _read(self, request: Request, who: Identity) -> dict[str, Any]:
        async with self._database.read() as connection:
            return await reads.poll(connection, who, request.path_params["slug"])

    def _edit(
        self,
        request: Request,
        who: Identity,
        form: PollForm,
        *,
        poll: Mapping[str, Any] | None = None,
        problem: Problem | None = None,
        **context: Any,
    ) -> Response:
        """Return the editor with a form and what is wrong in it."""
        errors = list(problem.errors) if isinstance(problem, Invalid) else []
        places = dict(enumerate(form.places))
        by_field = {_placed(error.field, places): error for error in errors}
        meaning_fixed = bool(poll and (poll["slug"] == DEFAULT_POLL or poll["total"]))
        more: dict[str, Any] = {
            "seen": poll["changed"] if poll else None,
            "max_options": MAX_OPTIONS,
            "timers": sorted({*TIMERS, *([int(form.timer)] if form.timer.isdecimal() else [])}),
            "erase_days": sorted({*ERASE_DAYS, *([int(form.erase_days)] if form.erase_days.isdecimal() else [])}),
            "meaning_fixed": meaning_fixed,
            "kind_fixed": meaning_fixed or bool(poll and poll["state"] != "draft"),
            "session": None,
            "form_id": None,
        }
        status = problem.status if problem else 200
        more |= {name: value for name, value in context.items() if value is not None}
        return self._maker.show(
            request, who, "poll.html", status, form=form, poll=poll, problem=problem, errors=by_field, **more
        )


def _placed(name: str, places: Mapping[int, int]) -> str:
    """Return the name of a field as the form has it, which also has the empty options."""
    field, _, number = name.partition(".")
    return f"options.{places.get(int(number), 0)}" if field == "options" and number.isdecimal() else field


def _filled(form: PollForm, poll: Mapping[str, Any]) -> PollForm:
    """Return a form that was sent, with what the poll has in the fields that cannot be changed and were not sent."""
    known = PollForm.of(poll)
    meaning = {"question", "kind", "options", "max_choices", "scale"}
    for name in (meaning | {"results", "access", "publish", "timer", "erase_days"}) - form.given:
        setattr(form, name, getattr(known, name))
    return form


def _control(given: Mapping[str, str], poll: Mapping[str, Any]) -> str:
    """Return the path of the control page from which a form came: that of a session, or of the poll."""
    code = parse_code(given.get("session", ""))
    return f"/sessions/{code}/control" if code else f"/polls/{poll['slug']}/control"
