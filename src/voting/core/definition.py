"""How settings define the default poll, without changing what its votes mean.

A key belongs to a label: a label that is kept keeps its key, wherever it stands; a new one gets a key that no option
has. An option is not dropped while it may have votes. What is not given stays as it is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from voting.core.ballot import DEFAULT_POLL, KEYS, MAX_OPTIONS, Option, Poll, fold

QUESTION = "Cats or dogs?"
LABELS = ("Cats", "Dogs")


class Conflict(Exception):
    """The settings would change what votes mean; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What the settings say; None where they say nothing.

    Args:
        question: of the poll.
        labels: of all options, in their order.
        first, second: labels instead, of the options with the keys a and b.
        renames: label now -> label from now on.
    """

    question: str | None = None
    labels: tuple[str, ...] | None = None
    first: str | None = None
    second: str | None = None
    renames: Mapping[str, str] | None = None


def define(given: Definition, stored: Poll | None, votes: Mapping[str, int] | None) -> Poll:
    """Return the default poll.

    Args:
        given: the settings.
        stored: the poll as it is; None in a new database.
        votes: counted for each key; None if the poll never had a vote and none waits, so that all may change.

    Raises:
        Conflict: an option that may have votes is not among the labels, or there are too many.
    """
    if stored is None:
        labels = given.labels or (given.first or LABELS[0], given.second or LABELS[1])
        return Poll(DEFAULT_POLL, given.question or QUESTION, _keyed(labels))
    stored = replace(stored, question=given.question or stored.question, options=_renamed(given, stored))
    if len({fold(option.label) for option in stored.options}) < len(stored.options):
        raise Conflict("RENAME_OPTIONS would give two options the same label.")
    wanted = given.labels or _two(given, stored)
    if wanted is None:
        return stored
    if len(set(map(fold, wanted))) < len(wanted) or len(wanted) > MAX_OPTIONS:
        raise Conflict(
            f"A poll has at most {MAX_OPTIONS} options, which differ in more than case: {', '.join(wanted)}."
        )
    known = {fold(option.label): option.key for option in stored.options}
    dropped = [option for option in stored.options if fold(option.label) not in set(map(fold, wanted))]
    if dropped and votes is None:
        return replace(stored, options=_keyed(wanted))
    if dropped:
        raise Conflict(_explain(dropped, votes or {}))
    free = iter(key for key in KEYS if key not in known.values())
    return replace(stored, options=tuple(Option(known.get(fold(label)) or next(free), label) for label in wanted))


def _keyed(labels: tuple[str, ...]) -> tuple[Option, ...]:
    return tuple(Option(key, label) for key, label in zip(KEYS, labels, strict=False))


def _two(given: Definition, stored: Poll) -> tuple[str, ...] | None:
    """Return all labels where OPTION_A or OPTION_B is given: they are those of the keys a and b."""
    named = {"a": given.first, "b": given.second}
    if not any(named.values()):
        return None
    return tuple(named.get(option.key) or option.label for option in stored.options)


def _renamed(given: Definition, stored: Poll) -> tuple[Option, ...]:
    renames = {fold(old): new for old, new in (given.renames or {}).items()}
    return tuple(replace(option, label=renames.get(fold(option.label), option.label)) for option in stored.options)


def _explain(dropped: list[Option], votes: Mapping[str, int]) -> str:
    named = ", ".join(f"{option.label} ({votes.get(option.key, 0):,} votes)" for option in dropped)
    return (
        f"The settings leave out options of the poll that may have votes: {named}. Nothing was changed.\n"
        "  To keep the poll as it is, unset OPTIONS, OPTION_A and OPTION_B.\n"
        "  To add options, name all that there are, and the new ones, in OPTIONS.\n"
        f"  To give an option another label, set RENAME_OPTIONS='{dropped[0].label}=New label'.\n"
        "  For another question, use another data directory (--data) or database."
    )
