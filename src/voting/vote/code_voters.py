"""Voters with a voting code: the code of a vote, the cookie that remembers it, and a limit for wrong codes.

The code comes in the form field `code`. When a vote with it was accepted, a cookie keeps its token (polls/codes.py), so
that later votes need no code. The token is as long as a key, so it cannot be guessed, and is always verified.

Codes that are wrong, and have no typing error, count towards WRONG_CODES_PER_HOUR: for each address, in each process.
Beyond it, a code is not verified, right or wrong, so guesses learn nothing. Typing errors do not count, because the
check finds them without the key, and anybody can compute it.

An attacker has to guess 60 bits of a code. At the default limit, one address finds one of 2,000 codes in a year with a
probability below 2^-40, and at 1,000,000 in an hour still below 2^-26. So the limit can be raised without a risk.

A hall of 2,000 people behind one address shares one limit. Right codes and typing errors take nothing from it; it is
for codes of another poll, and revoked ones. Somebody in the hall can use it up, and can then keep others from using
their codes for the first time on this network. People who have already voted with a code, or who use another network,
are not affected. With WRONG_CODES_PER_HOUR=1000000 that takes 278 guesses a second, as long as it lasts.
"""

import math
from typing import NamedTuple

from starlette.types import Scope

from voting.polls.codes import KEY_BYTES, BadCode, CodeList, read_code, serial_in
from voting.settings.voters import VoterSettings
from voting.web.language import Language, translatable
from voting.web.origin import client_address
from voting.web.problems import Problem
from voting.web.rate_limit import RateLimit

COOKIE_SECONDS = 8 * 7 * 24 * 3600
NO_CODES = CodeList(bytes(KEY_BYTES))  # of a poll for which none were made yet


class CodeVoter(NamedTuple):
    """The voter of a code; the same whichever browser sends it."""

    codes: CodeList
    serial: int
    cookie: bytes | None = None  # the Set-Cookie value; None if the browser has the cookie already

    def pseudonym(self, box: bytes) -> bytes:
        """Return the 16 bytes under which the vote in a round is stored."""
        return self.codes.pseudonym(self.serial, box)


class CodeVoters:
    """Finds the voters of codes.

    Args:
        settings: WRONG_CODES_PER_HOUR and TRUSTED_PROXIES.
        https: whether the cookie is Secure, with the prefix `__Host-`.
    """

    def __init__(self, settings: VoterSettings, *, hops: int, https: bool) -> None:
        per_hour = settings.wrong_codes_per_hour
        self._wrong = RateLimit(per_hour / 3600, per_hour)
        self._hops = hops
        self._name = b"__Host-voting_code" if https else b"voting_code"
        secure = b"; Secure" if https else b""
        self._attributes = b"; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b" % (COOKIE_SECONDS, secure)

    def remembered(self, codes: CodeList, cookies: bytes | None) -> int | None:
        """Return the serial of the code that a Cookie header remembers; None if it is none of this list."""
        for part in cookies.split(b";") if cookies and self._name in cookies else ():
            name, _, token = part.strip().partition(b"=")
            if name == self._name:
                return codes.serial_of(token)
        return None

    def find(self, scope: Scope, codes: CodeList, typed: bytes, cookies: bytes | None) -> CodeVoter:
        """Return the voter of a vote.

        Args:
            scope: the ASGI scope.
            codes: the list of the poll.
            typed: the form field `code`; if it is blank, the cookie decides.
            cookies: the Cookie header.

        Raises:
            Problem: there is no code, or it is not valid, or too many wrong ones have come from this address.
        """
        if not typed.strip(b" +"):  # a form sends a blank as +
            serial = self.remembered(codes, cookies)
            if serial is None:
                message = translatable("This poll needs a voting code. Open the ballot, type your code, and vote.")
                raise Problem(403, "no_code", message, title=translatable("A voting code is needed"))
            return CodeVoter(codes, serial)
        try:
            data = read_code(typed)
        except BadCode:
            message = translatable("This voting code has a typing error. Compare it with yours, and type it again.")
            raise Problem(403, "code_typo", message, title=translatable("Check your voting code")) from None
        address = client_address(scope, self._hops)
        # Whoever has voted with this serial has nothing to gain from guessing its code.
        if not self._wrong.has_token(address) and self.remembered(codes, cookies) != serial_in(data):
            raise _too_many(self._wrong.retry_after(address))
        try:
            serial = codes.verify(data)
        except BadCode:
            self._wrong.take(address)
            message = translatable("This is not a code of this poll, or it was revoked. Ask whoever runs the poll.")
            raise Problem(403, "unknown_code", message, title=translatable("Unknown voting code")) from None
        return CodeVoter(codes, serial, b"%b=%b%b" % (self._name, codes.token(serial), self._attributes))


def _too_many(retry_after: int) -> Problem:
    def detail(reader: Language) -> str:
        return reader.count(
            "Many wrong voting codes have come from your network. Use another network, or wait about {n} minute.",
            "Many wrong voting codes have come from your network. Use another network, or wait about {n} minutes.",
            math.ceil(retry_after / 60),
        )

    return Problem(429, "wrong_codes", detail, title=translatable("Please wait"), retry_after=retry_after)
