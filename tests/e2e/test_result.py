"""The result service over HTTP and WebSocket."""

import functools
import json
import time
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.e2e.stack import Stack
from tests.waiting import PLAIN, eventually
from voting.result.watcher import FRAME_SECONDS


def open_socket(stack: Stack, path: str = "/ws", **headers: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{stack.result_port}{path}", additional_headers=headers)


def receive(socket: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(socket.recv(timeout=30))
    return found


def test_a_new_socket_gets_the_current_snapshot_at_once(stack: Stack) -> None:
    with open_socket(stack) as socket:
        snapshot = receive(socket)
    assert snapshot.keys() >= {"poll", "question", "revision", "options", "total", "stale_since"}
    assert snapshot["stale_since"] is None
    assert snapshot["total"] == sum(option["votes"] for option in snapshot["options"])
    assert [option["label"] for option in snapshot["options"]] == ["Cats", "Dogs"]
    assert snapshot["options"] == stack.results()["options"]


def test_an_open_socket_sees_a_vote_within_the_blink_of_an_eye(stack: Stack) -> None:
    with open_socket(stack) as socket:
        before = receive(socket)
        took = []
        for _ in range(5):
            began = time.monotonic()
            httpx.post(stack.vote_url, data={"vote": "a"}, verify=PLAIN)
            while (after := receive(socket))["total"] == before["total"]:
                pass
            took.append(time.monotonic() - began)
            assert after["revision"] > before["revision"]
            assert after["total"] == before["total"] + 1
            before = after
    assert min(took[1:]) < 0.5  # a vote that is not announced is read a second after the one before


def test_a_burst_of_votes_costs_a_viewer_few_frames_and_the_last_shows_them_all(stack: Stack) -> None:
    before, began = stack.results()["total"], time.monotonic()
    with open_socket(stack) as socket:
        with httpx.Client() as client:
            for number in range(300):
                client.cookies.clear()
                key = {"idempotency-key": f"burst-{began}-{number}"}
                send = functools.partial(client.post, stack.vote_url, data={"vote": "b"}, headers=key)
                eventually(lambda send=send: send().status_code == 200)  # type: ignore[misc]
        frames = 0
        revisions = []
        while True:
            snapshot = receive(socket)
            frames += 1
            revisions.append(snapshot["revision"])
            if snapshot["total"] == before + 300:
                break
    assert frames < (time.monotonic() - began) / FRAME_SECONDS + 2  # however slowly this machine votes
    assert revisions == sorted(revisions)


@pytest.mark.parametrize("message", ["hello", b"\0\1", "x" * 1000])
def test_a_socket_that_says_anything_is_closed_as_unsupported(stack: Stack, message: str | bytes) -> None:
    with open_socket(stack) as socket:
        receive(socket)
        socket.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                receive(socket)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1003


def test_a_message_too_big_to_be_meant_is_closed_as_such(stack: Stack) -> None:
    with open_socket(stack) as socket:
        receive(socket)
        socket.send("x" * 100_000)
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                receive(socket)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_socket_from_a_foreign_page_is_refused(stack: Stack, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        open_socket(stack, origin=origin)
    assert caught.value.response.status_code == 403


def test_a_socket_from_our_own_page_is_welcome(stack: Stack) -> None:
    with open_socket(stack, origin=stack.result_url) as socket:
        assert receive(socket)["poll"] == "default"


def test_a_socket_for_an_unknown_poll_is_refused(stack: Stack) -> None:
    with pytest.raises(InvalidStatus):
        open_socket(stack, "/p/no-such-poll/ws")


def test_the_page_has_the_real_numbers_before_any_script_runs(stack: Stack) -> None:
    httpx.post(stack.vote_url, data={"vote": "a"})
    stack.settled_tally()
    snapshot = stack.results()
    page = httpx.get(stack.result_url).text
    for option in snapshot["options"]:
        assert option["label"] in page
        assert f">{option['votes']:,} vote" in page
    assert f">{snapshot['total']:,} vote" in page


@pytest.mark.parametrize(
    ("path", "status"), [("/nowhere", 404), ("/p/none", 404), ("/p/none/api/results", 404), ("/static/x.css", 404)]
)
def test_what_is_not_there_is_404_in_the_sites_own_page_or_json(stack: Stack, path: str, status: int) -> None:
    assert "<!doctype html>" in httpx.get(stack.result_url + path).text
    answer = httpx.get(stack.result_url + path, headers={"accept": "application/json"})
    assert answer.status_code == status
    assert answer.json()["status"] == status


@pytest.mark.parametrize("length", [64, 2900, 4000])
def test_a_big_screen_for_a_poll_with_an_endless_name_is_404(stack: Stack, length: int) -> None:
    assert httpx.get(f"{stack.result_url}/p/{'x' * length}/present").status_code == 404


def test_the_big_screen_has_the_code_of_the_ballot_and_when_too_many_were_made_its_address(stack: Stack) -> None:
    def shown(host: str) -> tuple[bool, bool]:
        page = httpx.get(f"{stack.result_url}/present", headers={"host": host}).raise_for_status().text
        return "<svg" in page.partition('class="invite"')[2], f"{host}:{stack.vote_port}" in page

    assert shown("results.example") == (True, True)
    found = [shown(f"{number}.example") for number in range(30)]
    while found[-1][0]:  # a busy machine may make pages no faster than codes are allowed
        found.append(shown(f"{len(found)}.example"))
    assert {address for _, address in found} == {True}
    assert found[0][0]
    assert shown("results.example") == (True, True)


def test_posting_to_the_result_is_405(stack: Stack) -> None:
    assert httpx.post(stack.result_url, data={"vote": "a"}).status_code == 405
