"""Who a caller is, and what that allows.

The admin key allows everything. A host link allows one session: to see it and its polls, to step on, to open and close,
and to show or hide results. Keys and links never reach a log, a metric, an error or a referrer.
"""

import base64
import hmac
import re
import time
from collections.abc import Mapping
from typing import NoReturn

from voting.admin.database import Database
from voting.admin.identity import ADMIN, Identity, token_hash
from voting.admin.metrics import AdminMetrics
from voting.database.queries import QUERIES
from voting.settings.services import AdminSettings
from voting.web.language import translatable
from voting.web.origin import same_site
from voting.web.problems import Problem
from voting.web.rate_limit import RateLimit, too_many_requests

WRONG_KEYS = 100  # from one address in a minute
COOKIE_SECONDS = 30 * 24 * 3600
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 random bytes
_SAFE = {"GET", "HEAD", "OPTIONS"}

_NO_KEY = translatable(
    "Open the link that was shown when the service started: it has the key. Programs send it as Authorization: Bearer."
)
_WRONG_KEY = translatable("This key or link is not valid. It may have been replaced by a new one.")
_OTHER_SITE = translatable("This request comes from another site, and was refused. Open the page of the poll instead.")


class Access:
    """Identifies callers by their key, link or cookie."""

    def __init__(self, settings: AdminSettings, database: Database, metrics: AdminMetrics) -> None:
        self._key, self._origins = settings.admin_key, settings.allowed_origins
        self._database, self._metrics = database, metrics
        self._wrong_keys = RateLimit(WRONG_KEYS / 60, WRONG_KEYS)

    async def identify(self, method: str, headers: Mapping[bytes, bytes], address: str) -> Identity:
        """Return who makes a request.

        Args:
            method: of HTTP.
            headers: of the request.
            address: from `client_address`; wrong keys are counted for it.

        Raises:
            Problem: 401 without a valid key, 403 for a change that comes from another site, 429 after many wrong keys,
                503 if a host link cannot be checked now.
        """
        authorization = headers.get(b"authorization")
        if authorization is not None:
            scheme, _, key = authorization.decode("latin-1").partition(" ")
            identity = await self.check_key(key.strip()) if scheme.lower() == "bearer" else None
            if identity is None:
                self.refuse_key(address)
            return identity
        cookies = _cookies(headers)
        identity = None
        if self._is_admin_cookie(cookies.get("admin", "")):
            identity = ADMIN
        elif "host" in cookies:
            identity = await self.check_token(cookies["host"])
        if identity is None:
            if cookies.keys() & {"admin", "host"}:
                self.refuse_key(address)
            raise Problem(401, "no_key", _NO_KEY)
        if method not in _SAFE:
            require_this_site(headers, self._origins)
        return identity

    def refuse_key(self, address: str) -> NoReturn:
        """Count a wrong key and raise the 401, or the 429 if there were many.

        A valid key is still accepted: or one of the audience could shut out the host, who has the same address.
        """
        self._metrics.refused_keys.inc()
        if not self._wrong_keys.take(address):
            raise too_many_requests(self._wrong_keys.retry_after(address))
        raise Problem(401, "wrong_key", _WRONG_KEY)

    async def check_key(self, key: str) -> Identity | None:
        """Return the identity of a key or of the secret in a host link; None if it is neither."""
        if hmac.compare_digest(key.encode(), self._key.encode()):
            return ADMIN
        return await self.check_token(key)

    async def check_token(self, token: str) -> Identity | None:
        """Return the identity of the secret in a host link; None if no session has it."""
        if not _TOKEN.fullmatch(token):
            return None
        async with self._database.read() as connection:
            cursor = await connection.execute(QUERIES["admin_host"], {"host_hash": token_hash(token)})
            row = await cursor.fetchone()
        return Identity("host", row[0]) if row else None

    def admin_cookie(self) -> str:
        """Return the value of the cookie `admin`: when it expires, signed with the key."""
        expires = int(time.time()) + COOKIE_SECONDS
        return f"{expires}.{self._signature(expires)}"

    def _signature(self, expires: int) -> str:
        digest = hmac.digest(self._key.encode(), f"admin cookie {expires}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _is_admin_cookie(self, value: str) -> bool:
        expires, _, signature = value.partition(".")
        if not re.fullmatch(r"[0-9]{1,12}", expires, re.ASCII) or not signature.isascii():
            return False
        return hmac.compare_digest(signature, self._signature(int(expires))) and int(expires) > time.time()


def _cookies(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in headers.get(b"cookie", b"").decode("latin-1").split(";"))
    return {name: value for name, _, value in pairs}


def require_this_site(headers: Mapping[bytes, bytes], origins: tuple[str, ...]) -> None:
    """Raise the 403 unless a request comes from our own pages, or from a program.

    Our pages send no referrer, so the Origin of their forms is `null`.
    """
    if headers.get(b"origin") == b"null":
        is_ours = headers.get(b"sec-fetch-site") == b"same-origin"
    else:
        is_ours = same_site(headers, origins)
    if not is_ours:
        raise Problem(403, "cross_site", _OTHER_SITE)
