"""Webhooks, delivered to a real HTTP server."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.http_server import Handler
from tests.http_server import serving as serving_http
from tests.integration.admin import Admin, make, patch, serving
from tests.waiting import background, until
from voting.admin import webhooks
from voting.admin.webhooks import WebhookSender, signature
from voting.service.lifecycle import Stop

pytestmark = pytest.mark.anyio
KEY = "w" * 32
FINISH = """UPDATE closings SET final = now(), record = '{"fingerprint": "0123"}'"""


class Receiver:
    """A server that keeps what it gets; `statuses` are its next answers, then 204."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        receiver = self

        class Webhook(Handler):
            def answer(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((headers, self.body()))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

        self.handler = Webhook
        self.url = ""

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    with serving_http(made.handler) as url:
        made.url = f"{url}/hook/secret"
        yield made


@asynccontextmanager
async def sending(url: str, monkeypatch: pytest.MonkeyPatch, **given: Any) -> AsyncIterator[Admin]:
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(webhooks, "IDLE_SECONDS", 0.02)
    async with serving(url, **given) as admin:
        services = admin.services
        sender = WebhookSender(services.settings, services.database, services.metrics)
        async with background(sender.run(Stop())):
            yield admin


async def test_opening_and_closing_are_delivered_signed_with_the_final_numbers(
    database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(database_url, monkeypatch, webhook_url=receiver.url, webhook_key=KEY) as admin:
        client = await admin.client()
        slug = await make(client)
        await patch(client, slug, state="open")
        await until(lambda: len(receiver.requests) == 1)
        await patch(client, slug, state="closed")
        await client.post(f"/api/polls/{slug}/reset")  # the numbers are those of the round that was closed
        admin.count(slug, "a", 2)
        await until(lambda: admin.owner("SELECT event FROM webhook_events") == [("poll.closed",)])
        assert len(receiver.requests) == 1
        admin.count(slug, "a", 5)
        admin.owner(FINISH)
        await until(lambda: admin.owner("SELECT id FROM webhook_events") == [])
    opened, closed = receiver.events()
    assert (opened["type"], opened["data"]["poll"], opened["data"]["round"]) == ("poll.opened", slug, 1)
    assert opened["data"]["options"] == [{"key": "a", "label": "Yes"}, {"key": "b", "label": "No"}]
    assert (closed["type"], closed["data"]["round"], closed["data"]["total"]) == ("poll.closed", 1, 5)
    assert [option["votes"] for option in closed["data"]["options"]] == [5, 0]
    assert (closed["data"]["state"], closed["data"]["fingerprint"]) == ("final", "0123")
    for headers, body in receiver.requests:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(KEY.encode(), signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert headers["content-type"] == "application/json"


async def test_what_is_not_accepted_is_sent_again_unchanged_and_redirects_are_not_followed(
    database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    receiver.statuses = [500, 302]
    async with sending(database_url, monkeypatch, webhook_url=receiver.url, webhook_key=KEY) as admin:
        client = await admin.client()
        slug = await make(client)
        await patch(client, slug, state="open")
        for sent in (1, 2):
            before = admin.owner("SELECT now()")[0][0]
            await until(lambda sent=sent: len(receiver.requests) == sent)  # type: ignore[misc]
            await until(lambda: admin.services.metrics.webhooks.labels("failed")._value.get() == len(receiver.requests))
            next_try = "SELECT next_try > %s::timestamptz + interval '4 seconds' FROM webhook_events"
            assert admin.owner(next_try, before) == [(True,)]
            admin.owner("UPDATE webhook_events SET next_try = now()")
        await until(lambda: admin.owner("SELECT id FROM webhook_events") == [])
        await client.patch(f"/api/polls/{slug}", json={"question": "Coffee?"})
    (first, body), *others = receiver.requests
    assert [(headers["webhook-id"], later) for headers, later in others] == [(first["webhook-id"], body)] * 2
    assert "secret" not in "".join(capfd.readouterr())


async def test_an_event_is_dropped_after_a_day(
    database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(database_url, monkeypatch, webhook_url="http://127.0.0.1:1/", webhook_key=KEY) as admin:
        client = await admin.client()
        await patch(client, await make(client), state="open")
        await until(lambda: admin.services.metrics.webhooks.labels("failed")._value.get() == 1)
        admin.owner("UPDATE webhook_events SET at = now() - interval '25 hours'")
        await until(lambda: admin.services.metrics.webhooks.labels("dropped")._value.get() == 1)
        assert admin.owner("SELECT id FROM webhook_events") == []
    assert receiver.requests == []


async def test_a_closing_is_not_awaited_for_longer_than_a_minute(
    database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(database_url, monkeypatch, webhook_url=receiver.url, webhook_key=KEY) as admin:
        client = await admin.client()
        await patch(client, "default", state="closed")
        admin.owner("UPDATE webhook_events SET at = at - interval '61 seconds'")
        await until(lambda: len(receiver.requests) == 1)
        assert receiver.events()[0]["data"]["poll"] == "default"


async def test_without_a_url_events_are_deleted(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sending(database_url, monkeypatch) as admin:
        client = await admin.client()
        await patch(client, await make(client), state="open")
        await until(lambda: admin.owner("SELECT id FROM webhook_events") == [])


def test_a_key_of_standard_webhooks_is_decoded() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md."""
    body = '{"test": 2432232314}'
    headers = signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
