"""Operations on voting codes: make, revoke, replace, renew, show.

Like those on polls, each works in the transaction that it is given and raises `Problem` if it is refused. Only the
admin may see or change codes: the host of a session runs it, and does not decide who votes. The audit log has the
numbers of the codes, never a code or a key.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace as with_fields
from typing import Any, NamedTuple

from voting.admin.change import Change
from voting.admin.code_lists import (
    Owner,
    list_of_poll,
    no_codes,
    ranges,
    read_list,
    require_closed,
    require_one_list,
    version,
)
from voting.admin.identity import Identity
from voting.admin.inputs import SomeCodes
from voting.admin.problems import FieldError, Invalid, invalid
from voting.admin.sessions import read_session
from voting.admin.stored_poll import read_poll
from voting.database.connection import Connection
from voting.polls.codes import MAX_CHANGES, MAX_SERIAL, BadCode, CodeList, new_key, read_code
from voting.web.language import translatable
from voting.web.problems import Problem


class Codes(NamedTuple):
    """A list, its owner, and the polls that use it."""

    owner: Owner
    codes: CodeList | None
    polls: tuple[str, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `CodesOut`."""
        changes = self.codes.changes.values() if self.codes else ()
        revoked = sum(change < 0 for change in changes)
        made = self.codes.issued if self.codes else 0
        counts = {"made": made, "valid": made - revoked, "revoked": revoked, "replaced": len(changes) - revoked}
        return counts | {"poll": self.owner.poll, "session": self.owner.session}


async def read(connection: Connection, who: Identity, owner: Owner) -> Codes:
    """Return the list of a session, or the one that a poll uses, which can be that of a session; 404 for neither."""
    who.require_admin()
    if owner.poll is not None:
        await read_poll(connection, owner.poll)
        found, codes = await list_of_poll(connection, owner.poll)
        if found.session is None:
            return Codes(found, codes, (owner.poll,))
        owner = found
    row = await read_session(connection, owner.session or "")
    owner = Owner(session=row["code"])
    return Codes(owner, await read_list(connection, owner), tuple(row["polls"]))


async def make(change: Change, owner: Owner, count: int, *, expected: str | None = None) -> range:
    """Make more codes, and the list if there is none; return their numbers.

    Args:
        change: the transaction.
        owner: of the list.
        count: how many, from 1.
        expected: `version` of the list that the caller has seen, to be refused with 412 if it has changed since.
    """
    found = await _own(change, owner, expected)
    if owner.poll is not None and (await read_poll(change.connection, owner.poll)).poll.access != "code":
        message = translatable(
            "This poll does not ask for voting codes. Choose “People with a voting code” under “Who may vote?” first."
        )
        raise Problem(409, "not_with_codes", message)
    if found.codes is None and found.owner.session:
        await require_one_list(change.connection, found.owner.session, found.polls)
    codes = found.codes or CodeList(new_key())
    left = MAX_SERIAL - codes.issued
    if count > left:
        message = translatable(
            "A list has {limit} codes at most, so {left} more can be made. Replace codes that nobody has, or make "
            "another poll or session for the others."
        )
        raise Problem(409, "too_many_codes", message, limit=MAX_SERIAL, left=left)
    numbers = range(codes.issued + 1, codes.issued + count + 1)
    await _save(change, found, with_fields(codes, issued=codes.issued + count), "make_codes", numbers)
    return numbers


async def revoke(change: Change, owner: Owner, wanted: Sequence[int], *, expected: str | None = None) -> None:
    """Let the codes with these numbers be refused from now on. Votes that were cast with them stay."""
    found, codes = await _made(change, owner, expected)
    numbers = [number for number in dict.fromkeys(wanted) if codes.changes.get(number, 0) >= 0]
    if numbers:
        changes = {number: -1 - codes.changes.get(number, 0) for number in numbers}
        await _save(change, found, _changed(codes, changes), "revoke_codes", numbers)


async def replace(change: Change, owner: Owner, wanted: Sequence[int], *, expected: str | None = None) -> list[int]:
    """Make new codes with these numbers, which are returned; the codes that had them are refused from now on.

    Whoever has the new code votes as the same voter: a vote with it replaces one that was cast with the old code.
    """
    found, codes = await _made(change, owner, expected)
    numbers = list(dict.fromkeys(wanted))
    before = {number: codes.changes.get(number, 0) for number in numbers}
    changes = {number: (held if held >= 0 else -1 - held) + 1 for number, held in before.items()}
    await _save(change, found, _changed(codes, changes), "replace_codes", numbers)
    return numbers


