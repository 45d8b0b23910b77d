"""Refused requests: status, texts to translate, and problem details for programs (RFC 9457)."""

import json
from collections.abc import Callable, Mapping
from typing import Literal

from voting.web.language import Language, translatable
from voting.web.rejections import phrase

TITLES = {
    400: translatable("Bad request"),
    401: translatable("Not signed in"),
    403: translatable("Not allowed"),
    404: translatable("Page not found"),
    405: translatable("Method not allowed"),
    409: translatable("The poll has changed"),
    412: translatable("Changed in the meantime"),
    413: translatable("Request too large"),
    415: translatable("Unsupported content type"),
    422: translatable("Something is missing or wrong"),
    429: translatable("Too many requests"),
    503: translatable("Service unavailable"),
}
_MESSAGES = {
    400: translatable("The host name in this request is not valid. Open the poll's page instead."),
    404: translatable("There is no such page or poll. Check the address, or go back to the poll."),
    405: translatable("This page does not accept this kind of request. Open the poll's page instead."),
    429: translatable("Too many requests have come from your address. Wait a moment, then try again."),
    503: translatable("There is nothing to show yet. Please try again in a moment."),
}
PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """A request that is refused.

    Args:
        status: HTTP status code.
        reason: an identifier for programs, and the label `reason` of metrics.
        message: an English sentence with {names} for `values`, or a function that returns it in the reader's
            language; by default the one for the status.
        title: title of the page; by default the one for the status.
        counted: "unknown" if the request is a vote that may still be counted.
        again: form fields of a vote that may be sent again.
        cookie: Set-Cookie value of the voter, so that a vote that is sent again replaces this one.
        retry_after: seconds; None if waiting would not help. With status 503 it is always 1.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str | Callable[[Language], str] = "",
        *,
        title: str = "",
        counted: Literal["no", "unknown"] = "no",
        again: Mapping[str, str] | None = None,
        cookie: bytes | None = None,
        retry_after: int | None = None,
        **values: object,
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.counted, self.again, self.cookie = status, reason, counted, again, cookie
        self.retry_after = 1 if status == 503 else retry_after
        self.title = title or TITLES[status]
        self._message, self._values = message or _MESSAGES[status], values

    def detail(self, reader: Language) -> str:
        if isinstance(self._message, str):
            return reader.text(self._message).format(**self._values)
        return self._message(reader)

    def fields(self, reader: Language) -> dict[str, object]:
        """Return the members of the problem details (RFC 9457)."""
        about = {"type": "about:blank", "title": phrase(self.status), "status": self.status}
        return about | {"detail": self.detail(reader), "reason": self.reason}

    def document(self, reader: Language, method: str) -> bytes:
        """Return the problem details as JSON; those of a POST, which is a vote, include `counted`."""
        counted = {"counted": self.counted} if method == "POST" else {}
        return json.dumps(self.fields(reader) | counted, ensure_ascii=False).encode()
