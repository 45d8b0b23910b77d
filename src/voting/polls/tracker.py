"""Trackers, by which voters find their ballots in the published list.

A tracker is a hash of the entry id of the vote, under a secret of the round (`Poll.tracker_key`), which is erased when
the round is final. So a voter knows the tracker from the answer to the vote, and from then on nobody can compute which
tracker belongs to which vote or voter. The hash is SHA-256; since key and message have fixed lengths, and only a part
of it is published, no prefix can be extended. The database computes the same in `ballot_tracker`.
"""

import hashlib
import re
import struct

from voting.polls.vote import EntryId

BYTES = 8
_pack = struct.Struct(">QQ").pack
_TYPED = re.compile(f"[0-9a-f]{{{2 * BYTES}}}")


def tracker(key: str, entry: EntryId) -> bytes:
    """Return the tracker of a vote: 8 bytes."""
    return hashlib.sha256(key.encode() + _pack(*entry)).digest()[:BYTES]


def tracker_text(value: bytes) -> str:
    """Return a tracker as people see it: `0123-4567-89ab-cdef`."""
    return value.hex("-", 2)


def parse_tracker(text: str) -> bytes | None:
    """Return the tracker that somebody typed, with or without hyphens and blanks; None if it is none."""
    digits = re.sub(r"[\s-]", "", text[:50]).lower()
    return bytes.fromhex(digits) if _TYPED.fullmatch(digits) else None
