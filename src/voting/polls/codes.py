"""Voting codes: one for each person who may vote, in a poll or in all polls of a session.

A code has 80 bits, written as 16 characters of Crockford's base32 in four groups, https://www.crockford.com/base32.html:

    15 bits   the serial number, from 1
    60 bits   the beginning of a keyed hash (BLAKE2s) of serial and generation, under the key of the list
     5 bits   the check: the bits before, as a number, modulo 29; it finds typing errors, but for one in 150

So a code is verified without a table, and no code tells another one. The generation is 0 until the code with this
serial is replaced. The voter is derived from the serial alone: whoever has the code votes as the same voter from any
browser, and a code that replaces another one replaces its vote too. The list does not know who has which code.

A browser keeps the token of a code that was accepted, not the code: the serial, and 16 bytes of a hash of serial and
generation under the same key. No one can guess it, and it is valid as long as its code is.
"""

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import unquote_plus

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 16
MAX_SERIAL = 2**15 - 1
MAX_CHANGES = 2000  # revoked and replaced codes of one list: the vote service gets all of them with each change
KEY_BYTES = 32
_HASH_BITS = 60
_CHECK = 29
_MAX_TYPED = 300  # bytes that are looked at: a full-width character has 9 in a form
_MAX_GENERATION = 2**31 - 1
_SERIAL = re.compile("[1-9][0-9]{0,4}")
_TOKEN = re.compile(rb"([1-9][0-9]{0,4})\.([0-9a-f]{32})")
_DIGITS = b"0123456789abcdefghijklmnopqrstuv"  # of `int` with base 32
_TO_DIGITS = bytes.maketrans((ALPHABET + ALPHABET.lower() + "OoIiLl").encode(), _DIGITS + _DIGITS + b"001111")
_VALID = re.compile(f"[{ALPHABET}OILoil{ALPHABET.lower()}]{{{LENGTH}}}".encode())


class BadCode(ValueError):
    """The text is no valid code of the list.

    `typo`: it has a typing error. `unknown`: it has none, but the list has no such code, or it was revoked or replaced.
    """

    def __init__(self, reason: Literal["typo", "unknown"]) -> None:
        super().__init__(reason)
        self.reason: Literal["typo", "unknown"] = reason


class BadCodeList(ValueError):
    """The data is not a code list; the message says why."""


