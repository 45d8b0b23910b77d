"""Settings: where they come from, and what is said of bad ones."""

from pathlib import Path

import pytest

from voting.core import config


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (config.VoteSettings, config.WorkerSettings, config.MigrateSettings, config.ResultSettings):
        for field in settings.model_fields:
            monkeypatch.delenv(field.upper(), raising=False)
            monkeypatch.delenv(f"{field.upper()}_FILE", raising=False)


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s" * 40 + "\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("REDIS_URL", "redis://broker:6379/0")
    assert config.load(config.VoteSettings).secret_key == "s" * 40


def test_every_bad_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "http://broker")
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    monkeypatch.setenv("VOTE_PORT", "eighty")
    monkeypatch.setenv("BALLOT_POLICY", "closed")
    with pytest.raises(config.BadSettings) as caught:
        config.load(config.VoteSettings)
    said = "\n".join(caught.value.problems)
    for name in ("REDIS_URL", "SECRET_KEY", "VOTE_PORT", "BALLOT_POLICY"):
        assert name in said
    assert "hunter2" not in said
    assert len(caught.value.problems) == 4


def test_a_missing_setting_says_both_ways_to_give_it() -> None:
    with pytest.raises(config.BadSettings, match="DATABASE_URL is not set; set DATABASE_URL, or DATABASE_URL_FILE"):
        config.load(config.ResultSettings)


def test_a_file_that_cannot_be_read_is_named_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", "/nowhere/url")
    with pytest.raises(config.BadSettings) as caught:
        config.load(config.ResultSettings)
    assert caught.value.problems == [
        "DATABASE_URL_FILE: /nowhere/url cannot be read: [Errno 2] No such file or directory: '/nowhere/url'"
    ]


def test_an_empty_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(config.BadSettings) as caught:
        config.load(config.ResultSettings)
    assert caught.value.problems == [f"DATABASE_URL_FILE: {tmp_path}/url is empty"]


def test_a_setting_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://x")
    monkeypatch.setenv("DATABASE_URL", "postgresql://y")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(config.BadSettings, match="keep one"):
        config.load(config.ResultSettings)


@pytest.mark.parametrize(
    ("environment", "labels"),
    [
        ({}, ["Cats", "Dogs"]),
        ({"OPTION_A": "Tea", "OPTION_B": "Coffee"}, ["Tea", "Coffee"]),
        ({"OPTIONS": "Red, Green,Blue"}, ["Red", "Green", "Blue"]),
    ],
)
def test_the_default_poll_is_what_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], labels: list[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    poll = config.load(config.MigrateSettings).poll
    assert [option.label for option in poll.options] == labels
    assert [option.key for option in poll.options] == list("abc")[: len(labels)]


@pytest.mark.parametrize("options", ["One", ",".join(f"o{n}" for n in range(21)), "Same,Same"])
def test_options_must_be_2_to_20_different_ones(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    monkeypatch.setenv("OPTIONS", options)
    with pytest.raises(config.BadSettings, match="OPTIONS"):
        config.load(config.MigrateSettings)


def test_an_address_in_a_log_has_no_password() -> None:
    assert config.redacted("redis://user:secret@broker:6379/0") == "redis://broker:6379/0"
    assert config.redacted("postgresql://u:p@[::1]:5432/voting") == "postgresql://[::1]:5432/voting"
