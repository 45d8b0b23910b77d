"""The limits of a request, and the encoded responses to a request that exceeds them.

The application never gets such a request complete, so each response says that the vote was not counted (RFC 9457).
"""

import json
from http import HTTPStatus

MAX_HEAD = 16 * 1024  # bytes of a request line and its header fields
MAX_FIELDS = 100  # header fields and trailers of one request
MAX_BODY = 16 * 1024  # bytes after the head, with chunk sizes and trailers; admin has a larger limit
REQUEST_SECONDS = 10  # from the first byte of a request, or of a connection, to the last


_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}  # RFC 9110; Python has them since 3.13


def phrase(status: int) -> str:
    """Return the name of a status."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


def _rejection(status: int, reason: str, detail: str, *headers: str) -> bytes:
    title = phrase(status)
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, "reason": reason}
    body = json.dumps(problem | {"counted": "no"}).encode()
    head = [
        f"HTTP/1.1 {status} {title}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "connection: close",
        *headers,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


REJECTIONS = {
    400: _rejection(400, "malformed", "This is not valid HTTP/1, which needs exactly one Host field."),
    408: _rejection(408, "request_timeout", "The request was not complete in time."),
    413: _rejection(413, "too_large", "The request body is too large."),
    431: _rejection(
        431, "header_fields", f"A request has at most {MAX_FIELDS} header fields, and {MAX_HEAD} bytes before its body."
    ),
    503: _rejection(503, "connections", "Too many connections are open.", "retry-after: 1"),
}
