"""Who makes a request, and what that allows; and the secret in a host link."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal

from voting.web.language import translatable
from voting.web.problems import Problem

_NOT_FOR_HOSTS = translatable("The link of a host is for one session only, and does not allow this.")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a change: the admin, the host of one session, or the schedule."""

    role: Literal["admin", "host", "schedule"]
    session: str | None = None

    def require_admin(self) -> None:
        if self.role != "admin":
            raise Problem(403, "host", _NOT_FOR_HOSTS)

    def require_session(self, code: str) -> None:
        if self.role != "admin" and self.session != code:
            raise Problem(403, "host", _NOT_FOR_HOSTS)


ADMIN = Identity("admin")
SCHEDULE = Identity("schedule")


def new_token() -> str:
    """Return the secret of a new host link."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """Return what the database stores of the secret in a host link."""
    return hashlib.sha256(token.encode()).digest()
