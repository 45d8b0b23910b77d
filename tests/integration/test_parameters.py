"""Settings from Parameter Store: a moto server stands for AWS, and a responder for the errors that moto cannot make."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from tests.e2e.stack import free_port, listening
from tests.http_server import Handler, serving
from voting.settings import parameters
from voting.settings.services import MigrateSettings, ProbeSettings, ResultSettings, VoteSettings
from voting.settings.sources import BadSettings, load

PREFIX = "/voting/prod"
URL = "postgresql://voting:first@db/voting"


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):  # noqa: TID251
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("SSM_PREFIX", PREFIX)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a moto server."""
    port = free_port()
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with listening(command, port, stdout=log, stderr=log):
            yield f"http://127.0.0.1:{port}"


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An account with nothing in it."""
    httpx.post(f"{moto}/moto-api/reset", timeout=60)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    return moto


def put(name: str, value: str, kind: str = "String") -> None:
    boto3.client("ssm").put_parameter(Name=f"{PREFIX}/{name}", Value=value, Type=kind, Overwrite=True)


@pytest.mark.usefixtures("aws")
def test_every_setting_of_a_service_may_live_there_and_secure_strings_are_decrypted() -> None:
    put("SECRET_KEY", "s" * 40, "SecureString")
    put("REDIS_URL", "rediss://vote:word@broker:6379/0", "SecureString")
    given = {"RATE_LIMIT": "7", "NEW_VOTERS_PER_HOUR": "9", "HTTPS": "true", "VOTE_URL": "https://vote.example.org"}
    for name, value in given.items():
        put(name, value)
    settings = load(VoteSettings)
    assert (settings.secret_key, settings.redis_url) == ("s" * 40, "rediss://vote:word@broker:6379/0")
    assert (settings.rate_limit, settings.new_voters_per_hour, settings.https) == (7, 9, True)
    assert settings.vote_url == "https://vote.example.org"
    assert settings.vote_port == 8080


@pytest.mark.usefixtures("aws")
def test_the_environment_comes_first_then_the_file_then_the_parameter_then_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DATABASE_URL", "OPTION_A", "OPTION_B", "POLL_QUESTION"):
        put(name, "postgresql://parameter")
    (tmp_path / "option").write_text("file")
    monkeypatch.setenv("DATABASE_URL", "postgresql://environment")
    monkeypatch.setenv("OPTION_A_FILE", str(tmp_path / "option"))
    monkeypatch.setenv("OPTION_B", "")  # as compose passes on what is not set
    settings = load(MigrateSettings)
    assert settings.database_url == "postgresql://environment"
    assert settings.option_a == "file"
    assert settings.option_b == settings.poll_question == "postgresql://parameter"
    assert settings.options == ()


@pytest.mark.usefixtures("aws")
def test_a_missing_parameter_is_named_with_its_path() -> None:
    with pytest.raises(BadSettings) as caught:
        load(ResultSettings)
    assert caught.value.problems == [
        (
            "DATABASE_URL is not set; set DATABASE_URL, DATABASE_URL_FILE to a file that holds it, "
            "or the parameter /voting/prod/DATABASE_URL"
        )
    ]


def test_a_denied_parameter_is_named_with_the_permission_that_mends_it(
    aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("DATABASE_URL", URL)
    iam = boto3.client("iam")
    iam.create_user(UserName="result")
    key = iam.create_access_key(UserName="result")["AccessKey"]
    httpx.post(f"{aws}/moto-api/reset-auth", content=b"0", timeout=60)
    try:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        with pytest.raises(BadSettings) as caught:
            load(ResultSettings)
    finally:
        httpx.post(f"{aws}/moto-api/reset-auth", content=b"inf", timeout=60)
    (problem, *_) = caught.value.problems
    assert "may not be read" in problem
    assert "allow the role ssm:GetParameters on arn:aws:ssm:*:*:parameter/voting/prod/*" in problem
    assert all("is not set" not in each for each in caught.value.problems)


@pytest.mark.usefixtures("aws")
def test_a_rotated_parameter_is_read_again_and_the_last_value_stays_while_there_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put("DATABASE_URL", URL, "SecureString")
    settings = load(ResultSettings)
    second = URL.replace("first", "second")
    put("DATABASE_URL", second, "SecureString")
    assert asyncio.run(settings.reread("database_url")) == URL  # read a moment ago
    monkeypatch.setattr(parameters, "CACHE_SECONDS", 0)
    monkeypatch.setattr("voting.settings.sources.REREAD_SECONDS", 10)
    assert asyncio.run(settings.reread("database_url")) == second
    put("DATABASE_URL", "not an address")
    assert asyncio.run(settings.reread("database_url")) == second
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert asyncio.run(settings.reread("database_url")) == second


class Responder:
    """Answers every request with one error, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: tuple[int, dict[str, Any]] = 200, {"Parameters": [], "InvalidParameters": []}


