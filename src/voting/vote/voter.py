"""Who votes: a signed random cookie, and the pseudonyms under which its votes are stored.

The cookie is one string of 48 characters, base64url without padding:

    16 bytes   the voter's id, random
     4 bytes   when it was made, in seconds since the epoch, big-endian
    16 bytes   signature: the first half of HMAC-SHA256 over the bytes before

A pseudonym is a keyed hash (BLAKE2s, 16 bytes) of the id and the poll's slug. It differs from poll to poll, so stored
votes do not tell which of them are one browser's. Without the key nobody can compute a pseudonym from a cookie, nor a
cookie from a pseudonym. The time is not part of it. BLAKE2s takes a third of the time of an HMAC, and each vote needs
one: https://www.rfc-editor.org/rfc/rfc7693

A cookie is accepted for `days` after it was made. Where new voters are limited, the limit for these days is therefore
the most voters that can be collected before they vote. A browser whose cookie has ended is a new voter.

A cookie keeps the key that signed it while that key is accepted, so a browser stays the same voter while keys rotate.

Cookies of the earlier format, `<id>.<signature>` of 22 characters each, have no time and one pseudonym for all polls,
the second half of the HMAC that signs them. Browsers and databases have them: they are accepted as long as their key.
"""

import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from voting.settings.keys import AcceptedKey

DAY = 24 * 3600
_ID_BYTES = 16
_SIGNED_BYTES = _ID_BYTES + 4
_LENGTH = 48
_EARLIER_LENGTH = 45
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")  # `!` is in no base64: each token has one form
_TO_URL = bytes.maketrans(b"+/", b"-_")


class _Key(NamedTuple):
    """A key, made ready for each of its purposes, and the moment from which it is not accepted."""

    ends: float
    cookie: hmac.HMAC
    pseudonym: hashlib.blake2s
    earlier: hmac.HMAC


class Voter(NamedTuple):
    """One browser.

    Args:
        voter_id: what its cookie says.
        key: computes its pseudonyms.
        cookie: the Set-Cookie value; None when the browser has it already.
        everywhere: its pseudonym in all polls, if its cookie has the earlier format.
    """

    voter_id: bytes
    key: hashlib.blake2s
    cookie: bytes | None = None
    everywhere: bytes | None = None

    def pseudonym(self, poll: bytes) -> bytes:
        """Return the 16 bytes under which its vote in this poll (a slug) is stored."""
        if self.everywhere is not None:
            return self.everywhere
        keyed = self.key.copy()
        keyed.update(self.voter_id + poll)
        return keyed.digest()


class Voters:
    """Makes and recognises voters.

    Args:
        key: signs new cookies.
        accepted: further keys whose cookies are accepted.
        https: makes the cookie Secure, with the `__Host-` prefix.
        days: for which a cookie is accepted after it was made.
        clock: gives the seconds since the epoch.
    """

    def __init__(
        self,
        key: str,
        accepted: tuple[AcceptedKey, ...],
        *,
        https: bool,
        days: int = 365,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = [_prepare(each) for each in (AcceptedKey(key), *accepted)]
        self._lifetime, self._clock = days * DAY, clock
        self._name = b"__Host-voter_id" if https else b"voter_id"
        secure = b"; Secure" if https else b""
        self._attributes = b"; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%s" % (self._lifetime, secure)

    def new(self) -> Voter:
        """Return a voter never seen before, with the cookie that makes it known."""
        return self._issue(self._keys[0], os.urandom(_ID_BYTES))

    def recognise(self, cookies: bytes | None) -> Voter | None:
        """Return the voter that a Cookie header names; None when there is none that we signed, or it has ended."""
        if cookies is None:
            return None
        for part in cookies.split(b";"):
            name, _, token = part.strip().partition(b"=")
            if name == self._name:
                try:
                    return self._verify(token)
                except binascii.Error:
                    return None
        return None

    def _issue(self, key: _Key, voter_id: bytes) -> Voter:
        signed = voter_id + int(self._clock()).to_bytes(4, "big")
        token = binascii.b2a_base64(signed + _digest(key.cookie, signed)[:16], newline=False).translate(_TO_URL)
        return Voter(voter_id, key.pseudonym, b"%b=%b%b" % (self._name, token, self._attributes))

    def _verify(self, token: bytes) -> Voter | None:
        if len(token) != _LENGTH:
            return self._verify_earlier(token) if len(token) == _EARLIER_LENGTH else None
        raw = binascii.a2b_base64(token.translate(_FROM_URL), strict_mode=True)
        signed, given = raw[:_SIGNED_BYTES], raw[_SIGNED_BYTES:]
        now = self._clock()
        if now >= int.from_bytes(signed[_ID_BYTES:], "big") + self._lifetime:
            return None
        for key in self._keys:
            if now < key.ends and hmac.compare_digest(_digest(key.cookie, signed)[:16], given):
                return Voter(signed[:_ID_BYTES], key.pseudonym)
        return None

    def _verify_earlier(self, token: bytes) -> Voter | None:
        encoded_id, _, encoded_signature = token.translate(_FROM_URL).partition(b".")
        voter_id, given = (
            binascii.a2b_base64(part + b"==", strict_mode=True) for part in (encoded_id, encoded_signature)
        )
        now = self._clock()
        for key in self._keys:
            digest = _digest(key.earlier, voter_id)
            if now < key.ends and hmac.compare_digest(digest[:16], given):
                return Voter(voter_id, key.pseudonym, everywhere=digest[16:])
        return None

    def derive(self, key: bytes) -> Voter:
        """Return the voter of an idempotency key, with a cookie: the same at every replica while a key is rotated.

        The HMAC's input is longer than what a cookie is signed for, so no idempotency key gives the id of a cookie.
        """
        now = self._clock()
        lasting = min((each for each in self._keys if now < each.ends), key=lambda each: each.ends)
        return self._issue(lasting, _digest(lasting.cookie, b"voting.idempotency:" + key)[:_ID_BYTES])


def _prepare(accepted: AcceptedKey) -> _Key:
    secret = accepted.key.encode()
    return _Key(
        accepted.ends,
        cookie=hmac.new(secret, b"voting.cookie:", "sha256"),
        pseudonym=hashlib.blake2s(key=hmac.digest(secret, b"voting.pseudonym:", "sha256"), digest_size=16),
        earlier=hmac.new(secret, b"voting.voter_id:", "sha256"),
    )


def _digest(key: hmac.HMAC, message: bytes) -> bytes:
    mac = key.copy()
    mac.update(message)
    return mac.digest()
