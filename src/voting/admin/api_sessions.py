"""The API of sessions, and the audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from voting.admin import audit_export, reads, sessions
from voting.admin.api_route import After, ApiRoute, Limit, Uses, Who, next_page
from voting.admin.inputs import NewSession, SessionChange
from voting.admin.outputs import AuditPage, HostLink, NewSessionOut, SessionOut, SessionPage

LINES = {200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}}
router = APIRouter(prefix="/api", route_class=ApiRoute)


@router.get("/sessions", response_model=SessionPage, tags=["Sessions"])
async def list_sessions(request: Request, uses: Uses, who: Who, limit: Limit = 50, after: After = None) -> Any:
    """List sessions, newest first."""
    async with uses.database.read() as connection:
        found, cursor = await reads.session_list(connection, who, limit=limit, after=after)
    links = uses.links(request)
    shown = [session | links.of_session(session["code"]) for session in found]
    return {"sessions": shown, "next": next_page("/api/sessions", limit, cursor)}


@router.post("/sessions", status_code=201, response_model=NewSessionOut, tags=["Sessions"])
async def create_session(request: Request, response: Response, uses: Uses, who: Who, new: NewSession) -> Any:
    """Make a session: a list of polls that the audience joins with a code."""
    async with uses.database.write(who) as change:
        code, token = await sessions.create(change, new)
        created = await reads.session(change.connection, who, code)
    links = uses.links(request)
    response.headers["location"] = f"/api/sessions/{code}"
    return created | links.of_session(code) | {"host_url": links.of_host(token)}


@router.get("/sessions/{code}", response_model=SessionOut, tags=["Sessions"])
async def get_session(request: Request, uses: Uses, who: Who, code: str) -> Any:
    """Return a session."""
    async with uses.database.read() as connection:
        found = await reads.session(connection, who, code)
    return found | uses.links(request).of_session(found["code"])


@router.patch("/sessions/{code}", response_model=SessionOut, tags=["Sessions"])
async def change_session(request: Request, uses: Uses, who: Who, code: str, wanted: SessionChange) -> Any:
    """Change a session, or show another of its polls. The host of the session may change `current`."""
    async with uses.database.write(who) as change:
        await sessions.edit(change, code, wanted)
        found = await reads.session(change.connection, who, code)
    return found | uses.links(request).of_session(found["code"])


@router.delete("/sessions/{code}", status_code=204, tags=["Sessions"])
async def delete_session(uses: Uses, who: Who, code: str) -> None:
    """Delete a session. Its polls stay."""
    async with uses.database.write(who) as change:
        await sessions.delete(change, code)


@router.post("/sessions/{code}/next", response_model=SessionOut, tags=["Sessions"])
async def next_poll(request: Request, uses: Uses, who: Who, code: str) -> Any:
    """Close the current poll if it is open, and show the next one."""
    async with uses.database.write(who) as change:
        await sessions.step_on(change, code)
        found = await reads.session(change.connection, who, code)
    return found | uses.links(request).of_session(found["code"])


@router.post("/sessions/{code}/host-link", response_model=HostLink, tags=["Sessions"])
async def replace_host_link(request: Request, uses: Uses, who: Who, code: str) -> Any:
    """Make a new link for the host of a session. The one before is not valid any more."""
    async with uses.database.write(who) as change:
        token = await sessions.replace_host_link(change, code)
    return {"host_url": uses.links(request).of_host(token)}


@router.get("/audit", response_model=AuditPage, tags=["Audit"])
async def list_audit(
    uses: Uses, who: Who, limit: Limit = 50, after: Annotated[int | None, Query(ge=1, le=2**62)] = None
) -> Any:
    """List who changed what, newest first."""
    async with uses.database.read() as connection:
        found, cursor = await reads.audit_list(connection, who, limit=limit, after=after)
    return {"entries": found, "next": next_page("/api/audit", limit, cursor)}


@router.get("/audit.jsonl", response_class=Response, responses=LINES, tags=["Audit"])  # type: ignore[arg-type]
async def export_audit(uses: Uses, who: Who) -> Response:
    """Return the whole log as a file, one JSON object a line, with `text` and `hash`.

    `hash` is the SHA-256 of the hash before, 32 zero bytes for the first line, followed by `text` in UTF-8. `text` is
    an array of id, microseconds since 1970, actor, action, poll, session and detail.
    """
    who.require_admin()
    head = await audit_export.newest(uses.database)
    headers = {"content-disposition": f'attachment; filename="audit-{head.id}.jsonl"'}
    lines = audit_export.lines(uses.database, head.id)
    return StreamingResponse(lines, headers=headers, media_type="application/jsonl")