async def renew(change: Change, owner: Owner, *, expected: str | None = None) -> None:
    """Give a list a new key: as many new codes, and all that were made before are refused.

    With new codes people are other voters. So this is refused while a poll is open that uses the list: votes that were
    cast with the old codes would stay, and count beside those with the new ones.
    """
    found, codes = await _made(change, owner, expected)
    await require_closed(change.connection, found.polls)
    await _save(change, found, CodeList(new_key(), codes.issued), "renew_codes", range(1, codes.issued + 1))


async def show(change: Change, owner: Owner, numbers: Iterable[int]) -> tuple[CodeList, list[int]]:
    """Return the list, and those of the numbers that have a valid code; record that these were shown."""
    found, codes = await _made(change, owner, None)
    shown = [number for number in numbers if number <= codes.issued and codes.changes.get(number, 0) >= 0]
    if not shown:
        raise invalid("first", translatable("There are no valid codes with these numbers."))
    await _record(change, found.owner, "codes_shown", shown)
    return codes, shown


async def numbers_of(change: Change, owner: Owner, which: SomeCodes) -> list[int]:
    """Return the numbers of codes that are named by themselves or by their number, or raise `Invalid`."""
    _, held = await _made(change, owner, None)
    errors, found = [], []
    for place, code in enumerate(which.codes):
        try:
            found.append(held.verify(read_code(code.encode(errors="replace"))))
        except BadCode as error:
            is_typo = error.reason == "typo"
            typo = translatable("This code has a typing error. A code has 16 letters and digits.")
            unknown = translatable("This is not a valid code of this list. It may have been revoked or replaced.")
            errors.append(FieldError(f"codes.{place}", typo if is_typo else unknown))
    for place, number in enumerate(which.numbers):
        if number > held.issued:
            message = translatable("There is no code with this number: the last one is {last}.")
            errors.append(FieldError(f"numbers.{place}", message, {"last": held.issued}))
        found.append(number)
    if not found and not errors:
        errors.append(FieldError("numbers", translatable("Name at least one code, or the number of one.")))
    if errors:
        raise Invalid(errors)
    return list(dict.fromkeys(found))


async def _own(change: Change, owner: Owner, expected: str | None) -> Codes:
    """Return the list that belongs to a poll or session itself, or raise the refusal."""
    found = await read(change.connection, change.who, owner)
    if owner.poll is not None and found.owner.session:
        message = translatable("This poll uses the voting codes of the session {session}. Make and change them there.")
        raise Problem(409, "session_codes", message, session=found.owner.session)
    if expected is not None and expected != version(found.codes):
        message = translatable("The codes have changed since you loaded this page. Check them before you try again.")
        raise Problem(412, "changed", message)
    return found


async def _made(change: Change, owner: Owner, expected: str | None) -> tuple[Codes, CodeList]:
    found = await _own(change, owner, expected)
    if found.codes is None:
        raise no_codes()
    return found, found.codes


def _changed(codes: CodeList, changes: dict[int, int]) -> CodeList:
    all_changes = {**codes.changes, **changes}
    if len(all_changes) > MAX_CHANGES:
        message = translatable(
            "At most {limit} codes of a list can be revoked or replaced, and {left} more are possible. Renew the whole "
            "list instead, when no poll that uses it is open."
        )
        raise Problem(409, "too_many_changes", message, limit=MAX_CHANGES, left=MAX_CHANGES - len(codes.changes))
    return with_fields(codes, changes=all_changes)


async def _save(change: Change, found: Codes, codes: CodeList, action: str, numbers: Iterable[int]) -> None:
    row = codes.to_dict()
    row["changes"] = json.dumps(row["changes"])
    await change.execute("admin_save_codes", owner=found.owner.name, **row)
    await _record(change, found.owner, action, numbers)


async def _record(change: Change, owner: Owner, action: str, numbers: Iterable[int]) -> None:
    await change.record(action, poll=owner.poll, session=owner.session, numbers=ranges(numbers))
