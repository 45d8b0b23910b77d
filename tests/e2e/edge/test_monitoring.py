"""Prometheus with a running stack: each query of dashboard and alerts has data."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.compose import ROOT, Compose, docker, inspect
from tests.e2e.edge.conftest import ADMIN, RESULT, VOTE, Edge
from tests.e2e.edge.test_https import open_viewer
from tests.e2e.load import LoadGenerator
from tests.waiting import eventually

DASHBOARD = ROOT / "monitoring/grafana/dashboards/voting.json"
RUNBOOKS = ROOT / "docs/runbooks.md"
SERIES = re.compile(r"\b(?:voting|caddy|process)_\w+|\bup\b")


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that show data."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


QUERIES = sorted({target["expr"] for panel in panels() for target in panel["targets"]})


@pytest.fixture(scope="module")
def loaded(edge: Edge) -> Iterator[Edge]:
    """The stack under load: voters, a viewer, and a host who has made a poll."""
    stop = threading.Event()
    key = edge.execute("admin", "cat", "/run/secrets/admin_key").strip()
    with edge.client(ADMIN) as host:
        made = host.post(
            "/api/polls", json={"question": "?", "options": ["A", "B"]}, headers={"authorization": f"Bearer {key}"}
        )
        assert made.status_code == 201, made.text

    def watch() -> None:
        with edge.client(RESULT) as client, open_viewer(edge) as viewer:
            while not stop.is_set():
                client.get("/")
                viewer.recv(timeout=30)

    watching = threading.Thread(target=watch)
    watching.start()
    with LoadGenerator(f"https://{VOTE}", 3, edge.voter).running() as load:
        load.wait_for_votes(100)
        yield edge
        stop.set()
        watching.join()


def test_every_replica_of_every_service_is_watched(loaded: Edge) -> None:
    def watched() -> dict[str, float]:
        return {labels["job"]: value for labels, value in loaded.query("sum by (job) (up)")}

    expected = {"vote": 3, "result": 2, "worker": 1, "admin": 1, "caddy": 1, "certificate": 1, "prometheus": 1}
    eventually(lambda: watched() == expected, within=90)


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_of_the_dashboard_has_an_answer(loaded: Edge, query: str) -> None:
    def answer() -> list[float]:
        return [value for _, value in loaded.query(query) if value == value]  # noqa: PLR0124 - not a number is no answer

    assert eventually(answer, within=60, every=1)
    names = set(SERIES.findall(query))
    assert names or "ALERTS" in query
    assert names <= loaded.series()


def test_each_alert_asks_for_series_that_there_are(loaded: Edge) -> None:
    held = loaded.series()
    rules = loaded.rules()
    assert len(rules) >= 12
    for rule in rules:
        names = set(SERIES.findall(rule["query"]))
        assert names, rule["name"]
        assert names <= held, rule["name"]


def test_each_alert_leads_to_its_runbook(loaded: Edge) -> None:
    headings = {
        line.removeprefix("## ").strip() for line in RUNBOOKS.read_text().splitlines() if line.startswith("## ")
    }
    for rule in loaded.rules():
        annotations: Any = rule["annotations"]
        page, _, anchor = annotations["runbook_url"].partition("#")
        assert (ROOT / page) == RUNBOOKS
        assert anchor == rule["name"].lower()
        assert rule["name"] in headings


def test_numbers_are_those_of_the_stack(loaded: Edge) -> None:
    accepted = sum(loaded.metrics(container)["voting_votes_accepted_total"] for container in loaded.containers("vote"))
    eventually(lambda: loaded.query("sum(voting_votes_accepted_total)")[0][1] >= accepted, within=30)
    assert loaded.query("sum(voting_viewers)")[0][1] == 1
    lasts = loaded.query("voting_certificate_not_after_timestamp_seconds - time()")
    assert {labels["host"] for labels, _ in lasts} == {VOTE, RESULT, ADMIN}
    assert all(3600 < seconds < 24 * 3600 for _, seconds in lasts)  # Caddy's own authority gives twelve hours


MALFORMED = """
import redis, pathlib
client = redis.Redis.from_url(pathlib.Path('/run/secrets/redis_url').read_text())
client.xadd('votes', {'x': 'y'})
"""


def test_nothing_fires_while_all_is_well_and_a_malformed_entry_does(loaded: Edge) -> None:
    eventually(lambda: not loaded.alerts(), within=90, every=1)
    loaded.python("vote", MALFORMED)
    eventually(lambda: loaded.alerts().get("DeadLetters") == "firing", within=60, every=1)


def test_without_a_worker_an_alert_is_on_its_way(loaded: Edge) -> None:
    worker = loaded.containers("worker")[0]
    docker("stop", worker)
    try:
        eventually(lambda: "ServiceMissing" in loaded.alerts(), within=90, every=1)
    finally:
        docker("start", worker)


def test_prometheus_is_for_this_machine_alone(edge: Edge) -> None:
    bindings = json.loads(inspect(edge.containers("prometheus")[0], "{{json .HostConfig.PortBindings}}"))
    assert [binding["HostIp"] for ports in bindings.values() for binding in ports] == ["127.0.0.1"]


PROMTOOL = ["run", "--rm", "--entrypoint", "sh", "-v", f"{ROOT}/monitoring/prometheus:/rules:ro", "-w", "/rules"]


@pytest.mark.usefixtures("engine")
def test_rules_and_their_own_tests_pass() -> None:
    image = "prom/prometheus:v3.5.0"
    command = (
        "promtool check config prometheus.yml && promtool test rules alerts.test.yml"  # the first checks rules too
    )
    assert docker(*PROMTOOL, image, "-c", command).count("SUCCESS") == 4


@pytest.mark.usefixtures("engine")
def test_prometheus_would_take_what_the_cloudwatch_agent_is_given() -> None:
    command = ["run", "--rm", "--entrypoint", "promtool", "-v", f"{ROOT}/deploy/cloudwatch:/cloudwatch:ro"]
    assert "SUCCESS" in docker(*command, "prom/prometheus:v3.5.0", "check", "config", "/cloudwatch/prometheus.yml")
    Compose("voting-check").run("-f", "compose.yaml", "-f", "deploy/cloudwatch/compose.yaml", "config", "-q")


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    folder = ROOT / "monitoring/prometheus"
    alerts = re.findall(r"- alert: (\w+)", (folder / "alerts.yml").read_text())
    cases = (folder / "alerts.test.yml").read_text()
    for alert in alerts:
        assert re.search(rf"alertname: {alert}\n +exp_alerts:", cases), alert
        assert re.search(rf"alertname: {alert} }}", cases), alert


@pytest.fixture
def grafana(engine: None) -> dict[str, Any]:  # noqa: ARG001
    config = json.loads(Compose("voting-check").run("--profile", "monitoring", "config", "--format", "json"))
    service: dict[str, Any] = config["services"]["grafana"]
    return service


def test_grafana_has_a_random_password_no_guests_and_no_way_to_the_stores(grafana: dict[str, Any]) -> None:
    environment = grafana["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/admin_password"  # noqa: S105
    assert "GF_SECURITY_ADMIN_PASSWORD" not in environment
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert [port["host_ip"] for port in grafana["ports"]] == ["127.0.0.1"]
    assert list(grafana["networks"]) == ["watch-tier"]
    assert grafana["read_only"] is True
    assert grafana["cap_drop"] == ["ALL"]


def test_grafana_is_given_the_dashboard_and_the_source_that_it_names(grafana: dict[str, Any]) -> None:
    mounts = {mount["target"]: Path(mount["source"]) for mount in grafana["volumes"] if mount["type"] == "bind"}
    provisioning = mounts["/etc/grafana/provisioning"]
    assert (
        f"path: {next(target for target in mounts if mounts[target] == DASHBOARD.parent)}"
        in (provisioning / "dashboards/voting.yaml").read_text()
    )
    source = (provisioning / "datasources/prometheus.yaml").read_text()
    assert "url: http://prometheus:9090\n" in source
    uids = {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    assert all(f"uid: {uid}\n" in source for uid in uids)
    assert (
        grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        == f"/etc/grafana/dashboards/{DASHBOARD.name}"
    )


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert titles[:3] == ["Are votes flowing?", "How fresh is the result?", "What is broken?"]
