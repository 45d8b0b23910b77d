"""Settings: where they come from, and what is said of bad ones."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import eventually
from voting.database.definition import Definition
from voting.operate.migrate import definition_of
from voting.service import metrics_directory
from voting.settings.services import (
    LIMITED_VOTER_DAYS,
    MigrateSettings,
    ResultSettings,
    VoteSettings,
    WorkerSettings,
)
from voting.settings.sources import BadSettings, load
from voting.settings.urls import redacted


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
    assert [each.key[0] for each in load(VoteSettings).secret_key_old] == ["o", "p"]


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
def test_the_default_poll_is_what_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], definition: Definition
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert definition_of(load(MigrateSettings)) == definition


@pytest.mark.parametrize("renames", ["Red", "Red=", "=Red", "A=B,B=A", "A=B,C=a", '[["A", "B"]]', "[[" * 9999])
def test_renames_are_pairs_of_labels_that_can_be_given_again_at_each_start(
    monkeypatch: pytest.MonkeyPatch, renames: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    monkeypatch.setenv("RENAME_OPTIONS", renames)
    with pytest.raises(BadSettings, match="RENAME_OPTIONS"):
        load(MigrateSettings)


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
def test_options_must_be_2_to_20_different_ones(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    monkeypatch.setenv("OPTIONS", options)
    with pytest.raises(BadSettings, match="OPTIONS"):
        load(MigrateSettings)


@pytest.mark.parametrize("url", ["redis://[::1", "redis://broker:port", "redis://broker:99999", "rediss://a:1,b:2"])
def test_a_broker_whose_host_or_port_cannot_be_read_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("SECRET_KEY", "k" * 40)
    with pytest.raises(BadSettings) as caught:
        load(VoteSettings)
    assert caught.value.problems == ["REDIS_URL: expected one host and, if any, a port from 0 to 65535"]


@pytest.mark.parametrize("url", ["https://vote.example.org:99999", "https://user:secret@vote.example.org"])
def test_a_page_whose_address_cannot_be_asked_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
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
def test_an_address_in_a_log_has_no_user_and_no_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(st.text(max_size=200), st.sampled_from(["", "redis://", "postgresql://u:p@", "unix://"]))
def test_whatever_an_address_is_it_can_be_logged(text: str, start: str) -> None:
    redacted(start + text)


PART = st.text(alphabet=st.sampled_from("ab1:/?#[]@,%& =.\n"), max_size=8)


@given(PART, PART, PART, PART, st.booleans())
def test_no_part_of_a_password_is_logged_wherever_it_stands_and_whatever_it_is(
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


SHARE = """
import os, signal, sys
from pathlib import Path
from voting.service import metrics_directory
metrics_directory.share()
from voting.vote.prefork import ProcessManager
async def main(stop):
    Path(os.environ["PROMETHEUS_MULTIPROC_DIR"], f"{os.getpid()}.db").touch()
    await stop.wait()
ProcessManager(main, lambda pid: None).run(int(sys.argv[1]))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_shared_metrics_are_removed_at_the_end_and_those_of_a_killed_process_by_the_next(
    tmp_path: Path, processes: int
) -> None:
    def start() -> subprocess.Popen[bytes]:
        environment = os.environ | {"TMPDIR": str(tmp_path)}  # noqa: TID251
        before = len(list(tmp_path.glob("*/*.db")))
        process = subprocess.Popen([sys.executable, "-c", SHARE, str(processes)], env=environment)
        eventually(lambda: len(list(tmp_path.glob("*/*.db"))) == before + processes)
        return process

    killed = start()
    killed.kill()
    killed.wait()
    (stale,) = tmp_path.iterdir()
    os.close(eventually(lambda: metrics_directory._lock(stale)))  # its children end when they notice
    for file in stale.iterdir():
        file.unlink()  # or `start` would not wait for its own
    os.utime(stale, (0, 0))
    running = start()
    (folder,) = tmp_path.iterdir()
    assert folder != stale
    os.utime(folder, (0, 0))
    second = start()
    assert folder.exists()
    for process in (running, second):
        process.terminate()
        assert process.wait(10) == 0
    assert list(tmp_path.iterdir()) == []
