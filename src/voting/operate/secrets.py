"""`voting secrets`: write the passwords and keys of an installation for each service.

Each service has its own directory with only the files that it needs, so that it can be mounted alone. A file that the
operator gives (`GIVEN` lists the names) replaces the random value; existing values are kept. Redis gets only hashes of
its users' passwords. An external database is given as `database_host`; connections to it use TLS, and its certificate
is checked against `database_ca.pem`. See docs/operations.md.
"""

import hashlib
import os
import re
import secrets
from pathlib import Path

from voting.settings import keys

GIVEN = (
    *("secret_key", "redis_vote_password", "redis_worker_password", "redis_health_password"),
    *("postgres_password", "postgres_worker_password", "postgres_result_password", "postgres_admin_password"),
    *("admin_key", "webhook_key", "grafana_admin_password"),
)
LONG = ("secret_key", "admin_key", "webhook_key")  # at least keys.MIN_LENGTH characters; others have 12

OLD_KEYS = "secret_key_old"  # empty unless given
_OLD_KEYS_HEAD = "# Further keys that vote accepts, as SECRET_KEY_OLD; see docs/operations.md, Secrets\n"

HOST, CA = "database_host", "database_ca.pem"

# The rights of each Redis user: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
_HANDSHAKE = "+ping +client|setinfo"
ACL = {
    "vote": f"%W~votes %R~polls %R~sessions %R~{{votes}}:seals &definitions -@all {_HANDSHAKE} "
    "+xadd +hmget +hlen +subscribe +info "
    "+hgetall",  # for a vote service of an earlier version, while it is being updated
    "worker": f"~votes ~polls ~sessions ~{{votes}}:seals &definitions -@all {_HANDSHAKE} "
    "+multi +exec +discard +watch +unwatch +exists +time "
    "+info +config|get "  # `voting doctor`; no password is among the parameters
    "+hgetall +hmget +hkeys +hlen +hset +hdel +publish +hget +hincrby "
    "+xreadgroup +xrange +xautoclaim +xack +xdel +xpending +xinfo|stream +xinfo|groups +xgroup|create +xsetid "
    "+del "  # replaces a stream whose next ids are unusable
    "(~{votes}:* -@all +get +set +incrby +expire) (~votes ~{votes}:* -@all +eval) "  # broker/removals.py, seals.py
    "(~installation -@all +get +set)",
    "health": f"-@all {_HANDSHAKE} +info",
}


class BadSecret(Exception):
    """A given secret is not valid; the message says which, and why."""


def write_secrets(folder: Path, given: Path) -> list[str]:
    """Write each service's files below `folder`; return the names of new secrets, or raise `BadSecret`."""
    values = {name: _value(name, folder / "secrets" / name, given / name) for name in GIVEN}
    old_keys = _old_keys(folder / "secrets" / OLD_KEYS, given / OLD_KEYS, values["secret_key"])
    vote, worker = values["redis_vote_password"], values["redis_worker_password"]
    health, owner = values["redis_health_password"], values["postgres_password"]
    database = _database(given)
    files = {
        "vote/secret_key": values["secret_key"],
        f"vote/{OLD_KEYS}": _OLD_KEYS_HEAD + old_keys,
        "vote/redis_url": f"redis://vote:{vote}@redis:6379/0",
        "worker/redis_url": f"redis://worker:{worker}@redis:6379/0",
        "worker/database_url": database.format(role="voting_worker", password=values["postgres_worker_password"]),
        "result/database_url": database.format(role="voting_result", password=values["postgres_result_password"]),
        "admin/database_url": database.format(role="voting_admin", password=values["postgres_admin_password"]),
        "admin/admin_key": values["admin_key"],
        "admin/webhook_key": values["webhook_key"],
        "migrate/database_url": database.format(role="voting", password=owner),
        "migrate/worker_database_password": values["postgres_worker_password"],
        "migrate/result_database_password": values["postgres_result_password"],
        "migrate/admin_database_password": values["postgres_admin_password"],
        "db/password": owner,
        "redis/health_password": health,
        "grafana/admin_password": values["grafana_admin_password"],
        "redis/users.acl": _acl({"vote": vote, "worker": worker, "health": health}),
    }
    if (given / CA).exists():
        files |= {f"{service}/{CA}": (given / CA).read_text() for service in ("worker", "result", "admin", "migrate")}
    existing = {name: _content(folder / "secrets" / name) for name in GIVEN}
    for name, content in (values | {OLD_KEYS: old_keys}).items():
        _write(folder / "secrets" / name, content, 0o400)
    for name, content in files.items():
        _write(folder / name, content, 0o444)  # only services that mount the directory can read it
    return [name for name in GIVEN if values[name] != existing[name]]


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _value(name: str, existing: Path, given: Path) -> str:
    if given.exists():
        value = given.read_text(encoding="utf-8").strip()
        least = keys.MIN_LENGTH if name in LONG else 12
        if len(value) < least or not value.isascii() or not value.replace("-", "").replace("_", "").isalnum():
            raise BadSecret(f"{given}: use at least {least} letters, digits, - and _")
        return value
    return _content(existing) or secrets.token_hex(32)


def _old_keys(existing: Path, given: Path, secret_key: str) -> str:
    """Return the other keys that are accepted: those given, else the existing ones."""
    source = given if given.exists() else existing
    text = _content(source) or ""
    try:
        accepted = keys.parse(text)
    except ValueError as error:
        raise BadSecret(f"{source}: {error}") from None
    if secret_key in {each.key for each in accepted}:
        raise BadSecret(f"{source}: it lists secret_key, the current key; list only earlier keys")
    return text


def _database(given: Path) -> str:
    """Return the database's URL with the fields {role} and {password}; without a given host, that of the container.

    Parameters: https://www.postgresql.org/docs/current/libpq-ssl.html
    """
    if not (given / HOST).exists():
        return "postgresql://{role}:{password}@db:5432/voting"
    host = (given / HOST).read_text(encoding="utf-8").strip()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?", host):
        raise BadSecret(f"{given / HOST}: use a host name, or host:port")
    authority = f"/run/secrets/{CA}" if (given / CA).exists() else "system"
    return "postgresql://{role}:{password}@" + f"{host}/voting?sslmode=verify-full&sslrootcert={authority}"


def _acl(passwords: dict[str, str]) -> str:
    # `off` disables logins as default. The user keeps its rights, because Redis replays the append-only file as this
    # user: without them it skips each EXEC in the file, and acknowledged entries return after a restart.
    lines = ["user default off resetpass ~* &* +@all"]
    for user, password in passwords.items():
        digest = hashlib.sha256(password.encode()).hexdigest()
        lines.append(f"user {user} on #{digest} resetkeys resetchannels {ACL[user]}")
    return "\n".join(lines) + "\n"


def _write(path: Path, content: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w", encoding="utf-8") as file:
        file.write(content)
    draft.chmod(mode)
    draft.rename(path)
