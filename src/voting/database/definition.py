"""Defines the default poll from the settings, without changing the meaning of its votes.

A label keeps its key in any position; a new label gets a key that was never used. Once the poll has a vote, no option
can be removed. Before that, a removed option is retired: votes for it may already be on the stream, and are counted.
What the settings do not define is not changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from voting.polls.labels import fold_label
from voting.polls.options import KEYS, NoKeyLeft, change_options, find_option
from voting.polls.poll import DEFAULT_POLL, MAX_OPTIONS, Option, Poll

QUESTION = "Cats or dogs?"
LABELS = ("Cats", "Dogs")
MAX_NAMED = 10  # invalid polls that are listed
_ANOTHER = "  For another poll, use another data directory (--data) or database."


class DefinitionConflict(Exception):
    """The settings would change the meaning of votes; the message says which setting, and what to do."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The settings of the default poll; None for those that are not set."""

    question: str | None = None
    labels: tuple[str, ...] | None = None  # all options in order
    first: str | None = None  # with `second`, instead of `labels`; both together define all options
    second: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)  # current label -> new label


def default_poll(definition: Definition, stored: Poll | None, votes: Mapping[str, int]) -> Poll:
    """Return the default poll.

    Args:
        definition: the settings.
        stored: the poll in the database; None in a new one.
        votes: tally of each key that ever had a vote.

    Raises:
        DefinitionConflict: a poll with votes would lose an option, or the labels are not possible.
    """
    poll = _rename(stored, definition.renames) if stored else Poll(DEFAULT_POLL, QUESTION, ())
    poll = replace(poll, question=definition.question or poll.question)
    if labels := _labels(definition, stored and poll):
        poll = replace(poll, options=_options(poll, labels, votes))
    return poll


def _rename(poll: Poll, renames: Mapping[str, str]) -> Poll:
    """Return the poll with new labels; labels that have already been renamed are ignored."""
    for old, new in renames.items():
        option, other = find_option(poll.options, old), find_option(poll.options, new)
        if not option and not other:
            labels = ", ".join(each.label for each in poll.options)
            message = f"RENAME_OPTIONS={old}={new}: there is no option {old}. The options are: {labels}."
            raise DefinitionConflict(message)
        if option and other and option != other:
            raise DefinitionConflict(f"RENAME_OPTIONS: {old} cannot become {new}, since another option has that label.")
        options = (replace(each, label=new) if each == option else each for each in poll.options)
        poll = replace(poll, options=tuple(options))
    return poll


def _labels(definition: Definition, stored: Poll | None) -> tuple[str, ...]:
    """Return the labels of all options in order; () if the options do not change."""
    if definition.labels:
        return definition.labels
    first, second = definition.first, definition.second
    if stored and not first and not second:
        return ()
    offered = [option.label for option in stored.offered] if stored else []
    current = (*offered, *LABELS)[: max(2, len(offered))]
    others = () if first and second else current[2:]
    return (first or current[0], second or current[1], *others)


def _options(poll: Poll, labels: tuple[str, ...], votes: Mapping[str, int]) -> tuple[Option, ...]:
    """Return an option for each label, followed by the retired options."""
    if len(set(map(fold_label, labels))) < len(labels) or len(labels) > MAX_OPTIONS:
        message = f"A poll has at most {MAX_OPTIONS} options, which differ in more than case: {', '.join(labels)}."
        raise DefinitionConflict(message)
    try:
        options = change_options(poll.options, labels, votes)
    except NoKeyLeft as error:
        message = f"This poll has had {len(KEYS)} options, and there is no key for {error}.\n{_ANOTHER}"
        raise DefinitionConflict(message) from None
    offered = {option.key for option in options if not option.retired}
    if lost := [option for option in poll.options if votes and not option.retired and option.key not in offered]:
        raise DefinitionConflict(_explain(lost, votes))
    return options


def poll_problems(polls: Iterable[Poll], bad: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the problems of the polls that `read_definitions` has read, and the fix for each; at most `MAX_NAMED`."""
    fix = "correct its row in the table polls"
    problems = [(f"the poll {slug} is left out: {reason}", fix) for slug, reason in islice(bad.items(), MAX_NAMED)]
    if len(bad) > MAX_NAMED:
        problems.append((f"{len(bad) - MAX_NAMED:,} more polls are left out", "correct their rows in the table polls"))
    if DEFAULT_POLL not in {*bad, *(poll.slug for poll in polls)}:
        problems.append(("the default poll is missing, so / answers 404", "create it with voting migrate"))
    return problems


def _explain(lost: list[Option], votes: Mapping[str, int]) -> str:
    labels = ", ".join(f"{option.label} ({_count(votes.get(option.key, 0))})" for option in lost)
    return (
        f"The settings leave out options of a poll that has votes: {labels}. Nothing was changed.\n"
        "  To keep the poll as it is, unset OPTIONS, OPTION_A and OPTION_B.\n"
        "  To add options, list all existing options and the new ones in OPTIONS.\n"
        f"  To give an option another label, set RENAME_OPTIONS='{lost[0].label}=New label'.\n" + _ANOTHER
    )


def _count(votes: int) -> str:
    return f"{votes:,} vote{'' if votes == 1 else 's'}"
