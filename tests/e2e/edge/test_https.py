"""HTTPS through a real Caddy with an authority of its own, before three vote and two result services."""

import collections
import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.e2e.compose import ROOT, Compose, docker, inspect
from tests.e2e.edge.conftest import ADMIN, NEW_VOTERS, RESULT, VOTE, Edge
from tests.e2e.load import LoadGenerator
from tests.waiting import eventually

JSON = {"accept": "application/json"}
FROM_CADDY = "Not just now."


def open_viewer(edge: Edge, origin: str = f"https://{RESULT}") -> ClientConnection:
    """Open the WebSocket of the live result, as the page does."""
    sock = socket.create_connection(("127.0.0.1", edge.https_port), timeout=10)
    return connect(
        f"wss://{RESULT}/ws", sock=sock, ssl=edge.tls(), server_hostname=RESULT, origin=Origin(origin), proxy=None
    )


def test_a_vote_is_cast_and_seen_over_https(edge: Edge) -> None:
    with edge.client(VOTE) as client, open_viewer(edge) as viewer:
        before = json.loads(viewer.recv(timeout=30))
        answer = client.post("/", data={"vote": "a"}, headers=JSON | {"origin": f"https://{VOTE}"})
        assert answer.status_code == 200
        while (after := json.loads(viewer.recv(timeout=30)))["total"] == before["total"]:
            pass
    assert after["total"] == before["total"] + 1


def test_a_client_can_verify_the_certificates_and_one_that_trusts_others_refuses_them(edge: Edge) -> None:
    for host in (VOTE, RESULT):
        with edge.client(host) as client:
            assert client.get("/").status_code == 200
    with (
        edge.client(VOTE, verify=ssl.create_default_context()) as stranger,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        stranger.get("/")


def test_browsers_get_http_2_and_the_offer_of_http_3(edge: Edge) -> None:
    context = edge.tls()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", edge.https_port), timeout=10) as sock,
        context.wrap_socket(sock, server_hostname=VOTE) as tls,
    ):
        assert tls.selected_alpn_protocol() == "h2"
        assert tls.version() == "TLSv1.3"
    with edge.client(VOTE) as client:
        assert 'h3=":443"' in client.get("/").headers["alt-svc"]
    assert "443/udp" in inspect(edge.containers("caddy")[0], "{{json .HostConfig.PortBindings}}")


def test_plain_http_leads_to_https_and_does_nothing_else(edge: Edge) -> None:
    answer = httpx.post(f"http://127.0.0.1:{edge.http_port}/p/default", headers={"host": VOTE}, data={"vote": "a"})
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://{VOTE}/p/default"
    assert "set-cookie" not in answer.headers


def test_the_cookie_is_for_https_alone_and_answers_keep_browsers_there(edge: Edge) -> None:
    with edge.client(VOTE) as client:
        answer = client.get("/")
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-voter_id=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "server" not in answer.headers


def test_pages_are_compressed(edge: Edge) -> None:
    for host in (VOTE, RESULT):
        with edge.client(host) as client:
            answer = client.get("/", headers={"accept-encoding": "gzip"})
            assert answer.headers["content-encoding"] == "gzip"
            assert "<html" in answer.text


def test_each_page_leads_to_the_other_at_its_public_name(edge: Edge) -> None:
    with edge.client(VOTE) as client:
        assert client.get("/results").headers["location"] == f"https://{RESULT}/"
    with edge.client(RESULT) as client:
        assert client.get("/vote").headers["location"] == f"https://{VOTE}/"


def test_a_socket_that_another_site_opens_is_refused(edge: Edge) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        open_viewer(edge, origin="https://evil.test").__enter__()


def test_votes_and_viewers_are_spread_over_all_replicas(edge: Edge) -> None:
    with edge.client(VOTE) as client:
        for _ in range(30):
            assert client.post("/", data={"vote": "b"}, headers=JSON).status_code == 200
    ballots = [edge.metrics(container)["voting_votes_accepted_total"] for container in edge.containers("vote")]
    assert len(ballots) == 3
    assert all(ballots)
    with contextlib.ExitStack() as viewers:
        for _ in range(8):
            viewers.enter_context(open_viewer(edge))
        results = [edge.metrics(container)["voting_viewers"] for container in edge.containers("result")]
    assert len(results) == 2
    assert all(results)


