"""The headers of every response, and a fast way to send a 200."""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.types import Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from voting.web.uvicorn_check import require_attributes

require_attributes(
    RequestResponseCycle, "default_headers", "disconnected", "flow", "keep_alive", "on_response", "transport"
)
require_attributes(RequestResponseCycle, "response_complete", "response_started")


def headers_for(connect: str = "'self'") -> dict[str, str]:
    """Return the headers of a response whose scripts may connect to these sources (CSP `connect-src`)."""
    return {
        "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        f"connect-src {connect}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }


HEADERS = headers_for()


class OkHead(NamedTuple):
    """The headers of a 200, also encoded with its status line."""

    fields: list[tuple[bytes, bytes]]
    encoded: bytes


def _encode(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def ok_head(headers: Mapping[str, str] = HEADERS) -> OkHead:
    """Return these headers for `send_ok`."""
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    return OkHead(fields, b"HTTP/1.1 200 OK\r\n" + _encode(fields))


OK_HEAD = ok_head()


def prefers_json(headers: Mapping[bytes, bytes]) -> bool:
    """Whether Accept asks for JSON: browsers name text/html, and curl's */* gets the page."""
    accept = headers.get(b"accept", b"")
    return (b"application/json" in accept or b"application/problem+json" in accept) and b"text/html" not in accept


def _write_directly(send: Send, head: bytes, body: bytes) -> bool:
    """Send a response in one write and return True; return False if `send` is not Uvicorn's own, or would have to wait.

    Uvicorn's `send` writes head and body separately, and searches each header for line ends: a fifth of the work for a
    vote. So `head`, status line and encoded headers, must hold no value from the request that was not validated.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.flow.write_paused or cycle.disconnected:
        return False
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    cycle.transport.write(b"".join([head, _encode(cycle.default_headers), end, body]))
    cycle.response_started = cycle.response_complete = True
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


async def send_ok(
    scope: Scope, send: Send, headers: list[tuple[bytes, bytes]], body: bytes, head: OkHead = OK_HEAD
) -> None:
    """Respond with 200, `head` and these headers. A value that comes from the request must have been validated."""
    if scope["method"] == "HEAD":
        body = b""
    if not _write_directly(send, head.encoded + _encode(headers), body):
        await send({"type": "http.response.start", "status": 200, "headers": head.fields + headers})
        await send({"type": "http.response.body", "body": body})
