"""The rules for a poll that concern several of its fields, and what a change makes of a poll.

Nothing here does I/O: each function takes a poll and returns another, or raises `Problem`.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from voting.admin.inputs import NewPoll, PollChange
from voting.admin.problems import FieldError, Invalid
from voting.admin.stored_poll import StoredPoll
from voting.polls.labels import fold_label
from voting.polls.options import NoKeyLeft, change_options, new_options, scale_options
from voting.polls.poll import DEFAULT_POLL, MAX_OPTIONS, Option, Poll
from voting.polls.state import ForbiddenTransition, is_over, transition
from voting.web.language import translatable
from voting.web.problems import Problem

MEANING = {"question", "options", "kind", "max_choices", "scale"}
NULLABLE = {"opens_at", "closes_at", "timer", "max_choices", "erase_days"}
FURTHEST = timedelta(days=3660)

_FUTURE = translatable("This time is in the past.")
_FAR = translatable("This time is more than ten years from now.")
_AFTER = translatable("This must be later than the time of opening.")
_HAS_VOTES = translatable(
    "This poll has votes, so its question and options must stay. Reset it for a new round, or make a copy."
)
_FINAL = translatable("The result of this poll is final. Reset it for a new round.")
_DEFAULT = translatable("The settings of the installation define the first poll. Change it there, or make a copy.")
_TOLD = translatable(
    "Voters were told whether the ballots are published, so this cannot be changed now. Reset the poll first."
)
_NOT_DRAFT = translatable("The kind can be changed only before a poll is opened. Reset it first.")

_ACCESS = translatable("Whether people vote with codes can be changed only before a poll is opened. Reset it first.")


def new_poll(slug: str, new: NewPoll, now: datetime) -> StoredPoll:
    """Return the draft that is asked for, or raise `Invalid` with everything that is wrong."""
    poll = Poll(
        slug,
        new.question,
        (),
        new.kind,
        new.max_choices,
        new.scale,
        "draft",
        results=new.results,
        access=new.access,
        publish=new.publish,
    )
    errors: list[FieldError] = []
    poll = _with_options(poll, new.options, errors)
    draft = StoredPoll(poll, now, new.timer, new.opens_at, new.closes_at, erase_days=new.erase_days)
    _check_times(draft, {"opens_at", "closes_at"}, now, errors)
    if errors:
        raise Invalid(errors)
    return draft


def _with_options(poll: Poll, labels: Sequence[str] | None, errors: list[FieldError]) -> Poll:
    """Return a draft with options for these labels (None for those that it has), and a scale and limit that fit."""
    if poll.kind == "rating":
        if labels:
            errors.append(FieldError("options", translatable("A rating has no options of its own.")))
        poll = replace(poll, scale=poll.scale or 5, options=scale_options(poll.scale or 5))
    else:
        if poll.scale is not None:
            errors.append(FieldError("scale", translatable("Only a rating has a scale.")))
        if labels is not None:
            _check_labels(labels, errors)
            poll = replace(poll, options=new_options(labels))
    if poll.max_choices is not None:
        if poll.kind != "multiple":
            message = translatable("Only a poll with several choices has a limit of choices.")
            errors.append(FieldError("max_choices", message))
        elif poll.max_choices > len(poll.offered):
            message = translatable("The poll has fewer options than this.")
            errors.append(FieldError("max_choices", message))
    return poll


def _check_labels(labels: Sequence[str], errors: list[FieldError]) -> None:
    if not 2 <= len(labels) <= MAX_OPTIONS:
        message = translatable("A poll has 2 to {limit} options, and this one has {number}.")
        errors.append(FieldError("options", message, {"limit": MAX_OPTIONS, "number": len(labels)}))
    seen: set[str] = set()
    for number, label in enumerate(labels):
        if fold_label(label) in seen:
            message = translatable("Another option has the same label.")
            errors.append(FieldError(f"options.{number}", message))
        seen.add(fold_label(label))


def _check_times(poll: StoredPoll, given: set[str], now: datetime, errors: list[FieldError]) -> None:
    for name in ("opens_at", "closes_at"):
        time = getattr(poll, name)
        if time and name in given and not timedelta(0) < time - now < FURTHEST:
            errors.append(FieldError(name, _FUTURE if time <= now else _FAR))
    if given & {"opens_at", "closes_at"} and poll.opens_at and poll.closes_at and poll.closes_at <= poll.opens_at:
        errors.append(FieldError("closes_at" if "closes_at" in given else "opens_at", _AFTER))


def given_fields(change: PollChange) -> dict[str, Any]:
    """Return the fields that a change names; null stands for "not given" where it has no meaning."""
    values = {name: getattr(change, name) for name in change.model_fields_set}
    return {name: value for name, value in values.items() if value is not None or name in NULLABLE}


def change_poll(before: StoredPoll, values: dict[str, Any], now: datetime) -> StoredPoll:
    """Return a poll after a change, which is not a reset.

    Args:
        before: the poll.
        values: from `given_fields`.
        now: the time, with a zone.
    """
    after = _change_meaning(before, values)
    times: dict[str, Any] = {name: values[name] for name in ("opens_at", "closes_at", "timer") if name in values}
    if "closes_in" in values:
        times["closes_at"] = now + timedelta(seconds=values["closes_in"])
    after = replace(
        after,
        **times,
        poll=replace(after.poll, **{name: values[name] for name in ("results", "access", "publish") if name in values}),
    )
    state = after.poll.state
    if after.poll.publish != before.poll.publish and (is_over(state) or before.has_votes):
        raise Problem(409, "publish", _TOLD)
    if state != "draft" and (after.poll.access == "code") != (before.poll.access == "code"):
        raise Problem(409, "not_draft", _ACCESS)
    if "erase_days" in values:
        after = replace(after, erase_days=values["erase_days"])
        if state == "final" and after.erase_days != before.erase_days:
            raise Problem(409, "final", _FINAL)
    if state != "draft" and times.get("opens_at"):
        message = translatable("Only a poll that was not opened yet can have a time of opening. Reset it first.")
        raise Problem(409, "not_draft", message)
    if is_over(state) and times.get("closes_at"):
        raise Problem(409, "closed", translatable("This poll is closed. Reset it for a new round."))
    errors: list[FieldError] = []
    _check_times(after, set(times), now, errors)
    if errors:
        raise Invalid(errors)
    if state == "open" and after.timer and after.timer != before.timer and after.closes_at == before.closes_at:
        after = replace(after, closes_at=now + timedelta(seconds=after.timer))  # it starts when it is set
    return _change_state(after, values.get("state", state), now)


def _change_state(poll: StoredPoll, to: Any, now: datetime) -> StoredPoll:
    try:
        action = transition(poll.poll.state, to)
    except ForbiddenTransition as error:
        raise Problem(409, "transition", str(error).capitalize() + ".") from None
    if action == "open":
        ends = poll.closes_at if poll.closes_at and poll.closes_at > now else None
        if ends is None and poll.timer:
            ends = now + timedelta(seconds=poll.timer)
        return replace(
            poll, poll=replace(poll.poll, state="open"), opened=now, closed=None, opens_at=None, closes_at=ends
        )
    if action == "close":
        return replace(poll, poll=replace(poll.poll, state="closed"), closed=now)
    return poll


def _change_meaning(before: StoredPoll, values: dict[str, Any]) -> StoredPoll:
    old = before.poll
    errors: list[FieldError] = []
    poll = _with_meaning(old, values, errors)
    if errors:
        raise Invalid(errors)
    if poll == old:
        return before
    if old.state == "final":
        raise Problem(409, "final", _FINAL)
    if old.slug == DEFAULT_POLL:
        raise Problem(409, "default_poll", _DEFAULT)
    if old.state != "draft":
        if before.has_votes:
            raise Problem(409, "has_votes", _HAS_VOTES)
        if (poll.kind, poll.scale, poll.max_choices) != (old.kind, old.scale, old.max_choices):
            raise Problem(409, "not_draft", _NOT_DRAFT)
    return replace(before, poll=poll)


def _with_meaning(old: Poll, values: dict[str, Any], errors: list[FieldError]) -> Poll:
    """Return a poll with the values of `MEANING`, or add to `errors`."""
    if not MEANING & values.keys():
        return old
    named = {name: values[name] for name in ("question", "kind", "max_choices", "scale") if name in values}
    poll = replace(old, **named)
    labels = values.get("options")
    if poll.kind != old.kind:
        poll = replace(poll, scale=named.get("scale"), max_choices=named.get("max_choices"))
        if old.kind == "rating" and labels is None:
            errors.append(FieldError("options", translatable("A poll of this kind needs options.")))
            return poll
    elif labels == [option.label for option in old.offered]:
        labels = None
    if old.state == "draft":
        return _with_options(poll, labels, errors)
    return poll if labels is None else replace(poll, options=_keep_keys(poll, labels, errors))


def _keep_keys(poll: Poll, labels: list[str], errors: list[FieldError]) -> tuple[Option, ...]:
    """Return options with these labels for a poll that may have votes on their way: removed ones are retired."""
    if poll.kind == "rating":
        errors.append(FieldError("options", translatable("A rating has no options of its own.")))
        return poll.options
    _check_labels(labels, errors)
    if errors:
        return poll.options
    try:
        return change_options(poll.options, labels, ())
    except NoKeyLeft:
        message = translatable("This poll has had too many different options. Reset it first.")
        errors.append(FieldError("options", message))
        return poll.options


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)