VOTES = """
import http.client, ssl, sys
context = ssl.create_default_context(cafile='/root.crt')
client = http.client.HTTPSConnection('vote.test', context=context, timeout=10)
for number in range(int(sys.argv[1])):
    headers = {'content-type': 'application/x-www-form-urlencoded', 'x-forwarded-for': f'203.0.113.{number}'}
    client.request('POST', '/', 'vote=a', headers)
    answer = client.getresponse()
    answer.read()
    print(answer.status)
"""


def vote_from_another_address(edge: Edge, votes: int) -> list[int]:
    """Vote without cookies from a container, so from another address, which a forged header tries to hide."""
    network = f"{edge.name}_front-tier"
    template = '{{(index .NetworkSettings.Networks "' + network + '").IPAddress}}'
    options = ["--rm", "--network", network, "--add-host", f"{VOTE}:{inspect(edge.containers('caddy')[0], template)}"]
    options += ["-v", f"{edge.authority}:/root.crt:ro", "--entrypoint", "python"]
    return [int(line) for line in docker("run", *options, edge.image, "-c", VOTES, str(votes)).split()]


def test_an_address_is_held_to_its_limit_whatever_it_says_it_is_and_no_other_pays_for_it(edge: Edge) -> None:
    replicas = len(edge.containers("vote"))
    greedy = vote_from_another_address(edge, replicas * NEW_VOTERS + 15)
    assert greedy[0] == 200
    assert greedy.count(429) >= 10  # the limit refills a little while this runs
    assert set(greedy) == {200, 429}
    with edge.client(VOTE) as client:  # an address of its own
        assert client.post("/", data={"vote": "a"}, headers=JSON).status_code == 200


def is_ready(container: str) -> bool:
    """Return the result of its own probe."""
    return subprocess.run(["docker", "exec", container, "voting", "probe"], check=False, timeout=60).returncode == 0


def test_restarting_replica_after_replica_loses_no_request(edge: Edge) -> None:
    edge.sql("DELETE FROM votes; UPDATE tallies SET votes = 0")
    with LoadGenerator(f"https://{VOTE}", 6, edge.voter).running() as load:
        load.wait_for_votes()
        for container in edge.containers("vote")[:2]:
            docker("restart", container)
            eventually(lambda: is_ready(container), within=60)  # noqa: B023
            load.wait_for_votes()
    eventually(edge.drained, within=60)
    # A 503 of vote, when the disk of a busy machine took a second, is no lost request; one of Caddy's would be.
    assert [refusal for refusal in load.refusals if FROM_CADDY in refusal] == []
    assert load.statuses <= {200, 503}
    for container in edge.containers("vote"):
        measures = edge.metrics(container)
        assert measures['voting_votes_refused_total{reason="starting"}'] == 0
        assert measures['voting_votes_refused_total{reason="no_polls"}'] == 0
    load.check(edge.rows(), edge.execute("vote", "cat", "/run/secrets/secret_key"))


def test_a_replica_that_is_killed_costs_no_vote(edge: Edge) -> None:
    edge.sql("DELETE FROM votes; UPDATE tallies SET votes = 0")
    with LoadGenerator(f"https://{VOTE}", 6, edge.voter).running() as load:
        load.wait_for_votes()
        killed = edge.containers("vote")[0]
        docker("kill", killed)
        load.wait_for_votes(200)
        docker("start", killed)
    eventually(edge.drained, within=60)
    assert load.statuses <= {200, 503}
    load.check(edge.rows(), edge.execute("vote", "cat", "/run/secrets/secret_key"))


