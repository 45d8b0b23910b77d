"""Lists of options, made from labels and changed to other labels."""

import string
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from voting.polls.labels import fold_label
from voting.polls.poll import SCALES, Option

KEYS = string.ascii_lowercase + string.digits


class NoKeyLeft(Exception):
    """The poll has had as many options as there are keys; the message is the label that has none."""


def new_options(labels: Sequence[str]) -> tuple[Option, ...]:
    """Return an option for each label, with the keys a, b, c and so on."""
    return tuple(Option(key, label) for key, label in zip(KEYS, labels, strict=False))


def scale_options(scale: int) -> tuple[Option, ...]:
    """Return the options of a rating: its numbers, which are their own keys."""
    return tuple(Option(str(number), str(number)) for number in SCALES[scale])


def change_options(options: Sequence[Option], labels: Sequence[str], used: Collection[str]) -> tuple[Option, ...]:
    """Return an option for each label, followed by those that are not among them, which are retired.

    A label keeps its key in any position; a new label gets a key that was never used.

    Args:
        options: those of the poll, with retired ones.
        labels: all different, as `fold_label` compares them.
        used: further keys that ever had a vote.

    Raises:
        NoKeyLeft: every key has been used.
    """
    keys = {*used, *(option.key for option in options)}
    unused = iter(KEYS[max((KEYS.find(key) + 1 for key in keys if len(key) == 1), default=0) :])
    offered = []
    for label in labels:
        existing = find_option(options, label)
        key = existing.key if existing else next(unused, None)
        if key is None:
            raise NoKeyLeft(label)
        offered.append(Option(key, label))
    kept = {option.key for option in offered}
    return (*offered, *(replace(option, retired=True) for option in options if option.key not in kept))


def find_option(options: Iterable[Option], label: str) -> Option | None:
    """Return the option with this label, else one whose folded label is the same, else None."""
    same = [option for option in options if fold_label(option.label) == fold_label(label)]
    return next((option for option in same if option.label == label), same[0] if same else None)
