"""deploy/ec2/settings.py: the instance's settings from Parameter Store, as Compose then reads them."""

import ast
import importlib.util
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy.conftest import Aws
from tests.e2e.compose import ROOT

SCRIPT = ROOT / "deploy" / "ec2" / "settings.py"
PREFIX = "/voting/test"
VALUES = {
    "POLL_QUESTION": 'It\'s $HOME, `or` \\ "not"?',
    "OPTION_A": "Yes \\",
    "OPTION_B": "Été #1 = ${UNSET:-x}",
    "RESULT_URL": "https://result.example.org",
}


@pytest.fixture
def settings(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with the command line that it calls, and files for a group that this user is in."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    specification = importlib.util.spec_from_file_location("settings", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "READER", os.getgid())
    return module


@pytest.fixture
def parameters(aws: Aws) -> None:
    """Settings, a secret, and what belongs to somebody else."""
    for name, value in VALUES.items():
        store(aws, f"{PREFIX}/{name}", value)
    store(aws, "/other/SECRET", "x")
    store(aws, f"{PREFIX}/secret_key", "k" * 40, kind="SecureString")


def store(aws: Aws, name: str, value: str, kind: str = "String") -> None:
    aws.ssm("PutParameter", Name=name, Value=value, Type=kind, Overwrite=True)


def installation(folder: Path, **facts: str) -> Path:
    known = {"AWS_REGION": "eu-central-1", "SSM_PREFIX": PREFIX, "IMAGE": "", "DATABASE_SECRET": ""} | facts
    file = folder / "installation"
    file.write_text("".join(f"{name}='{value}' # said\n" for name, value in known.items()))
    return file


def release(folder: Path) -> Path:
    made = folder / "releases" / "1.2.3"
    made.mkdir(parents=True, exist_ok=True)
    (folder / "current").unlink(missing_ok=True)
    (folder / "current").symlink_to(made)
    return folder / "current"


def as_compose_reads(folder: Path, names: list[str]) -> dict[str, str]:
    environment = {name: f"${{{name}}}" for name in names}
    (folder / "compose.yaml").write_text(json.dumps({"services": {"x": {"image": "x", "environment": environment}}}))
    command = ["docker", "compose", "--project-directory", str(folder), "-f", str(folder / "compose.yaml"), "config"]
    bare = {"PATH": os.environ["PATH"], "HOME": str(folder)}  # noqa: TID251 - Compose lets the environment win
    said = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=True, env=bare).stdout
    read: dict[str, str] = json.loads(said)["services"]["x"]["environment"]
    return {name: value.replace("$$", "$") for name, value in read.items()}  # as it writes a literal $


@pytest.mark.usefixtures("engine", "parameters")
def test_compose_reads_every_value_as_it_was_stored_and_secrets_are_files(settings: ModuleType, tmp_path: Path) -> None:
    current = release(tmp_path)
    settings.main(current, installation(tmp_path, IMAGE="ghcr.io/owner/voting"), tmp_path)
    expected = VALUES | {"VOTING_VERSION": "1.2.3", "VOTING_IMAGE": "ghcr.io/owner/voting"}
    expected |= {"SECRETS_DIR": str(tmp_path / "secrets")}
    assert as_compose_reads(current, list(expected)) == expected
    written = (current / ".env").read_text()
    assert "k" * 40 not in written
    assert "/other" not in written
    secret = tmp_path / "secrets" / "secret_key"
    assert secret.read_text() == "k" * 40
    for private in (current / ".env", secret, secret.parent):
        assert private.stat().st_mode & 0o027 == 0, private


@pytest.mark.usefixtures("parameters")
def test_a_secret_that_is_taken_out_of_the_store_goes_from_the_instance(
    aws: Aws, settings: ModuleType, tmp_path: Path
) -> None:
    settings.main(release(tmp_path), installation(tmp_path), tmp_path)
    aws.ssm("DeleteParameter", Name=f"{PREFIX}/secret_key")
    settings.main(release(tmp_path), installation(tmp_path), tmp_path)
    assert list((tmp_path / "secrets").iterdir()) == []


@pytest.mark.usefixtures("parameters")
def test_a_database_in_rds_has_its_password_from_secrets_manager_and_its_certificates(
    aws: Aws, settings: ModuleType, tmp_path: Path
) -> None:
    authority = tmp_path / "authority.pem"
    authority.write_text("certificates")
    value = json.dumps({"username": "voting", "password": "p" * 48})
    secret = aws("secretsmanager", "create-secret", "--name", f"db-{tmp_path.name}", "--secret-string", value)["ARN"]
    store(aws, f"{PREFIX}/database_host", "db.example.org")
    try:
        facts = installation(tmp_path, DATABASE_SECRET=secret, DATABASE_CA=authority.as_uri())
        settings.main(release(tmp_path), facts, tmp_path)
    finally:
        aws.ssm("DeleteParameter", Name=f"{PREFIX}/database_host")
    found = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert found == {
        "secret_key": "k" * 40,
        "postgres_password": "p" * 48,
        "database_host": "db.example.org",
        "database_ca.pem": "certificates",
    }


@pytest.mark.usefixtures("parameters")
@pytest.mark.parametrize(("name", "value"), [("Mixed", "x"), ("POLL_QUESTION", "two\nlines")])
def test_what_cannot_be_a_setting_is_named_and_nothing_is_written(
    aws: Aws, settings: ModuleType, tmp_path: Path, name: str, value: str
) -> None:
    store(aws, f"{PREFIX}/{name}", value)
    try:
        with pytest.raises(settings.Failed, match=name):
            settings.main(release(tmp_path), installation(tmp_path), tmp_path)
    finally:
        aws.ssm("DeleteParameter", Name=f"{PREFIX}/{name}")
    assert not (tmp_path / "current" / ".env").exists()


@pytest.mark.usefixtures("parameters")
def test_a_denied_read_names_the_right_that_is_missing_and_the_last_settings_stay(
    aws: Aws, settings: ModuleType, tmp_path: Path
) -> None:
    settings.main(release(tmp_path), installation(tmp_path), tmp_path)
    before = (tmp_path / "current" / ".env").read_text()
    aws.allow(requests=0)
    try:
        with pytest.raises(settings.Failed, match=f"needs the permission ssm:GetParametersByPath on {PREFIX}"):
            settings.main(release(tmp_path), installation(tmp_path), tmp_path)
    finally:
        aws.allow(requests=1_000_000)
    assert (tmp_path / "current" / ".env").read_text() == before


def test_it_runs_with_the_python_of_amazon_linux() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