POST = b"POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HOSTILE = {
    "no chunk size": CHUNKED + b"zz\r\nvote=a\r\n0\r\n\r\n",
    "no second chunk size": CHUNKED + b"6\r\nvote=a\r\nzz\r\n",
    "a body too big": POST + b"Content-Length: 20000\r\n\r\n" + b"v" * 20_000,
    "chunks too big": CHUNKED + b"4e20\r\n" + b"v" * 20_000 + b"\r\n0\r\n\r\n",
    "a head too big": b"GET / HTTP/1.1\r\nHost: %s\r\nX: " + b"x" * 17_000 + b"\r\n\r\n",
    "too many header fields": b"GET / HTTP/1.1\r\nHost: %s\r\n" + b"X: x\r\n" * 200 + b"\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: %s\r\n\r\n",
}
ABORTED = {
    "a body that ends": POST + b"Content-Length: 100\r\n\r\nvote=",
    "chunks that end": CHUNKED + b"6\r\nvote=a\r\n",
    "an answer not awaited": b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n",
}


def ask(edge: Edge, host: str, request: bytes, *, waits: bool) -> str:
    """Send bytes through TLS; return the status of the answer, if it is awaited."""
    with (
        socket.create_connection(("127.0.0.1", edge.https_port), timeout=10) as sock,
        edge.tls().wrap_socket(sock, server_hostname=host) as tls,
    ):
        tls.sendall(request % host.encode())
        return tls.recv(100).split()[1].decode() if waits else ""


def test_a_hostile_client_takes_no_healthy_replica_away(edge: Edge) -> None:
    def accepted() -> list[float]:
        return [edge.metrics(each)["voting_votes_accepted_total"] for each in edge.containers("vote")]

    answers: dict[str, set[str]] = {}
    done = threading.Event()

    def attack() -> None:
        while not done.is_set():
            for host in (VOTE, RESULT):
                for name, request in HOSTILE.items():
                    answers.setdefault(name, set()).add(ask(edge, host, request, waits=True))
                for request in ABORTED.values():
                    ask(edge, host, request, waits=False)

    before = accepted()
    attacker = threading.Thread(target=attack)
    with edge.client(VOTE) as voter, edge.client(RESULT) as viewer:
        voter.get("/")
        attacker.start()
        try:
            statuses, times = collections.Counter[int](), []
            end = time.monotonic() + 6
            while time.monotonic() < end:
                began = time.monotonic()
                statuses[voter.post("/", data={"vote": "a"}, headers=JSON).status_code] += 1
                statuses[viewer.get("/api/results").status_code] += 1
                times.append(time.monotonic() - began)
        finally:
            done.set()
            attacker.join(30)
    assert set(statuses) == {200}
    assert max(times) < 1.8, "there was no replica for a while"  # 2 s if Caddy had `fail_duration 2s`
    assert answers.keys() == HOSTILE.keys()
    for name in ("a body too big", "chunks too big"):
        assert answers[name] <= {"413", "405"}, answers
    assert answers["a head too big"] == answers["too many header fields"] == {"431"}
    each = [after - at_first for at_first, after in zip(before, accepted(), strict=True)]
    assert sum(each) == statuses[200] / 2
    assert min(each) > sum(each) / 6, "a replica was left out"


def test_without_any_ballot_there_is_a_clear_no_and_the_result_goes_on(edge: Edge) -> None:
    ballots = edge.containers("vote")
    docker("stop", *ballots)
    try:
        with edge.client(VOTE) as client:
            answer = client.post("/", data={"vote": "a"}, headers=JSON)
        assert answer.status_code == 503
        assert FROM_CADDY in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["counted"] == "unknown"  # it cannot say whether a replica has it
        assert answer.headers["retry-after"] == "1"
        with edge.client(RESULT) as client:
            assert client.get("/api/results").status_code == 200
        docker("start", *ballots)
        with edge.client(VOTE) as client:
            eventually(lambda: client.get("/").status_code == 200, within=60)
    finally:
        docker("start", *ballots)


def test_the_services_are_published_for_this_machine_alone(edge: Edge) -> None:
    for service in ("vote", "result", "admin"):
        for container in edge.containers(service):
            bindings = json.loads(inspect(container, "{{json .HostConfig.PortBindings}}"))
            assert [binding["HostIp"] for ports in bindings.values() for binding in ports] == ["127.0.0.1"]


