"""The secrets of an installation: written once, kept, and each only for the services that need it."""

import hashlib
from pathlib import Path

import pytest

from voting.operate import secrets
from voting.settings import keys


def read_files(kept: Path) -> dict[str, str]:
    return {str(file.relative_to(kept)): file.read_text() for file in kept.rglob("*") if file.is_file()}


def test_secrets_are_made_at_random_and_kept(tmp_path: Path) -> None:
    given = tmp_path / "given"
    assert secrets.write_secrets(tmp_path / "one", given) == list(secrets.GIVEN)
    first = read_files(tmp_path / "one")
    assert secrets.write_secrets(tmp_path / "one", given) == []
    assert read_files(tmp_path / "one") == first
    secrets.write_secrets(tmp_path / "two", given)
    second = read_files(tmp_path / "two")
    without_keys = {"secrets/secret_key_old": "", "vote/secret_key_old": first["vote/secret_key_old"]}
    assert set(first.items()) & set(second.items()) == set(without_keys.items())


def test_each_service_has_only_what_it_needs_and_redis_only_hashes(tmp_path: Path) -> None:
    secrets.write_secrets(tmp_path, tmp_path / "given")
    files = read_files(tmp_path)
    passwords = {name: files[f"secrets/{name}"] for name in secrets.GIVEN}
    urls = [files[f"{service}/database_url"] for service in ("worker", "result", "admin")]
    assert passwords["postgres_password"] not in "".join(urls)
    for key, service in {"secret_key": "vote", "admin_key": "admin", "webhook_key": "admin"}.items():
        assert {name for name, text in files.items() if passwords[key] in text} == {
            f"secrets/{key}",
            f"{service}/{key}",
        }
    for name in ("vote", "worker", "health"):
        password = passwords[f"redis_{name}_password"]
        assert password not in files["redis/users.acl"]
        assert f"user {name} on #{hashlib.sha256(password.encode()).hexdigest()} " in files["redis/users.acl"]
    assert "user default off" in files["redis/users.acl"]


def test_a_given_secret_is_used_and_can_be_changed(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    kept = tmp_path / "kept"
    secrets.write_secrets(kept, given)
    (given / "redis_vote_password").write_text("correct-horse-battery\n")
    assert secrets.write_secrets(kept, given) == ["redis_vote_password"]
    assert (kept / "vote" / "redis_url").read_text() == "redis://vote:correct-horse-battery@redis:6379/0"


def test_old_keys_are_written_and_kept_until_others_are_given(tmp_path: Path) -> None:
    given, kept = tmp_path / "given", tmp_path / "kept"
    given.mkdir()
    written = kept / "vote" / "secret_key_old"
    secrets.write_secrets(kept, given)
    assert keys.parse(written.read_text()) == ()
    assert written.read_text()  # a setting from an empty file is an error
    (given / "secret_key_old").write_text(f"{'o' * 32} until 2027-01-31\n{'p' * 32}\n")
    secrets.write_secrets(kept, given)
    (given / "secret_key_old").unlink()
    secrets.write_secrets(kept, given)
    assert [each.key for each in keys.parse(written.read_text())] == ["o" * 32, "p" * 32]
    (given / "secret_key_old").write_text("")
    secrets.write_secrets(kept, given)
    assert keys.parse(written.read_text()) == ()


def test_old_keys_that_vote_would_refuse_are_refused(tmp_path: Path) -> None:
    given, kept = tmp_path / "given", tmp_path / "kept"
    given.mkdir()
    (given / "secret_key_old").write_text("p" * 31)
    with pytest.raises(secrets.BadSecret, match="secret_key_old: key 1 has 31 characters"):
        secrets.write_secrets(kept, given)
    (given / "secret_key_old").write_text("n" * 32)
    secrets.write_secrets(kept, given)
    (given / "secret_key").write_text("n" * 32)  # the next key signs, and the one before it was forgotten
    before = read_files(kept)
    with pytest.raises(secrets.BadSecret, match="secret_key_old: it lists secret_key, the current key"):
        secrets.write_secrets(kept, given)
    assert read_files(kept) == before


@pytest.mark.parametrize(
    "bad", ["", "short", "with space in it", "percent%20sign%20", "newline\ninside-it", "ümläute-überall"]
)
def test_a_given_secret_that_is_not_valid_in_a_url_is_refused_by_name(tmp_path: Path, bad: str) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "postgres_password").write_text(bad, encoding="utf-8")
    with pytest.raises(secrets.BadSecret, match="postgres_password: use at least 12"):
        secrets.write_secrets(tmp_path / "kept", given)


@pytest.mark.parametrize("name", ["secret_key", "admin_key", "webhook_key"])
def test_a_given_key_that_its_service_would_refuse_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("k" * 31)
    with pytest.raises(secrets.BadSecret, match=f"{name}: use at least 32"):
        secrets.write_secrets(tmp_path / "kept", tmp_path)


def test_connections_to_an_external_database_use_tls_and_verify_its_certificate(tmp_path: Path) -> None:
    given, kept = tmp_path / "given", tmp_path / "kept"
    given.mkdir()
    (given / "database_host").write_text("db.example.org:5433\n")
    secrets.write_secrets(kept, given)
    assert (
        (kept / "worker" / "database_url")
        .read_text()
        .endswith("@db.example.org:5433/voting?sslmode=verify-full&sslrootcert=system")
    )
    (given / "database_ca.pem").write_text("certificates")
    secrets.write_secrets(kept, given)
    for service in ("worker", "result", "admin", "migrate"):
        url = (kept / service / "database_url").read_text()
        assert url.endswith("?sslmode=verify-full&sslrootcert=/run/secrets/database_ca.pem")
        assert (kept / service / "database_ca.pem").read_text() == "certificates"
    assert not (kept / "vote" / "database_ca.pem").exists()


@pytest.mark.parametrize("bad", ["", "two hosts", "db/other?sslmode=disable", "user@db", "db:port"])
def test_a_database_host_that_is_more_than_a_host_is_refused(tmp_path: Path, bad: str) -> None:
    (tmp_path / "database_host").write_text(bad)
    with pytest.raises(secrets.BadSecret, match="database_host: use a host name"):
        secrets.write_secrets(tmp_path / "kept", tmp_path)