@pytest.fixture
def responder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Responder]:
    made = Responder()

    class Answer(Handler):
        def answer(self) -> None:
            made.asked.append(json.loads(self.body()))
            status, content = made.answer
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/x-amz-json-1.1")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield made


@pytest.mark.parametrize(
    ("kind", "message", "fix"),
    [
        (
            "AccessDeniedException",
            "User: x is not authorized to perform: kms:Decrypt on resource: y",
            "allow the role kms:Decrypt on the key",
        ),
        (
            "AccessDeniedException",
            "The ciphertext refers to a customer master key that does not exist, or you are not allowed to access.",
            "allow the role kms:Decrypt on the key",
        ),
        (
            "AccessDeniedException",
            "User: x is not authorized to perform: ssm:GetParameters on resource: y",
            "allow the role ssm:GetParameters on arn:aws:ssm:*:*:parameter/voting/prod/*",
        ),
        ("ThrottlingException", "Rate exceeded", "raise its limit, or start fewer at once"),
        ("ExpiredTokenException", "The security token included in the request is expired", "renew them"),
    ],
)
def test_every_refusal_is_told_with_its_fix(responder: Responder, kind: str, message: str, fix: str) -> None:
    responder.answer = 400, {"__type": kind, "message": message}
    with pytest.raises(parameters.Unavailable) as caught:
        parameters.Parameters(PREFIX).read(["DATABASE_URL"])
    assert message in str(caught.value)
    assert fix in str(caught.value)


def test_only_what_the_service_needs_and_has_not_is_asked_for_ten_at_a_time(
    responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    load(ResultSettings)
    names = [name.removeprefix(f"{PREFIX}/") for request in responder.asked for name in request["Names"]]
    assert max(len(request["Names"]) for request in responder.asked) == 10
    assert all(request["WithDecryption"] for request in responder.asked)
    assert set(names) == {name.upper() for name in ResultSettings.model_fields} - {
        "DATABASE_URL",
        "METRICS_LISTEN",
    }
    assert "SECRET_KEY" not in names


def test_a_health_check_asks_for_nothing(responder: Responder) -> None:
    load(ProbeSettings)
    assert responder.asked == []


def test_what_boto3_lacks_is_said_with_the_setting_that_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> str:
        with pytest.raises(BadSettings) as caught:
            load(ResultSettings)
        return str(caught.value)

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in said()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "give the instance a role" in said()
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "set AWS_DEFAULT_REGION" in said()
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "install voting[cloud], or build the image with LOCK=cloud" in said()


def test_without_a_prefix_boto3_is_not_even_imported() -> None:
    program = (
        "import sys; from voting.settings import services, sources; sources.load(services.ResultSettings); "
        "assert 'boto3' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SSM_PREFIX"}  # noqa: TID251
    subprocess.run([sys.executable, "-c", program], env=environment | {"DATABASE_URL": URL}, check=True)
