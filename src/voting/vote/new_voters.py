"""New voters: which requests without a cookie get one, and how many from one address in an hour.

A page sets a cookie, and votes with the same cookie replace each other. A vote without a cookie belongs to a new voter
or, with an Idempotency-Key, to the voter derived from the key. Pages and such votes both count towards
NEW_VOTERS_PER_HOUR, unless the vote can never be counted. Each process counts for itself. Keys are not stored, so a key
that is sent again without the cookie counts again.
"""

import math
import re

from starlette.types import Scope

from voting.settings.services import VoteSettings
from voting.vote.voter import Voter, Voters
from voting.web.language import Language, translatable
from voting.web.origin import client_address
from voting.web.problems import Problem
from voting.web.rate_limit import RateLimit

_FROM_PAGE = re.compile(rb"(?:^|&)ballot=")  # the hidden field of the page's form
_IDEMPOTENCY_KEY = re.compile(rb'("?)([!#-~]{8,128})\1')  # with or without the quotes of RFC 9651


class NewVoters:
    """Creates the voters that BALLOT_POLICY and NEW_VOTERS_PER_HOUR allow."""

    def __init__(self, settings: VoteSettings, voters: Voters) -> None:
        self._voters = voters
        self._browsers_only = settings.ballot_policy == "browser"
        self._hops = settings.trusted_proxies
        per_hour = settings.new_voters_per_hour
        self._limit = RateLimit(per_hour / 3600, per_hour) if per_hour else None

    def create_for_page(self, scope: Scope) -> Voter:
        """Return the voter whose cookie a page sets; raise a `Problem` if too many have come from its address."""
        self._check_limit(scope)
        return self._voters.new()

    def create_for_vote(
        self, scope: Scope, form: bytes, key: bytes | None, *, browsers_only: bool
    ) -> tuple[Voter, str]:
        """Return the voter of a vote without a cookie, and the address to `release` if it cannot be counted.

        Args:
            scope: the ASGI scope.
            form: the body; a form that our page sent has the field `ballot`.
            key: from `idempotency_key`.
            browsers_only: the poll takes no votes without a cookie, whatever BALLOT_POLICY is.

        Raises:
            Problem: the vote needs a cookie, or too many new voters have come from this address.
        """
        address = self._check_limit(scope)
        if self._browsers_only or browsers_only or (key is None and _FROM_PAGE.search(form)):
            self.release(address)
            message = translatable(
                "Your vote was not taken: your browser did not send this site's cookie, and without it could vote "
                "twice. Allow cookies for this site in your browser's settings, then open the ballot again and vote."
            )
            raise Problem(403, "no_cookie", message, title=translatable("Cookies are needed"))
        return self._voters.new() if key is None else self._voters.derive(key), address

    def release(self, address: str) -> None:
        """Do not count a new voter whose vote can never be counted."""
        if self._limit and address:
            self._limit.give_back(address)

    def _check_limit(self, scope: Scope) -> str:
        if self._limit is None:
            return ""
        address = client_address(scope, self._hops)
        if not self._limit.take(address):
            raise _too_many(self._limit.retry_after(address))
        return address


def idempotency_key(header: bytes) -> bytes:
    """Return the key of an Idempotency-Key header, or raise a `Problem`.

    https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
    """
    found = _IDEMPOTENCY_KEY.fullmatch(header)
    if found is None:
        message = translatable("Idempotency-Key takes 8 to 128 visible ASCII characters, such as a random UUID.")
        raise Problem(400, "idempotency_key", message)
    return found[2]


def _too_many(retry_after: int) -> Problem:
    def detail(reader: Language) -> str:
        return reader.count(
            "Many new voters have come from your network. You can vote in about {n} minute.",
            "Many new voters have come from your network. You can vote in about {n} minutes.",
            math.ceil(retry_after / 60),
        )

    return Problem(429, "new_voters", detail, title=translatable("Please wait"), retry_after=retry_after)
