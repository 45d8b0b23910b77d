"""A local server that accepts the webhooks of the admin service and keeps them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

KEY = "webhook-key-" + "k" * 32


class Delivery(NamedTuple):
    """One webhook as it came."""

    id: str
    event: str  # poll.opened or poll.closed
    poll: str
    round: int
    body: dict[str, Any]


class WebhookReceiver:
    """Answers each POST with 204 while the block runs.

    Attributes:
        settings: of the services, so that admin sends its webhooks here.
        deliveries: in order; one that was sent again is there twice.
    """

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                keep(self.headers["webhook-id"], self.rfile.read(int(self.headers["content-length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self.settings: dict[str, Any] = {"WEBHOOK_URL": url, "WEBHOOK_KEY": KEY}

    def _keep(self, identifier: str, text: bytes) -> None:
        body = json.loads(text)
        data = body["data"]
        self.deliveries.append(Delivery(identifier, body["type"], data["poll"], data["round"], body))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