TIERS = {
    "caddy": {"front-tier", "watch-tier"},
    "certificate": {"watch-tier"},
    "prometheus": {"back-tier", "watch-tier"},
}


@pytest.mark.parametrize("service", TIERS)
def test_what_is_added_is_not_root_either_and_reaches_no_further_than_it_must(edge: Edge, service: str) -> None:
    container = edge.containers(service)[0]
    lines = edge.execute(service, "cat", "/proc/1/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["Uid"].split()[0] != "0"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert inspect(container, "{{.HostConfig.ReadonlyRootfs}}") == "true"
    networks = json.loads(inspect(container, "{{json .NetworkSettings.Networks}}"))
    assert {name.rpartition("_")[2] for name in networks} == TIERS[service]


def test_nothing_of_a_voter_is_in_the_log_of_the_proxy(edge: Edge) -> None:
    output = edge.run("logs", "caddy")
    assert "no such host" in output  # from the failed requests above
    for trace in ("voter_id", "remote_ip", "client_ip", "User-Agent"):
        assert trace not in output


def test_admin_has_a_host_name_of_its_own_and_its_key_is_in_no_log_also_while_it_is_away(edge: Edge) -> None:
    key = edge.execute("admin", "cat", "/run/secrets/admin_key").strip()
    assert edge.execute("admin", "voting", "admin-link").strip() == f"https://{ADMIN}/?key={key}"
    (container,) = edge.containers("admin")
    with edge.client(ADMIN) as client:
        opened = client.get("/", params={"key": key})
        assert opened.status_code == 303
        assert key not in opened.headers["location"]
        assert "Secure" in opened.headers["set-cookie"]
        assert client.get("/api/polls").status_code == 200
        docker("stop", container)
        try:
            assert client.get("/", params={"key": key}, headers={"authorization": f"Bearer {key}"}).status_code == 503
        finally:
            docker("start", container)
        eventually(lambda: client.get("/api/polls").status_code == 200, within=60)
    logs = edge.run("logs")
    assert "no such host" in logs  # from the request while it was away
    assert key not in logs


CADDY = ["run", "--rm", "-v", f"{ROOT}/deploy/caddy:/etc/caddy:ro"]


@pytest.mark.usefixtures("engine")
def test_the_caddyfile_is_valid_also_for_public_certificates_and_formatted() -> None:
    hosts = ["-e", f"VOTE_HOST={VOTE}", "-e", f"RESULT_HOST={RESULT}"]
    admin = ["-e", "ADMIN_SITE=admin", "-e", f"ADMIN_HOST={ADMIN}", "-e", "ADMIN_PORT=8082"]
    for issuer, names, has_admin in (("acme", hosts, False), ("internal", hosts, False), ("acme", hosts + admin, True)):
        command = [*CADDY, *names, "-e", f"CERTIFICATES={issuer}", "caddy:2-alpine", "caddy"]
        docker(*command, "validate", "--config", "/etc/caddy/Caddyfile")
        adapted = docker(*command, "adapt", "--config", "/etc/caddy/Caddyfile")
        assert (ADMIN in adapted) == has_admin
    for file in ("Caddyfile", "admin.caddy"):
        formatted = docker(*CADDY, "caddy:2-alpine", "caddy", "fmt", f"/etc/caddy/{file}")
        assert formatted == (ROOT / "deploy/caddy" / file).read_text()


@pytest.mark.usefixtures("engine")
def test_a_missing_host_name_is_named() -> None:
    config = Compose("voting-check", VOTE_HOST=VOTE).run("--profile", "https", "config", "--format", "json")
    environment = json.loads(config)["services"]["caddy"]["environment"]
    settings = [f"-e{name}={value}" for name, value in environment.items()]
    command = ["docker", *CADDY, *settings, "caddy:2-alpine"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "RESULT_HOST-is-not-set" in done.stderr
