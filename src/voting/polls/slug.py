"""Slugs, which name polls in addresses, and boxes, under which the votes of one round are stored."""

import re

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def box(slug: str, round_: int) -> str:
    """Return the name under which the votes of a round are stored."""
    return slug if round_ == 1 else f"{slug}#{round_}"


def split_box(name: str) -> tuple[str, int] | None:
    """Return slug and round of a box; None if it cannot be the name of one."""
    slug, sign, number = name.partition("#")
    if not SLUG.fullmatch(slug):
        return None
    if not sign:
        return slug, 1
    found = re.fullmatch(r"[1-9][0-9]{0,8}", number)
    return (slug, int(number)) if found and number != "1" else None
