"""Operations on polls: make, copy, change, reset, delete.

Each takes the transaction in which it works (`Database.write`), and raises `Problem` if it is refused. It knows nothing
of HTTP, so that the pages and the API share it.
"""

import re
import secrets
import unicodedata
from dataclasses import replace
from typing import Any

from voting.admin.change import Change
from voting.admin.checks import change_poll, given_fields, new_poll, utc_now
from voting.admin.code_lists import require_codes
from voting.admin.inputs import NewPoll, PollChange
from voting.admin.problems import invalid
from voting.admin.stored_poll import StoredPoll, changed_columns, read_poll, require_poll
from voting.database.queries import QUERIES
from voting.polls.poll import DEFAULT_POLL
from voting.polls.slug import SLUG
from voting.web.language import translatable
from voting.web.problems import Problem

FOR_HOSTS = {"state", "results", "closes_at", "closes_in"}  # the fields that the host of a session may change
_SUFFIX = "23456789abcdefghjkmnpqrstvwxyz"  # without look-alikes


async def create(change: Change, new: NewPoll) -> str:
    """Make a draft and return its slug."""
    change.who.require_admin()
    if new.slug and await is_taken(change, new.slug):
        message = translatable("Another poll has this name, or had it before it was deleted.")
        raise Problem(409, "slug_taken", message)
    draft = new_poll(new.slug or await _free_slug(change, new.question), new, utc_now())
    await _insert(change, draft)
    await change.record("create", poll=draft.poll.slug, question=draft.poll.question)
    return draft.poll.slug


async def copy(change: Change, slug: str) -> str:
    """Make a draft with the meaning of a poll, without its votes and times; return its slug."""
    change.who.require_admin()
    original = await read_poll(change.connection, slug)
    poll = replace(original.poll, slug=await _free_slug(change, original.poll.question), options=original.poll.offered)
    await _insert(change, StoredPoll(poll, original.created, original.timer, erase_days=original.erase_days))
    await change.record("copy", poll=poll.slug, of=slug)
    return poll.slug


async def edit(change: Change, slug: str, wanted: PollChange, *, expected: int | None = None) -> None:
    """Change a poll; fields that already have the value that is asked for change nothing.

    Args:
        change: the transaction.
        slug: of the poll.
        wanted: the fields to change.
        expected: `Poll.changed` of what the caller has seen, to be refused with 412 if it has changed since.
    """
    before = await _lock(change, slug)
    values = given_fields(wanted)
    if change.who.role == "host" and values.keys() - FOR_HOSTS:
        change.who.require_admin()
    if expected is not None and before.poll.changed != expected:
        raise Problem(412, "changed", translatable("This poll has changed since you loaded it. Load it again."))
    if values.get("state") == "draft" and before.poll.state != "draft":
        before = await _next_round(change, before)
    after = change_poll(before, values, utc_now())
    if after.poll.access == "code" and _action(before, after) == "open":
        await require_codes(change.connection, slug)
    changes = changed_columns(before, after)
    if changes:
        await change.execute("admin_update_poll", **after.columns())
        await change.record(_action(before, after), poll=slug, **changes)


async def reset(change: Change, slug: str) -> None:
    """Keep the votes of an open or closed poll as an earlier round, and make it the draft of the next one."""
    before = await _lock(change, slug)
    if before.poll.state != "draft":
        await _next_round(change, before)


async def delete(change: Change, slug: str) -> None:
    """Delete a poll with all its rounds. The votes are deleted afterwards: see `sweeper`."""
    change.who.require_admin()
    await read_poll(change.connection, slug)
    if slug == DEFAULT_POLL:
        message = translatable("The first poll cannot be deleted. You can close it or hide its result.")
        raise Problem(409, "default_poll", message)
    await remove(change, slug)


async def remove(change: Change, slug: str, *, session: str | None = None) -> None:
    """Delete a poll without asking who does it, or with its session."""
    await change.execute("admin_delete_poll", slug=slug)
    await change.record("delete", poll=slug, session=session)


async def close(change: Change, slug: str) -> None:
    """Close a poll if it is open."""
    if (await _lock(change, slug)).poll.state == "open":
        await edit(change, slug, PollChange(state="closed"))


async def _lock(change: Change, slug: str) -> StoredPoll:
    await require_poll(change.connection, change.who, slug)
    return await read_poll(change.connection, slug, lock=True)


async def _insert(change: Change, draft: StoredPoll) -> None:
    await change.execute("admin_insert_poll", **draft.columns())


async def _next_round(change: Change, before: StoredPoll) -> StoredPoll:
    """Archive the round of a poll and return the draft of the next one."""
    poll = before.poll
    offered = replace(poll, options=poll.offered)
    await change.execute("admin_archive_round", slug=poll.slug)
    new: dict[str, Any] = {"options": offered.options_json(), "ticket": secrets.token_hex(16)}
    await change.execute("admin_next_round", slug=poll.slug, **new)
    await change.record("reset", poll=poll.slug, round=poll.round)
    return await read_poll(change.connection, poll.slug)


def _action(before: StoredPoll, after: StoredPoll) -> str:
    if before.poll.state == after.poll.state:
        return "edit"
    return "open" if after.poll.state == "open" else "close"


async def is_taken(change: Change, name: str) -> bool:
    """Whether a slug or a join code is in use, or was."""
    cursor = await change.connection.execute(QUERIES["admin_name_taken"], {"name": name})
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _free_slug(change: Change, question: str) -> str:
    """Return a slug that is not taken: the beginning of the question, and six random characters."""
    while await is_taken(change, slug := slug_of(question, new_suffix())):
        pass
    return slug


def new_suffix() -> str:
    """Return six random characters."""
    return "".join(secrets.choice(_SUFFIX) for _ in range(6))


def slug_of(question: str, suffix: str) -> str:
    """Return a slug: the beginning of the question, and a suffix."""
    ascii_text = unicodedata.normalize("NFKD", question).encode("ascii", "ignore").decode().lower()
    return f"{re.sub(r'[^a-z0-9]+', '-', ascii_text)[:24].strip('-') or 'poll'}-{suffix}"


async def require_polls(change: Change, slugs: list[str], field: str) -> None:
    """Raise `Invalid` for the first slug that is no poll, or is named twice."""
    clean = [slug for slug in slugs if SLUG.fullmatch(slug)]
    cursor = await change.connection.execute(QUERIES["admin_known"], {"slugs": clean})
    known = {row[0] for row in await cursor.fetchall()}
    for number, slug in enumerate(slugs):
        if slug not in known:
            raise invalid(f"{field}.{number}", translatable("There is no such poll."))
        if slug in slugs[:number]:
            raise invalid(f"{field}.{number}", translatable("This poll is already in the list."))
