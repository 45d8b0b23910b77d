"""deploy/ec2/template.yaml: clean by two checkers, made at moto where moto can; what else must hold is read off it."""

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.cloudformation import ROOT, TEMPLATE, load, user_data
from tests.deploy.conftest import Aws, Tool
from voting.local.servers import LOG_SETTINGS
from voting.web.connection import KEEP_ALIVE_SECONDS

RESOURCES: dict[str, Any] = load()["Resources"]
HOSTS = {"VoteHost": "vote.example.org", "ResultHost": "result.example.org"}
ADMIN = {"AdminHost": "admin.example.org"}
GITHUB = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = RESOURCES[name]["Properties"]
    return found


def of_type(kind: str) -> dict[str, Any]:
    return {name: each for name, each in RESOURCES.items() if each["Type"] == kind}


def test_cfn_lint_finds_nothing(aws: Aws, tool: Tool) -> None:
    done = aws.run(tool("cfn-lint"), TEMPLATE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_checkov_finds_nothing_but_what_the_template_gives_a_reason_for(aws: Aws, tool: Tool, tmp_path: Path) -> None:
    """Checkov leaves out what a condition excludes, so it is shown a template in which everything is made."""
    everything = tmp_path / "everything.yaml"
    lines = TEMPLATE.read_text().splitlines(keepends=True)
    everything.write_text("".join(line for line in lines if not line.startswith("    Condition: ")))
    done = aws.run(tool("checkov"), "--skip-download", "--framework", "cloudformation", "-f", everything, "-o", "json")
    results = json.loads(done.stdout)["results"]
    assert [f"{each['check_id']} {each['resource']}" for each in results["failed_checks"]] == []
    assert len(results["passed_checks"]) > 70
    skipped = {(each["check_id"], each["resource"].split(".")[1]) for each in results["skipped_checks"]}
    reasons = {
        (skip["id"], name): skip["comment"]
        for name, resource in RESOURCES.items()
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", [])
    }
    assert skipped == set(reasons)  # no reason for what is not found
    assert all(len(reason) > 30 for reason in reasons.values())


_numbers = itertools.count()


def create(aws: Aws, folder: Path, **parameters: str) -> str:
    """Make a stack at moto and return its name; what moto cannot do is left out."""
    template = load()
    del template["Rules"]
    template["Resources"]["Instance"]["Properties"]["ImageId"] = (
        "ami-12c6146b"  # it does not look into launch templates
    )
    del template["Resources"]["RdsInstance"]["Properties"]["DBParameterGroupName"]  # nor know groups by reference
    changed = folder / "template.json"
    changed.write_text(json.dumps(template))
    name = f"voting{next(_numbers)}"
    given = {"Repository": "owner/voting", "SsmPrefix": f"/voting/{name}"} | parameters
    done = aws.run(
        "aws", "cloudformation", "deploy", "--stack-name", name, "--template-file", changed,
        "--capabilities", "CAPABILITY_IAM",
        "--parameter-overrides", *(f"{key}={value}" for key, value in given.items()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return name


_made: dict[str, dict[str, str]] = {}


def resource(aws: Aws, stack: str, name: str) -> str:
    if stack not in _made:
        found = aws("cloudformation", "describe-stack-resources", "--stack-name", stack)["StackResources"]
        known = [each for each in found if "PhysicalResourceId" in each and "LogicalResourceId" in each]
        _made[stack] = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in known}
    return _made[stack][name]


def open_ports(aws: Aws, stack: str, group: str = "InstanceGroup") -> set[tuple[str, int, int, str]]:
    """Protocol, ports, and from where."""
    identity = resource(aws, stack, group)
    found = aws("ec2", "describe-security-groups", "--group-ids", identity)["SecurityGroups"][0]["IpPermissions"]
    return {
        (rule["IpProtocol"], rule["FromPort"], rule["ToPort"], source)
        for rule in found
        for source in [each["CidrIp"] for each in rule["IpRanges"]]
        + [each["GroupId"] for each in rule["UserIdGroupPairs"]]
    }


def parameters(aws: Aws, stack: str) -> dict[str, str]:
    found = aws("ssm", "get-parameters-by-path", "--path", f"/voting/{stack}")["Parameters"]
    return {each["Name"].rsplit("/", 1)[1]: each["Value"] for each in found}


def test_the_plain_stack_opens_the_two_ports_alone_and_keeps_its_data_encrypted(aws: Aws, tmp_path: Path) -> None:
    stack = create(aws, tmp_path, PublicCidr="198.51.100.0/24")
    assert open_ports(aws, stack) == {
        ("tcp", 8080, 8080, "198.51.100.0/24"),
        ("tcp", 8081, 8081, "198.51.100.0/24"),
    }
    assert parameters(aws, stack) == {}
    volume = aws("ec2", "describe-volumes", "--volume-ids", resource(aws, stack, "DataVolume"))["Volumes"][0]
    assert volume["Attachments"][0]["InstanceId"] == resource(aws, stack, "Instance")
    launch = aws(
        "ec2", "describe-launch-template-versions", "--launch-template-id", resource(aws, stack, "Launch"),
        "--versions", "1",
    )["LaunchTemplateVersions"][0]["LaunchTemplateData"]  # fmt: skip
    assert launch["MetadataOptions"]["HttpTokens"] == "required"
    assert launch["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert launch["ImageId"].startswith("resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-")
    assert launch["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    given = base64.b64decode(launch["UserData"]).decode()
    assert "https://github.com/owner/voting/releases/download" in given
    assert f"VOLUME='{resource(aws, stack, 'DataVolume')}'" in given
    assert set(re.findall(r"\$\{.*?\}", given)) <= {"${2:-}", "${Ready}"}  # moto knows no handle of a wait condition


def test_with_host_names_caddy_gets_its_ports_and_settings(aws: Aws, tmp_path: Path) -> None:
    stack = create(aws, tmp_path, **HOSTS, SshCidr="203.0.113.0/24", OperatingSystem="ubuntu", Architecture="amd64")
    assert open_ports(aws, stack) == {
        ("tcp", 80, 80, "0.0.0.0/0"),
        ("tcp", 443, 443, "0.0.0.0/0"),
        ("udp", 443, 443, "0.0.0.0/0"),
        ("tcp", 22, 22, "203.0.113.0/24"),
    }
    assert parameters(aws, stack) == {
        "COMPOSE_PROFILES": "https",
        "VOTE_HOST": "vote.example.org",
        "RESULT_HOST": "result.example.org",
    }


def test_admin_cannot_be_reached_from_outside_unless_it_has_a_host_name(aws: Aws, tmp_path: Path) -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services["admin"]["ports"] == ["${ADMIN_BIND:-127.0.0.1}:${ADMIN_PORT-8082}:${ADMIN_PORT:-8082}"]
    stack = create(aws, tmp_path, **HOSTS, **ADMIN)
    assert {port for _, port, _, _ in open_ports(aws, stack)} == {80, 443}
    assert parameters(aws, stack) == {
        "COMPOSE_PROFILES": "https",
        "VOTE_HOST": "vote.example.org",
        "RESULT_HOST": "result.example.org",
        "ADMIN_HOST": "admin.example.org",
    }
    certificate = aws("acm", "request-certificate", "--domain-name", "vote.example.org")["CertificateArn"]
    stack = create(aws, tmp_path, **HOSTS, **ADMIN, CertificateArn=certificate)
    assert open_ports(aws, stack) == {("tcp", 8080, 8082, resource(aws, stack, "BalancerGroup"))}
    found = parameters(aws, stack)
    assert (found["ADMIN_URL"], found["ADMIN_BIND"]) == ("https://admin.example.org", "0.0.0.0")  # noqa: S104
    rules = aws("elbv2", "describe-rules", "--listener-arn", resource(aws, stack, "HttpsListener"))["Rules"]
    hosts = {
        name: rule["Actions"][0]["TargetGroupArn"]
        for rule in rules
        for condition in rule["Conditions"]
        for name in condition["HostHeaderConfig"]["Values"]
    }
    assert hosts["admin.example.org"] == resource(aws, stack, "AdminTargets")


def test_with_cloudwatch_its_agent_runs_and_may_write_to_its_own_log_group_alone(aws: Aws, tmp_path: Path) -> None:
    stack = create(aws, tmp_path, CloudWatch="true")
    assert parameters(aws, stack) == {"COMPOSE_FILE": "compose.yaml:deploy/cloudwatch/compose.yaml"}
    launch = aws(
        "ec2", "describe-launch-template-versions", "--launch-template-id", resource(aws, stack, "Launch"),
        "--versions", "1",
    )["LaunchTemplateVersions"][0]["LaunchTemplateData"]  # fmt: skip
    assert int(launch["MetadataOptions"]["HttpPutResponseHopLimit"]) == 1  # no container but on the host's network
    overlay = yaml.safe_load((TEMPLATE.parents[1] / "cloudwatch/compose.yaml").read_text())["services"]
    files = [yaml.safe_load((ROOT / "compose.yaml").read_text())["services"], overlay]
    on_host = [name for services in files for name, each in services.items() if each.get("network_mode") == "host"]
    assert on_host == ["cloudwatch"]
    ((_, metrics),) = (each for each in statements() if each[0] == "OwnMetrics")
    agent = json.loads((TEMPLATE.parents[1] / "cloudwatch/agent.json").read_text())
    group = agent["logs"]["metrics_collected"]["prometheus"]["log_group_name"]
    assert all(f":log-group:{group}" in each["Fn::Sub"] for each in metrics["Resource"])


def test_with_a_certificate_and_rds_only_the_balancer_reaches_the_instance_and_only_it_the_database(
    aws: Aws, tmp_path: Path
) -> None:
    certificate = aws("acm", "request-certificate", "--domain-name", "vote.example.org")["CertificateArn"]
    stack = create(
        aws, tmp_path, **HOSTS, CertificateArn=certificate, Database="rds", GitHubOidcProviderArn=GITHUB,
        Image="123456789012.dkr.ecr.eu-central-1.amazonaws.com/voting", EcrRepository="voting",
    )  # fmt: skip
    assert open_ports(aws, stack) == {("tcp", 8080, 8081, resource(aws, stack, "BalancerGroup"))}
    assert open_ports(aws, stack, "DatabaseGroup") == {("tcp", 5432, 5432, resource(aws, stack, "InstanceGroup"))}
    found = parameters(aws, stack)
    host = found.pop("database_host")
    assert found == {
        "VOTE_URL": "https://vote.example.org",
        "RESULT_URL": "https://result.example.org",
        "HTTPS": "true",
        "TRUSTED_PROXIES": "1",
        "COMPOSE_FILE": "compose.yaml:deploy/compose.rds.yaml",
    }
    databases = aws("rds", "describe-db-instances")["DBInstances"]
    database = next(each for each in databases if each["Endpoint"]["Address"] == host)
    assert database["PubliclyAccessible"] is False
    assert database["StorageEncrypted"] is True
    assert database["EngineVersion"] == "18"
    balancers = aws("elbv2", "describe-load-balancers")["LoadBalancers"]
    balancer = next(each for each in balancers if each["VpcId"] == resource(aws, stack, "Vpc"))
    listeners = aws("elbv2", "describe-listeners", "--load-balancer-arn", balancer["LoadBalancerArn"])["Listeners"]
    assert {(each["Port"], each["DefaultActions"][0]["Type"]) for each in listeners} == {
        (443, "forward"),
        (80, "redirect"),
    }
    trust = aws("iam", "get-role", "--role-name", resource(aws, stack, "DeployRole"))["Role"][
        "AssumeRolePolicyDocument"
    ]
    subject = trust["Statement"][0]["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]
    assert subject == "repo:owner/voting:environment:production"


def test_what_holds_data_outlives_the_stack() -> None:
    for name in ("DataVolume", "RdsInstance"):
        assert RESOURCES[name]["DeletionPolicy"] == RESOURCES[name]["UpdateReplacePolicy"] == "Snapshot"
    assert properties("RdsInstance")["DeletionProtection"] is True
    assert properties("RdsInstance")["BackupRetentionPeriod"] == {"Ref": "SnapshotDays"}
    assert properties("DataVolume")["Encrypted"] is True
    assert properties("DataVolume")["VolumeType"] == "gp3"
    assert properties("DailySnapshots")["PolicyDetails"]["TargetTags"][0] in properties("DataVolume")["Tags"]


def test_no_update_of_the_stack_replaces_the_instance_under_its_volume() -> None:
    """Each of these properties replaces an instance when it changes; none depends on a parameter."""
    instance = properties("Instance")
    assert instance["LaunchTemplate"]["Version"] == "1"
    assert "ImageId" not in instance
    assert "UserData" not in instance
    assert instance["NetworkInterfaces"][0]["SubnetId"] == {"Ref": "PublicSubnetA"}


def test_the_database_demands_tls_and_its_password_is_not_in_the_template() -> None:
    assert properties("DatabaseParameters")["Parameters"]["rds.force_ssl"] == "1"
    assert properties("DatabaseParameters")["Parameters"]["synchronous_commit"] == "on"
    assert "resolve:secretsmanager" in str(properties("RdsInstance")["MasterUserPassword"])
    made = properties("DatabasePassword")["GenerateSecretString"]
    assert made["ExcludePunctuation"] is True  # `voting secrets` takes letters and digits
    assert made["PasswordLength"] >= 32


def test_no_log_holds_a_vote_and_every_log_group_of_the_template_has_an_end() -> None:
    parameters = properties("DatabaseParameters")["Parameters"]
    database = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["db"]["command"]
    for name, value in LOG_SETTINGS.items():
        assert parameters[name] == value
        assert f" -c {name}={value}" in database
    assert parameters["log_parameter_max_length_on_error"] == "0"
    assert all(each["Properties"]["RetentionInDays"] <= 30 for each in of_type("AWS::Logs::LogGroup").values())
    exported = properties("RdsInstance")["EnableCloudwatchLogsExports"]
    identifier = properties("RdsInstance")["DBInstanceIdentifier"]["Fn::Sub"]
    groups = [each["Properties"]["LogGroupName"]["Fn::Sub"] for each in of_type("AWS::Logs::LogGroup").values()]
    assert groups == [f"/aws/rds/instance/{identifier}/{log}" for log in exported]
    assert RESOURCES["RdsInstance"]["DependsOn"] == "DatabaseLog"  # or RDS makes it, without an end


def test_each_hop_keeps_an_idle_connection_longer_than_the_one_before_it() -> None:
    attributes = {each["Key"]: each["Value"] for each in properties("Balancer")["LoadBalancerAttributes"]}
    balancer = int(attributes["idle_timeout.timeout_seconds"])
    caddyfile = (ROOT / "deploy/caddy/Caddyfile").read_text()
    ((idle, keepalive),) = re.findall(r"\bidle (\d+)s\b.*\bkeepalive (\d+)s\b", caddyfile, re.DOTALL)
    assert balancer < int(idle)
    assert balancer < KEEP_ALIVE_SECONDS
    assert int(keepalive) < KEEP_ALIVE_SECONDS


def statements() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, each in RESOURCES.items():
        given = each.get("Properties", {})
        documents = [given.get("PolicyDocument", {})]
        documents += [policy["PolicyDocument"] for policy in given.get("Policies", [])]
        found += [(name, statement) for document in documents for statement in document.get("Statement", [])]
    return found


def test_no_right_is_wider_than_its_use() -> None:
    on_everything = set()
    for _, statement in statements():
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        if statement.get("Resource") == "*":
            on_everything |= set(actions)
    assert on_everything == {"ecr:GetAuthorizationToken", "ssm:GetCommandInvocation"}  # neither takes a resource
    managed = [arn["Fn::Sub"].rsplit("/", 1)[1] for arn in properties("InstanceRole")["ManagedPolicyArns"]]
    assert managed == ["AmazonSSMManagedInstanceCore"]
    denied = next(each for name, each in statements() if name == "OwnSettings" and each["Effect"] == "Deny")
    assert all("${SsmPrefix}" in each["Fn::Sub"] for each in denied["NotResource"])


@pytest.mark.parametrize("name", of_type("AWS::SSM::Parameter"))
def test_every_setting_is_there_before_the_instance_reads_it(name: str) -> None:
    _, own = properties("Launch")["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"]
    references = str(own["Settings"])
    assert f"{{'Ref': '{name}'}}" in references
    assert f"['{RESOURCES[name]['Condition']}', {{'Ref': '{name}'}}" in references


def test_user_data_fits_even_with_the_longest_values() -> None:
    longest = dict.fromkeys(load()["Parameters"], "x" * 250) | {"Ready": "x" * 700, "DatabaseSecret": "x" * 200}
    assert len(user_data(**longest)) < 16 * 1024


def test_the_deployment_document_takes_nothing_that_a_shell_would_read_as_more() -> None:
    content = properties("Deploy")["Content"]
    for name, parameter in content["parameters"].items():
        assert parameter["allowedPattern"].startswith("^")
        assert parameter["allowedPattern"].endswith("$")
        assert "'{{ " + name + " }}'" in " ".join(content["mainSteps"][0]["inputs"]["runCommand"])
