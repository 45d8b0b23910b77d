"""Who votes: a signed random cookie, and the pseudonym under which its vote is stored.

The cookie is `<id>.<signature>` in base64url: 128 random bits and half of an HMAC-SHA256 over them. The other
half of the same HMAC is the voter's pseudonym, 16 bytes: nobody can make it from the cookie without the key,
nor the cookie from it, and one hash serves both. A cookie that was signed with an old key keeps being
read with that key, so a voter stays the same voter while keys rotate.

The halves of a pseudorandom function's output tell nothing of each other: https://www.rfc-editor.org/rfc/rfc2104
"""

import base64
import binascii
import hmac
import os
from typing import NamedTuple

_ID_BYTES = 16
_PURPOSE = b"voting.voter_id:"
_ENCODED_LENGTH = 22  # 16 bytes in base64url without padding
_YEAR = 365 * 24 * 3600


class Voter(NamedTuple):
    """One browser. `pseudonym` (16 bytes) is what is stored; `cookie` is None when the browser already has it."""

    pseudonym: bytes
    cookie: bytes | None


class Voters:
    """Makes and recognises voters.

    Args:
        key: signs new cookies.
        old_keys: signed earlier ones, which stay valid as long as the keys are listed.
        https: makes the cookie Secure, with the `__Host-` prefix.
    """

    def __init__(self, key: str, old_keys: tuple[str, ...], *, https: bool) -> None:
        self._keys = [hmac.new(secret.encode(), _PURPOSE, "sha256") for secret in (key, *old_keys)]
        self._name = b"__Host-voter_id" if https else b"voter_id"
        secure = b"; Secure" if https else b""
        self._attributes = b"; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%s" % (_YEAR, secure)

    def new(self) -> Voter:
        """A voter never seen before, with the Set-Cookie value that makes it known."""
        return self._issue(os.urandom(_ID_BYTES))

    def recognise(self, cookies: bytes | None) -> Voter | None:
        """The voter that a Cookie header names; None when there is none that we signed."""
        if cookies is None:
            return None
        for part in cookies.split(b";"):
            name, _, token = part.strip().partition(b"=")
            if name == self._name:
                return self._verify(token)
        return None

    def _verify(self, token: bytes) -> Voter | None:
        encoded_id, _, encoded_signature = token.partition(b".")
        if len(encoded_id) != _ENCODED_LENGTH or len(encoded_signature) != _ENCODED_LENGTH:
            return None
        try:
            voter_id, given = _decode(encoded_id), _decode(encoded_signature)
        except binascii.Error:
            return None
        for key in self._keys:
            signature, pseudonym = _digest(key, voter_id)
            if hmac.compare_digest(signature, given):
                return Voter(pseudonym, None)
        return None

    def derive(self, key: bytes) -> Voter:
        """Return the voter of an idempotency key, with a cookie: the same voter as long as the signing key is the same.

        The HMAC's input is longer than an id, so no idempotency key gives what a cookie's id gives.
        """
        voter_id, _ = _digest(self._keys[0], b"voting.idempotency:" + key)
        return self._issue(voter_id)

    def _issue(self, voter_id: bytes) -> Voter:
        signature, pseudonym = _digest(self._keys[0], voter_id)
        token = _encode(voter_id) + b"." + _encode(signature)
        return Voter(pseudonym, self._name + b"=" + token + self._attributes)


def _digest(key: hmac.HMAC, voter_id: bytes) -> tuple[bytes, bytes]:
    mac = key.copy()
    mac.update(voter_id)
    digest = mac.digest()
    return digest[:16], digest[16:]


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    return base64.b64decode(text + b"==", altchars=b"-_", validate=True)
