"""How settings define the default poll, without changing what its votes mean.

A key belongs to a label: a label that is kept keeps its key, wherever it stands; a new one gets a key that was never
used. Once the poll has a vote, no option is dropped. Before that an option that is left out is retired, since votes for
it may wait on the stream: they are counted. What is not given stays as it is stored.
"""

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from voting.polls import DEFAULT_POLL, MAX_OPTIONS, Option, Poll, fold

QUESTION = "Cats or dogs?"
LABELS = ("Cats", "Dogs")
KEYS = string.ascii_lowercase + string.digits
_ANOTHER = "  For another poll, use another data directory (--data) or database."


class DefinitionConflict(Exception):
    """The settings would change what votes mean; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What the settings say; None where they say nothing.

    Args:
        question: of the poll.
        labels: of all options, in their order.
        first, second: labels instead, of the first two options; both together are all options.
        renames: label now -> label from now on.
    """

    question: str | None = None
    labels: tuple[str, ...] | None = None
    first: str | None = None
    second: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)


def default_poll(given: Definition, stored: Poll | None, votes: Mapping[str, int]) -> Poll:
    """Return the default poll.

    Args:
        given: the settings.
        stored: the poll as it is; None in a new database.
        votes: counted for each key that ever had one.

    Raises:
        DefinitionConflict: a poll with votes would lose an option, or the labels are not possible.
    """
    poll = _renamed(stored, given.renames) if stored else Poll(DEFAULT_POLL, QUESTION, ())
    poll = replace(poll, question=given.question or poll.question)
    if wanted := _wanted(given, stored and poll):
        poll = replace(poll, options=_options(poll, wanted, votes))
    return poll


def _renamed(poll: Poll, renames: Mapping[str, str]) -> Poll:
    """Return the poll with other labels; what was renamed before is left alone."""
    for old, new in renames.items():
        option, other = _find(poll.options, old), _find(poll.options, new)
        if not option and not other:
            held = ", ".join(each.label for each in poll.options)
            raise DefinitionConflict(f"RENAME_OPTIONS={old}={new}: there is no option {old}. The options are: {held}.")
        if option and other and option != other:
            raise DefinitionConflict(f"RENAME_OPTIONS: {old} cannot become {new}, since another option has that label.")
        options = (replace(each, label=new) if each == option else each for each in poll.options)
        poll = replace(poll, options=tuple(options))
    return poll


def _wanted(given: Definition, stored: Poll | None) -> tuple[str, ...]:
    """Return the labels of all options in their order; none if they stay as they are."""
    if given.labels:
        return given.labels
    if stored and not given.first and not given.second:
        return ()
    held = (*(option.label for option in stored.offered), *LABELS)[: max(2, len(stored.offered))] if stored else LABELS
    rest = () if given.first and given.second else held[2:]
    return (given.first or held[0], given.second or held[1], *rest)


def _options(poll: Poll, wanted: tuple[str, ...], votes: Mapping[str, int]) -> tuple[Option, ...]:
    """Return an option for each label, and after them those that are retired."""
    if len(set(map(fold, wanted))) < len(wanted) or len(wanted) > MAX_OPTIONS:
        raise DefinitionConflict(
            f"A poll has at most {MAX_OPTIONS} options, which differ in more than case: {', '.join(wanted)}."
        )
    used = {option.key for option in poll.options} | votes.keys()
    free = iter(KEYS[max((KEYS.find(key) + 1 for key in used if len(key) == 1), default=0) :])
    offered = []
    for label in wanted:
        known = _find(poll.options, label)
        key = known.key if known else next(free, None)
        if key is None:
            raise DefinitionConflict(
                f"This poll has had {len(KEYS)} options, and there is no key for {label}.\n{_ANOTHER}"
            )
        offered.append(Option(key, label))
    keys = {option.key for option in offered}
    left_out = [option for option in poll.options if option.key not in keys]
    if dropped := [option for option in left_out if votes and not option.retired]:
        raise DefinitionConflict(_explain(dropped, votes))
    return (*offered, *(replace(option, retired=True) for option in left_out))


def poll_problems(polls: Iterable[Poll], bad: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what is wrong with the polls of the database, as `store.polls` gives them, and how to mend each."""
    found = [
        (f"the poll {slug} is left out: {reason}", "mend its row in the table polls") for slug, reason in bad.items()
    ]
    if DEFAULT_POLL not in {*bad, *(poll.slug for poll in polls)}:
        found.append(("the default poll is missing, so / answers 404", "make it with voting migrate"))
    return found


def _find(options: Iterable[Option], label: str) -> Option | None:
    """Return the option with this label, or else one that looks the same."""
    same = [option for option in options if fold(option.label) == fold(label)]
    return next((option for option in same if option.label == label), same[0] if same else None)


def _explain(dropped: list[Option], votes: Mapping[str, int]) -> str:
    named = ", ".join(f"{option.label} ({_count(votes.get(option.key, 0))})" for option in dropped)
    return (
        f"The settings leave out options of a poll that has votes: {named}. Nothing was changed.\n"
        "  To keep the poll as it is, unset OPTIONS, OPTION_A and OPTION_B.\n"
        "  To add options, name all that there are, and the new ones, in OPTIONS.\n"
        f"  To give an option another label, set RENAME_OPTIONS='{dropped[0].label}=New label'.\n" + _ANOTHER
    )


def _count(votes: int) -> str:
    return f"{votes:,} vote{'' if votes == 1 else 's'}"
