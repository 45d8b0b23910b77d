"""Nothing of a voter is in the logs of services and stores, in their metrics, or in spans."""

import base64
import binascii
from pathlib import Path

import httpx
import psycopg

from tests.e2e.stack import Stack
from tests.http_server import Handler, serving
from tests.waiting import eventually
from voting.polls.codes import CodeList, new_key
from voting.polls.tracker import tracker, tracker_text
from voting.polls.vote import EntryId

ADDRESS = "203.0.113.77"  # as a proxy names the client
KEY = "idempotency-key-of-a-program"
MEMBERS = """
    INSERT INTO polls (slug, question, options, access, publish)
    SELECT 'members', 'Yes?', options, 'code', true FROM polls WHERE slug = 'default'
"""
BAD = "voter-of-a-damaged-entry"


class Collector(Handler):
    """Keeps what it gets."""

    seen: list[bytes]

    def answer(self) -> None:
        self.seen.append(self.body())
        self.send_response(200)
        self.end_headers()


def metrics(stack: Stack) -> dict[str, str]:
    """Return the metrics of each service."""
    found = {}
    for name, path in stack.state["parts"].items():
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            found[name] = client.get("http://service/metrics").text
    return found


def vote(stack: Stack) -> dict[str, str]:
    """Vote as browsers and programs do, also in vain; return what must not be seen anywhere, by its name."""
    secrets = {"address": ADDRESS, "idempotency key": KEY, "damaged": BAD}
    headers = {"x-forwarded-for": ADDRESS, "accept": "application/json"}
    with httpx.Client(base_url=stack.vote_url, headers=headers) as browser:
        for choice in "ab":
            secrets[f"receipt {choice}"] = browser.post("/", data={"vote": choice}).json()["receipt"]
        assert browser.post("/", data={"vote": "none"}).status_code == 400
        secrets["cookie"] = browser.cookies["voter_id"]
    assert browser.cookies
    with httpx.Client(base_url=stack.vote_url, headers=headers | {"idempotency-key": KEY}) as program:
        answers = [program.post("/", data={"vote": "a"}) for _ in range(9)]
        secrets["receipt of a program"] = answers[0].json()["receipt"]
        assert httpx.post(stack.vote_url, headers=headers, content=b"\xff=;").status_code >= 400
        assert httpx.post(stack.vote_url, headers=headers | {"host": "a b"}).status_code >= 400
        while (answer := httpx.post(stack.vote_url, headers=headers, data={"vote": "a"})).status_code == 200:
            pass
        assert answer.status_code == 429  # new voters of one address are limited
    secrets["id of the voter"] = base64.urlsafe_b64decode(secrets["cookie"])[:16].hex()
    return secrets


def vote_with_codes(stack: Stack) -> dict[str, str]:
    """Vote with a code, also with wrong ones, in a poll that publishes its ballots; then look for the ballot."""
    codes = CodeList(new_key(), 3)
    with psycopg.connect(stack.state["database_url"], autocommit=True) as database:
        database.execute("INSERT INTO code_lists (owner, key, issued) VALUES ('members', %s, 3)", [codes.key.hex()])
        database.execute(MEMBERS)
    first, second, third = (codes.code(serial) or "" for serial in (1, 2, 3))
    typo, unknown = first[:-1] + ("0" if first[-1] != "0" else "1"), CodeList(new_key(), 1).code(1) or ""
    headers = {"x-forwarded-for": ADDRESS, "accept": "application/json"}
    with httpx.Client(base_url=stack.vote_url, headers=headers) as browser:

        def send(code: str) -> httpx.Response:
            return browser.post("/p/members", data={"vote": "a", "code": code})

        eventually(lambda: send(first).status_code == 200)
        answer = send(first)
        assert [send(code).status_code for code in (typo, unknown)] == [403, 403]
        secrets = {"code": first, "other code": second, "typo": typo, "unknown code": unknown, "third code": third}
        secrets |= {"token": browser.cookies["voting_code"], "key": codes.key.hex()}
    secrets |= {f"{name} of a code": answer.json()[name] for name in ("receipt", "tracker")}
    with psycopg.connect(stack.state["database_url"], autocommit=True) as database:
        database.execute("UPDATE polls SET state = 'closed' WHERE slug = 'members'")
    url, found = f"{stack.result_url}/p/members/ballots", {"tracker": secrets["tracker of a code"]}
    eventually(lambda: httpx.get(url, params=found, headers=headers).status_code == 200)
    assert "This ballot was counted" in httpx.get(url, params=found, headers=headers).text
    return secrets


def seen_forms(secret: str) -> set[str]:
    """Return a secret as it could be written: as it is, and in Base64."""
    return {secret, base64.b64encode(secret.encode()).decode().rstrip("=")}


def test_nothing_of_a_voter_is_in_a_log_a_metric_or_a_span(tmp_path: Path) -> None:
    Collector.seen = []
    with serving(Collector) as url:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_SAMPLER_ARG": "1", "LOG_LEVEL": "debug"}
        environment |= {"TRUSTED_PROXIES": "1", "NEW_VOTERS_PER_HOUR": "20"}
        stack = Stack(tmp_path / "data", workers=1, **environment).start()
        try:
            secrets = vote_with_codes(stack) | vote(stack)
            with stack.broker() as broker:
                broker.xadd("votes", {"poll": "default", "voter": BAD, "choice": "a"})
            eventually(stack.drained)
            eventually(lambda: len(stack.rows("SELECT FROM dead_letters")) == 1)
            ((key,),) = stack.rows("SELECT key FROM tracker_keys WHERE poll = 'default'")
            for voter, ms, seq in stack.rows("SELECT voter, entry_ms, entry_seq FROM votes"):
                secrets[f"pseudonym {ms}-{seq}"] = voter.hex()
                secrets[f"tracker {ms}-{seq}"] = tracker_text(tracker(key, EntryId(ms, seq)))
            dead = stack.kill("postgres")  # what services say of an outage must not tell either
            eventually(lambda: stack.pid("postgres") != dead, within=20)
            httpx.post(stack.vote_url, headers={"x-forwarded-for": ADDRESS}, data={"vote": "a"})
            eventually(lambda: stack.rows("SELECT 1") == [(1,)], within=20)
            measured = metrics(stack)
        finally:
            assert stack.stop() == 0
    texts = {log.name: log.read_bytes() for log in (stack.data / "log").iterdir()}
    texts |= {f"metrics of {name}": text.encode() for name, text in measured.items()}
    texts |= {"spans": b"\n".join(Collector.seen), "output": stack.output.read_bytes()}
    assert b"dead" in texts["worker-1.log"]
    assert b"voting_" in texts["metrics of vote"]
    assert b"POST /" in texts["spans"]
    assert len([name for name in secrets if name.startswith("pseudonym")]) > 10
    found = []
    for name, secret in secrets.items():
        forms = [form.encode() for form in seen_forms(secret)]
        if name.startswith(("pseudonym", "id of")):
            forms.append(binascii.unhexlify(secret))
        if name.startswith(("tracker", "code", "typo", "unknown")) or name.endswith("code"):
            forms.append(secret.replace("-", "").encode())
        found += [f"{name} in {where}" for where, text in texts.items() if any(form in text for form in forms)]
    assert found == []
