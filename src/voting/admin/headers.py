"""The headers of every response of the admin service."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voting.web.responses import HEADERS


def with_headers(app: ASGIApp) -> ASGIApp:
    """Return the application with `HEADERS` on each response, and no referrer: addresses of ours may have keys."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers["referrer-policy"] = "no-referrer"
            await send(message)

        await app(scope, receive, send_with_headers)

    return respond
