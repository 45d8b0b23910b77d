"""The files for the CloudWatch agent, which itself does not run here."""

import json
import re

import yaml
from prometheus_client import CollectorRegistry

from tests.e2e.compose import ROOT
from voting.admin.metrics import AdminMetrics
from voting.operate.certificate import CertificateMetrics
from voting.result.metrics import ResultMetrics
from voting.vote.metrics import VoteMetrics
from voting.worker.metrics import WorkerMetrics

FOLDER = ROOT / "deploy/cloudwatch"
PROMETHEUS = json.loads((FOLDER / "agent.json").read_text())["logs"]["metrics_collected"]["prometheus"]
DECLARATIONS = PROMETHEUS["emf_processor"]["metric_declaration"]
EVERY = {
    "vote": VoteMetrics,
    "worker": WorkerMetrics,
    "result": ResultMetrics,
    "admin": AdminMetrics,
    "certificate": CertificateMetrics,
}


def test_each_metric_that_it_sends_is_one_of_that_service_and_of_a_type_that_it_can_send() -> None:
    assert {each["label_matcher"].strip("^$") for each in DECLARATIONS} == set(EVERY)
    for each in DECLARATIONS:
        registry = CollectorRegistry()
        EVERY[each["label_matcher"].strip("^$")](registry)
        families = list(registry.collect())
        # histograms are dropped: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/ContainerInsights-Prometheus-metrics-conversion.html
        names = {f.name + ("_total" if f.type == "counter" else "") for f in families if f.type in {"counter", "gauge"}}
        for selector in each["metric_selectors"]:
            assert [name for name in names if re.fullmatch(selector, name)], selector


def test_dimensions_are_labels_that_the_metrics_have() -> None:
    labels = {"job", "reason", "host"}
    for each in DECLARATIONS:
        assert each["source_labels"] == ["job"]
        for dimensions in each["dimensions"]:
            assert set(dimensions) <= labels


def test_it_reads_every_service_at_its_private_port() -> None:
    text = (FOLDER / "prometheus.yml").read_text()
    jobs = re.findall(r"job_name: (\w+)\n +file_sd_configs: \[{ files: \[/targets/(\w+).json\], refresh", text)
    assert jobs == [(name, name) for name in EVERY]
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert services["cloudwatch-targets"]["entrypoint"][3:] == list(EVERY)


def test_the_files_are_where_the_agent_looks_for_them() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert f"./deploy/cloudwatch/prometheus.yml:{PROMETHEUS['prometheus_config_path']}:ro" in text
    assert "./deploy/cloudwatch/agent.json:/etc/cwagentconfig/" in text
