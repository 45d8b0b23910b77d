"""Voters: their signed random cookies, and the pseudonyms under which votes are stored.

The cookie is one string of 48 characters, base64url without padding:

    16 bytes   the voter's id, random
     4 bytes   the time of creation, in seconds since the epoch, big-endian
    16 bytes   the signature: the first half of HMAC-SHA256 over the bytes before

A pseudonym is a keyed hash (BLAKE2s, 16 bytes) of the id and the poll's slug. It differs from poll to poll, so stored
votes do not show which of them came from one browser. Without the key, neither can be computed from the other. Each
vote needs a pseudonym, and BLAKE2s takes a third of the time of an HMAC: https://www.rfc-editor.org/rfc/rfc7693

A cookie is accepted for `days` after its creation, then its browser is a new voter. So where new voters are limited,
nobody can collect more cookies than the limit allows in these days. A cookie is also accepted only as long as the key
that signed it, so a browser stays the same voter while keys are rotated.

Cookies of the earlier format, `<id>.<signature>` with 22 characters each, have no time and one pseudonym for all polls:
the second half of the HMAC that signs them. Browsers still have them, so they are accepted as long as their key is.
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
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")  # `!` is invalid, so each token has one form
_TO_URL = bytes.maketrans(b"+/", b"-_")


class _Key(NamedTuple):
    """The keyed hashes of one accepted key, ready to be copied."""

    expires_at: float  # seconds since the epoch
    cookie: hmac.HMAC
    pseudonym: hashlib.blake2s
    earlier: hmac.HMAC


class Voter(NamedTuple):
    """One browser."""

    voter_id: bytes  # the random part of its cookie
    key: hashlib.blake2s  # the keyed hash of its pseudonyms
    cookie: bytes | None = None  # the Set-Cookie value; None if the browser has the cookie already
    fixed_pseudonym: bytes | None = None  # in all polls, if the cookie has the earlier format

    def pseudonym(self, poll: bytes) -> bytes:
        """Return the 16 bytes under which the vote in a poll (a slug) is stored."""
        if self.fixed_pseudonym is not None:
            return self.fixed_pseudonym
        digest = self.key.copy()
        digest.update(self.voter_id + poll)
        return digest.digest()


class Voters:
    """Creates and recognises voters.

    Args:
        key: signs new cookies.
        accepted: other keys whose cookies are accepted.
        https: whether the cookie is Secure, with the prefix `__Host-`.
        days: lifetime of a cookie.
        clock: returns seconds since the epoch.
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
        return self._create(self._keys[0], os.urandom(_ID_BYTES))

    def recognise(self, cookies: bytes | None) -> Voter | None:
        """Return the voter of a Cookie header; None if it has no valid cookie."""
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

    def _create(self, key: _Key, voter_id: bytes) -> Voter:
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
            if now < key.expires_at and hmac.compare_digest(_digest(key.cookie, signed)[:16], given):
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
            if now < key.expires_at and hmac.compare_digest(digest[:16], given):
                return Voter(voter_id, key.pseudonym, fixed_pseudonym=digest[16:])
        return None

    def derive(self, key: bytes) -> Voter:
        """Return the voter of an idempotency key, with its cookie.

        The key that expires first is used, or the signing key if none expires: every replica uses the same one while
        keys are rotated. The HMAC's input is longer than that of a cookie's signature, so the ids cannot collide.
        """
        now = self._clock()
        first = min((each for each in self._keys if now < each.expires_at), key=lambda each: each.expires_at)
        return self._create(first, _digest(first.cookie, b"voting.idempotency:" + key)[:_ID_BYTES])


def _prepare(accepted: AcceptedKey) -> _Key:
    secret = accepted.key.encode()
    return _Key(
        accepted.expires_at,
        cookie=hmac.new(secret, b"voting.cookie:", "sha256"),
        pseudonym=hashlib.blake2s(key=hmac.digest(secret, b"voting.pseudonym:", "sha256"), digest_size=16),
        earlier=hmac.new(secret, b"voting.voter_id:", "sha256"),
    )


def _digest(key: hmac.HMAC, message: bytes) -> bytes:
    mac = key.copy()
    mac.update(message)
    return mac.digest()