@dataclass(frozen=True, slots=True)
class CodeList:
    """The codes of a poll or of a session.

    `issued` is the largest serial that was made. `changes` has the serials whose code is not the first one: the number
    is the generation of the valid code, or -1 minus the last generation if the code was revoked.
    """

    key: bytes = field(repr=False)
    issued: int = 0
    changes: Mapping[int, int] = field(default_factory=dict)

    def code(self, serial: int) -> str | None:
        """Return the valid code with a serial, such as `0123-4567-89AB-CDEF`; None if it was revoked or not made."""
        generation = self.changes.get(serial, 0)
        if not 1 <= serial <= self.issued or generation < 0:
            return None
        data = serial << _HASH_BITS | self._hash(serial, generation)
        number = data << 5 | data % _CHECK
        text = "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))
        return "-".join(text[start : start + 4] for start in range(0, LENGTH, 4))

    def verify(self, data: int) -> int:
        """Return the serial of a code that `read_code` has read, or raise `BadCode`."""
        serial, given = data >> _HASH_BITS, data & ((1 << _HASH_BITS) - 1)
        generation = self.changes.get(serial, 0)
        is_made = 1 <= serial <= self.issued and generation >= 0
        expected = self._hash(serial, max(0, generation))
        if not (hmac.compare_digest(expected.to_bytes(8, "big"), given.to_bytes(8, "big")) and is_made):
            raise BadCode("unknown")
        return serial

    def token(self, serial: int) -> bytes:
        """Return what a browser keeps of the valid code with a serial."""
        return b"%d.%b" % (serial, self._token_hash(serial, self.changes.get(serial, 0)))

    def serial_of(self, token: bytes) -> int | None:
        """Return the serial of a token; None if it is not of this list, or its code was revoked or replaced."""
        found = _TOKEN.fullmatch(token)
        if not found:
            return None
        serial = int(found[1])
        generation = self.changes.get(serial, 0)
        if not 1 <= serial <= self.issued or generation < 0:
            return None
        return serial if hmac.compare_digest(self._token_hash(serial, generation), found[2]) else None

    def pseudonym(self, serial: int, box: bytes) -> bytes:
        """Return the 16 bytes under which the vote of a code is stored in a round."""
        message = serial.to_bytes(2, "big") + box
        return hashlib.blake2s(message, key=self.key, digest_size=16, person=b"voter").digest()

    def _token_hash(self, serial: int, generation: int) -> bytes:
        message = serial.to_bytes(2, "big") + generation.to_bytes(4, "big")
        return hashlib.blake2s(message, key=self.key, digest_size=16, person=b"token").hexdigest().encode()

    def _hash(self, serial: int, generation: int) -> int:
        message = serial.to_bytes(2, "big") + generation.to_bytes(4, "big")
        digest = hashlib.blake2s(message, key=self.key, digest_size=8, person=b"code").digest()
        return int.from_bytes(digest, "big") >> 64 - _HASH_BITS

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: it has the secret key."""
        changes = {str(serial): generation for serial, generation in self.changes.items()}
        return {"key": self.key.hex(), "issued": self.issued, "changes": changes}

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return the list of such an object, or raise `BadCodeList`."""
        if not isinstance(data, Mapping):
            raise BadCodeList("it is not an object")
        key, issued, changes = data.get("key"), data.get("issued"), data.get("changes")
        if not isinstance(key, str) or not re.fullmatch(f"[0-9a-f]{{{2 * KEY_BYTES}}}", key):
            raise BadCodeList("its key is not 32 bytes in hexadecimal")
        if type(issued) is not int or not 0 <= issued <= MAX_SERIAL:
            raise BadCodeList(f"issued is not a number from 0 to {MAX_SERIAL}")
        if not isinstance(changes, Mapping) or not all(
            isinstance(serial, str)
            and _SERIAL.fullmatch(serial)
            and type(number) is int
            and -1 - _MAX_GENERATION <= number <= _MAX_GENERATION
            for serial, number in changes.items()
        ):
            raise BadCodeList("changes is not an object with serials and generations")
        return cls(bytes.fromhex(key), issued, {int(serial): number for serial, number in changes.items()})


def read_code(typed: bytes) -> int:
    """Return the number in a code that somebody typed, for `CodeList.verify`; raise `BadCode` if it has a typing error.

    Letters may be small, I and L are read as 1, and O as 0. Digits and letters of other widths and scripts are read as
    ASCII where Unicode says so, and everything else is ignored: hyphens of any kind, blanks, full stops.

    Args:
        typed: UTF-8, as it is or percent-encoded as in a form.
    """
    text = typed.replace(b"-", b"")
    if not _VALID.fullmatch(text):
        text = _plain(typed[:_MAX_TYPED])
        if not _VALID.fullmatch(text):
            raise BadCode("typo")
    data, check = divmod(int(text.translate(_TO_DIGITS), 32), 32)
    if check != data % _CHECK:
        raise BadCode("typo")
    return data


def serial_in(data: int) -> int:
    """Return the serial that a code claims to have, before it is verified."""
    return data >> _HASH_BITS


def _plain(typed: bytes) -> bytes:
    text = unicodedata.normalize("NFKC", unquote_plus(typed.decode(errors="replace")))
    digits = "".join(str(unicodedata.digit(each, each)) for each in text)
    return re.sub(r"[^0-9A-Za-z]", "", digits).encode()


def new_key() -> bytes:
    """Return the random key of a new list."""
    return secrets.token_bytes(KEY_BYTES)
