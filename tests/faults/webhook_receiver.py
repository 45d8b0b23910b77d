"""A local server that accepts the webhooks of the admin service and keeps them."""

import contextlib
import json
from typing import Any, NamedTuple, Self

from tests.http_server import Handler, serving

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

        class Webhook(Handler):
            def answer(self) -> None:
                keep(self.headers["webhook-id"], self.body())
                self.send_response(204)
                self.end_headers()

        self._handler, self._serving = Webhook, contextlib.ExitStack()

    def _keep(self, identifier: str, text: bytes) -> None:
        body = json.loads(text)
        data = body["data"]
        self.deliveries.append(Delivery(identifier, body["type"], data["poll"], data["round"], body))

    def __enter__(self) -> Self:
        url = self._serving.enter_context(serving(self._handler))
        self.settings: dict[str, Any] = {"WEBHOOK_URL": f"{url}/hook", "WEBHOOK_KEY": KEY}
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.close()
