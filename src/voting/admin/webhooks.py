"""Signed webhooks: a POST to WEBHOOK_URL when a poll is opened or closed.

Delivered at least once: a receiver ignores an id that it knows. An event that is not accepted (2xx) is sent again, with
the same id and body, at growing intervals for a day. https://github.com/standard-webhooks/standard-webhooks
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from psycopg.rows import dict_row

from voting.admin import reads
from voting.admin.database import Database
from voting.admin.identity import ADMIN
from voting.admin.metrics import AdminMetrics
from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.service import logs
from voting.service.lifecycle import Stop, pause
from voting.settings.services import AdminSettings
from voting.web.problems import Problem

POLL_SECONDS = 1.0
IDLE_SECONDS = 60.0  # between two deletions of events where webhooks are off
SEND_SECONDS = 5.0  # time limit for each step of a delivery
TOTAL_SECONDS = 8.0

log = logs.get()


class WebhookSender:
    """Delivers the events that triggers of the database record, or deletes them where no URL is set."""

    def __init__(self, settings: AdminSettings, database: Database, metrics: AdminMetrics) -> None:
        self._url, self._key = settings.webhook_url, settings.webhook_key
        self._database, self._metrics = database, metrics

    async def run(self, stop: Stop) -> None:
        """Deliver until `stop` is set."""
        while not stop.is_set():
            with contextlib.suppress(Problem):  # the database is away, which it has logged
                await (self._deliver_all(stop) if self._url else self._forget())
            await pause(stop, POLL_SECONDS if self._url else IDLE_SECONDS)

    async def _forget(self) -> None:
        async with self._database.work() as connection:
            await connection.execute(QUERIES["admin_forget_webhooks"])

    async def _deliver_all(self, stop: Stop) -> None:
        async with self._database.work() as connection:
            cursor = await connection.execute(QUERIES["admin_expire_webhooks"])
            expired = await cursor.fetchall()
        for kind, poll in expired:
            self._metrics.webhooks.labels("dropped").inc()
            log.error("webhook.dropped", type=kind, poll=poll)
        while not stop.is_set() and (event := await self._claim()):
            await self._deliver(event)

    async def _claim(self) -> dict[str, Any] | None:
        """Return the next event that is due, with its body."""
        async with self._database.work() as connection:
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(QUERIES["admin_claim_webhook"])
                event = await cursor.fetchone()
            if event and event["body"] is None:
                event["body"] = await _body(connection, event)
                values = {"id": event["id"], "body": event["body"]}
                await connection.execute(QUERIES["admin_keep_webhook"], values)
        return event

    async def _deliver(self, event: dict[str, Any]) -> None:
        headers = {"content-type": "application/json", "user-agent": "voting"} | signature(
            self._key, event["id"], int(time.time()), event["body"]
        )
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                status = await asyncio.to_thread(_post, self._url, event["body"].encode(), headers)
            outcome = f"status {status}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            status, outcome = 0, type(error).__name__
        if not 200 <= status < 300:
            self._metrics.webhooks.labels("failed").inc()
            log.warning("webhook.failed", type=event["event"], poll=event["poll"], error=outcome)
            return
        self._metrics.webhooks.labels("delivered").inc()
        log.info("webhook.delivered", type=event["event"], poll=event["poll"])
        async with self._database.work() as connection:
            await connection.execute(QUERIES["admin_webhook_done"], {"id": event["id"]})


async def _body(connection: Connection, event: dict[str, Any]) -> str:
    """Return the JSON of an event: that of a closing has the numbers of its round."""
    try:
        data = await reads.export(connection, ADMIN, event["poll"], event["round"])
    except Problem:  # somebody has changed the rows with SQL
        data = {"poll": event["poll"], "round": event["round"]}
    if "options" in data and event["event"] == "poll.opened":
        options = [{"key": option["key"], "label": option["label"]} for option in data["options"]]
        data = {name: data[name] for name in ("poll", "round", "question", "kind")} | {"options": options}
    document = {"type": event["event"], "timestamp": event["at"], "data": data}
    return json.dumps(document, default=lambda moment: moment.isoformat(), ensure_ascii=False)


def signature(key: str, identifier: str, timestamp: int, body: str) -> dict[str, str]:
    """Return the headers that sign a webhook.

    The key is used as it is, or decoded where it is one of Standard Webhooks: `whsec_` and Base64.
    """
    secret = key.encode()
    if key.startswith("whsec_"):
        with contextlib.suppress(binascii.Error):
            secret = base64.b64decode(key.removeprefix("whsec_"), validate=True)
    digest = hmac.digest(secret, f"{identifier}.{timestamp}.{body}".encode(), "sha256")
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Answers of 3xx are failures: the URL is the one that the operator has set."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Send a POST and return the status."""
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - `PublicUrl` is http or https
    try:
        with _opener.open(request, timeout=SEND_SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
