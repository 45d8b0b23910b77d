"""Settings: where they come from, and what is said of bad ones."""

from pathlib import Path

import pytest

from voting.core import config
from voting.core.definition import Definition


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


def test_old_keys_come_from_a_file_with_their_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# earlier\n{'o' * 32} until 2027-01-31\n{'p' * 32}\n")
    monkeypatch.setenv("SECRET_KEY_OLD_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("SECRET_KEY", "s" * 32)
    monkeypatch.setenv("REDIS_URL", "redis://broker:6379/0")
    assert [each.key[0] for each in config.load(config.VoteSettings).secret_key_old] == ["o", "p"]


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("o" * 31, "SECRET_KEY_OLD: key 1 has 31 characters, and at least 32 are needed"),
        (f"{'o' * 32},{'s' * 32}", "SECRET_KEY_OLD: key 2 is SECRET_KEY itself; list only the other keys"),
    ],
)
def test_an_old_key_that_is_too_short_or_the_one_that_signs_is_refused(
    monkeypatch: pytest.MonkeyPatch, old: str, message: str
) -> None:
    monkeypatch.setenv("SECRET_KEY_OLD", old)
    monkeypatch.setenv("SECRET_KEY", "s" * 32)
    monkeypatch.setenv("REDIS_URL", "redis://broker:6379/0")
    with pytest.raises(config.BadSettings, match=message) as caught:
        config.load(config.VoteSettings)
    assert len(caught.value.problems) == 1


def test_cookies_last_a_year_unless_new_voters_are_limited_or_their_days_are_set() -> None:
    given = {"secret_key": "s" * 32, "redis_url": "redis://broker:6379/0"}
    assert config.VoteSettings.model_validate(given).voter_lifetime == 365
    limited = given | {"new_voters_per_hour": "100"}
    assert config.VoteSettings.model_validate(limited).voter_lifetime == config.LIMITED_VOTER_DAYS == 7
    assert config.VoteSettings.model_validate(limited | {"voter_days": "2"}).voter_lifetime == 2


@pytest.mark.parametrize(
    ("given", "most"),
    [
        ({}, 5000),
        ({"max_viewers": 1000}, 250),
        ({"max_viewers": 1}, 1),
        ({"viewers_per_address": 0}, 0),
        ({"viewers_per_address": 9}, 9),
    ],
)
def test_an_address_has_a_quarter_of_all_viewers_unless_it_is_set(given: dict[str, int], most: int) -> None:
    assert config.ResultSettings(database_url="postgresql://db", **given).most_per_address == most  # type: ignore[arg-type]


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
    ("environment", "definition"),
    [
        ({}, Definition(renames={})),
        ({"POLL_QUESTION": "", "OPTION_A": "Tea", "OPTIONS": ""}, Definition(first="Tea", renames={})),
        ({"OPTIONS": "Red, Gru\u0308n ,Blue"}, Definition(labels=("Red", "Gr\xfcn", "Blue"), renames={})),
        ({"OPTIONS": '["Red, warm", "Blue"]'}, Definition(labels=("Red, warm", "Blue"), renames={})),
        ({"RENAME_OPTIONS": "Redd=Red, Blu = Blue"}, Definition(renames={"Redd": "Red", "Blu": "Blue"})),
    ],
)
def test_the_default_poll_is_what_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], definition: Definition
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert config.load(config.MigrateSettings).definition == definition


@pytest.mark.parametrize(
    "options",
    ["One", ",".join(f"o{n}" for n in range(21)), "Same,SAME", '["a", 1]', '["a"', "a\u202eb,c", "x" * 201 + ",b"],
)
def test_options_must_be_2_to_20_different_ones(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    monkeypatch.setenv("OPTIONS", options)
    with pytest.raises(config.BadSettings, match="OPTIONS"):
        config.load(config.MigrateSettings)


def test_an_address_in_a_log_has_no_password() -> None:
    assert config.redacted("redis://user:secret@broker:6379/0") == "redis://broker:6379/0"
    assert config.redacted("postgresql://u:p@[::1]:5432/voting") == "postgresql://[::1]:5432/voting"
