"""Settings: their sources, and the messages about invalid ones."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.database.definition import Definition
from voting.operate.migrate import definition_of
from voting.settings.services import (
    MigrateSettings,
    ResultSettings,
    VoteSettings,
    WorkerSettings,
)
from voting.settings.sources import BadSettings, load
from voting.settings.urls import redacted
from voting.settings.voters import LIMITED_VOTER_DAYS


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (VoteSettings, WorkerSettings, MigrateSettings, ResultSettings):
        for field in settings.model_fields:
            monkeypatch.delenv(field.upper(), raising=False)
            monkeypatch.delenv(f"{field.upper()}_FILE", raising=False)


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s" * 40 + "\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("REDIS_URL", "redis://broker:6379/0")
    assert load(VoteSettings).secret_key == "s" * 40


def test_every_bad_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "http://broker")
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    monkeypatch.setenv("VOTE_PORT", "eighty")
    monkeypatch.setenv("BALLOT_POLICY", "closed")
    with pytest.raises(BadSettings) as caught:
        load(VoteSettings)
    message = "\n".join(caught.value.problems)
    for name in ("REDIS_URL", "SECRET_KEY", "VOTE_PORT", "BALLOT_POLICY"):
        assert name in message
    assert "hunter2" not in message
    assert len(caught.value.problems) == 4


def test_old_keys_come_from_a_file_with_their_dates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# earlier\n{'o' * 32} until 2027-01-31\n{'p' * 32}\n")
    monkeypatch.setenv("SECRET_KEY_OLD_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("SECRET_KEY", "s" * 32)
    monkeypatch.setenv("REDIS_URL", "redis://broker:6379/0")
    assert [each.key[0] for each in load(VoteSettings).secret_key_old] == ["o", "p"]


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("o" * 31, "SECRET_KEY_OLD: key 1 has 31 characters, and at least 32 are needed"),
        (f"{'o' * 32},{'s' * 32}", "SECRET_KEY_OLD: key 2 is SECRET_KEY itself; list only the other keys"),
    ],
)
def test_an_old_key_that_is_too_short_or_is_the_signing_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, old: str, message: str
) -> None:
    monkeypatch.setenv("SECRET_KEY_OLD", old)
    monkeypatch.setenv("SECRET_KEY", "s" * 32)
    monkeypatch.setenv("REDIS_URL", "redis://broker:6379/0")
    with pytest.raises(BadSettings, match=message) as caught:
        load(VoteSettings)
    assert len(caught.value.problems) == 1


def test_cookies_last_a_year_unless_new_voters_are_limited_or_their_days_are_set() -> None:
    given = {"secret_key": "s" * 32, "redis_url": "redis://broker:6379/0"}
    assert VoteSettings.model_validate(given).cookie_days == 365
    limited = given | {"new_voters_per_hour": "100"}
    assert VoteSettings.model_validate(limited).cookie_days == LIMITED_VOTER_DAYS == 7
    assert VoteSettings.model_validate(limited | {"voter_days": "2"}).cookie_days == 2


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
    assert ResultSettings(database_url="postgresql://db", **given).max_viewers_per_address == most  # type: ignore[arg-type]


def test_a_missing_setting_says_both_ways_to_give_it() -> None:
    with pytest.raises(BadSettings, match="DATABASE_URL is not set; set DATABASE_URL, or DATABASE_URL_FILE"):
        load(ResultSettings)


def test_a_file_that_cannot_be_read_is_named_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", "/nowhere/url")
    with pytest.raises(BadSettings) as caught:
        load(ResultSettings)
    assert caught.value.problems == [
        "DATABASE_URL_FILE: /nowhere/url cannot be read: [Errno 2] No such file or directory: '/nowhere/url'"
    ]


def test_an_empty_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(BadSettings) as caught:
        load(ResultSettings)
    assert caught.value.problems == [f"DATABASE_URL_FILE: {tmp_path}/url is empty"]


def test_a_setting_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://x")
    monkeypatch.setenv("DATABASE_URL", "postgresql://y")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(BadSettings, match="keep one"):
        load(ResultSettings)


@pytest.mark.parametrize(
    ("environment", "definition"),
    [
        ({}, Definition()),
        ({"POLL_QUESTION": "", "OPTION_A": "Tea", "OPTIONS": ""}, Definition(first="Tea")),
        ({"OPTIONS": "Red, Gru\u0308n ,Blue"}, Definition(labels=("Red", "Gr\xfcn", "Blue"))),
        ({"OPTIONS": '["Red, warm", "Blue"]'}, Definition(labels=("Red, warm", "Blue"))),
        ({"RENAME_OPTIONS": "Redd=Red, blue = Blue"}, Definition(renames={"Redd": "Red", "blue": "Blue"})),
        ({"RENAME_OPTIONS": '["1+1=2=two"]'}, Definition(renames={"1+1": "2=two"})),
    ],
)
def test_the_settings_define_the_default_poll(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], definition: Definition
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert definition_of(load(MigrateSettings)) == definition


def assert_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=name):
        load(MigrateSettings)


@pytest.mark.parametrize("renames", ["Red", "Red=", "=Red", "A=B,B=A", "A=B,C=a", '[["A", "B"]]', "[[" * 9999])
def test_renames_that_are_not_pairs_or_would_be_made_again_at_each_start_are_refused(
    monkeypatch: pytest.MonkeyPatch, renames: str
) -> None:
    assert_refused(monkeypatch, "RENAME_OPTIONS", renames)


@pytest.mark.parametrize(
    "options",
    [
        "One",
        ",".join(f"o{n}" for n in range(21)),
        "Same,SAME",
        "Stra\xdfe,STRASSE",
        "A,A\u200b",
        "\u200b,A",
        '["a", 1]',
        '["a"',
        "a\u202eb,c",
        "x" * 201 + ",b",
    ],
)
def test_options_that_are_not_2_to_20_different_labels_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    assert_refused(monkeypatch, "OPTIONS", options)


@pytest.mark.parametrize("url", ["redis://[::1", "redis://broker:port", "redis://broker:99999", "rediss://a:1,b:2"])
def test_a_broker_url_with_an_invalid_host_or_port_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("SECRET_KEY", "k" * 40)
    with pytest.raises(BadSettings) as caught:
        load(VoteSettings)
    assert caught.value.problems == ["REDIS_URL: expected one host and, if any, a port from 0 to 65535"]


@pytest.mark.parametrize("url", ["https://vote.example.org:99999", "https://user:secret@vote.example.org"])
def test_an_invalid_public_url_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("VOTE_URL", url)
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    with pytest.raises(BadSettings) as caught:
        load(ResultSettings)
    assert "VOTE_URL: " in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@broker:6379/0", "redis://broker:6379/0"),
        ("postgresql://u:p@[::1]:5432/voting", "postgresql://[::1]:5432/voting"),
        ("postgresql://u:p@one:5432,two:5433,[::1]/voting?password=p", "postgresql://one:5432,two:5433,[::1]/voting"),
        ("postgresql://voting@/voting?host=/run/postgres", "postgresql:///voting"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("postgresql://user:12/34@host/voting", "postgresql://..."),
        ("host=db password=secret", "..."),
    ],
)
def test_a_url_in_a_log_has_no_user_and_no_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(st.text(max_size=200), st.sampled_from(["", "redis://", "postgresql://u:p@", "unix://"]))
def test_any_url_can_be_logged(text: str, start: str) -> None:
    redacted(start + text)


PART = st.text(alphabet=st.sampled_from("ab1:/?#[]@,%& =.\n"), max_size=8)


@given(PART, PART, PART, PART, st.booleans())
def test_no_part_of_any_password_is_logged(
    before: str,
    after: str,
    user: str,
    query: str,
    is_quoted: bool,  # noqa: FBT001
) -> None:
    password = f"{before}SECRET{after}"
    if is_quoted:
        password = quote(password, safe="")
    for url in (
        f"postgresql://{user}:{password}@one:5432,two/voting?{query}",
        f"redis://:{password}@[::1]:6379/0",
        f"postgresql://{user}@one/voting?{query}&password={password}",
        f"unix://{user}:{password}@/run/valkey.sock",
    ):
        assert "SECRET" not in redacted(url), url
