"""`voting secrets`: the passwords and keys of an installation, made once at random and laid out for each service.

Each service gets a directory of its own with just the files that it needs, so that each can be mounted alone. What an
operator gives as a file (`GIVEN` lists the names) is used instead of a random value; what was made before is kept.
Redis gets only hashes of its users' passwords. A database elsewhere is given as `database_host`; connections to it are
TLS, and its certificate is checked against `database_ca.pem`. See docs/operations.md.
"""

import hashlib
import os
import re
import secrets
from pathlib import Path

GIVEN = (
    "secret_key",
    "redis_vote_password",
    "redis_worker_password",
    "redis_health_password",
    "postgres_password",
    "postgres_worker_password",
    "postgres_result_password",
    "grafana_admin_password",
)

HOST, CA = "database_host", "database_ca.pem"

# What each user of Redis may do, https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
_HANDSHAKE = "+ping +client|setinfo"
ACL = {
    "vote": f"%W~votes %R~polls -@all {_HANDSHAKE} +xadd +hgetall +info",
    "worker": f"~votes ~polls -@all {_HANDSHAKE} +multi +exec +discard +watch +unwatch +exists +time "
    "+info +config|get "  # `voting doctor`; no password is among the parameters
    "+hgetall +hset +hdel "
    "+xreadgroup +xautoclaim +xack +xdel +xpending +xinfo|stream +xinfo|groups +xgroup|create +xsetid "
    "(~installation -@all +get +set)",
    "health": f"-@all {_HANDSHAKE} +info",
}


class BadSecret(Exception):
    """A given secret cannot be used; the message says which and why."""


def lay_out(kept: Path, given: Path) -> list[str]:
    """Write every service's files below `kept`; return the names of secrets that are new.

    Raises:
        BadSecret: a given file is empty or has characters that a URL or an ACL would not take.
    """
    values: dict[str, str] = {}
    new = []
    for name in GIVEN:
        value, is_new = _value(name, kept / "secrets" / name, given / name)
        values[name] = value
        if is_new:
            new.append(name)
    vote, worker = values["redis_vote_password"], values["redis_worker_password"]
    health, owner = values["redis_health_password"], values["postgres_password"]
    database = _database(given)
    files = {
        "vote/secret_key": values["secret_key"],
        "vote/redis_url": f"redis://vote:{vote}@redis:6379/0",
        "worker/redis_url": f"redis://worker:{worker}@redis:6379/0",
        "worker/database_url": database.format(role="voting_worker", password=values["postgres_worker_password"]),
        "result/database_url": database.format(role="voting_result", password=values["postgres_result_password"]),
        "migrate/database_url": database.format(role="voting", password=owner),
        "migrate/worker_database_password": values["postgres_worker_password"],
        "migrate/result_database_password": values["postgres_result_password"],
        "db/password": owner,
        "redis/health_password": health,
        "grafana/admin_password": values["grafana_admin_password"],
        "redis/users.acl": _acl({"vote": vote, "worker": worker, "health": health}),
    }
    if (given / CA).exists():
        files |= {f"{service}/{CA}": (given / CA).read_text() for service in ("worker", "result", "migrate")}
    for name, content in files.items():
        _write(kept / name, content, 0o444)  # who may read is decided by who mounts the directory
    return new


def _value(name: str, kept: Path, given: Path) -> tuple[str, bool]:
    if given.exists():
        value = given.read_text(encoding="utf-8").strip()
        least = 32 if name == "secret_key" else 12
        if len(value) < least or not value.isascii() or not value.replace("-", "").replace("_", "").isalnum():
            raise BadSecret(f"{given}: use at least {least} letters, digits, - and _")
    elif kept.exists():
        return kept.read_text(encoding="utf-8"), False
    else:
        value = secrets.token_hex(32)
    is_new = not kept.exists() or kept.read_text(encoding="utf-8") != value
    _write(kept, value, 0o400)
    return value, is_new


def _database(given: Path) -> str:
    """The URL of the database, with places for role and password: the container's, unless a host is given.

    Source of the parameters: https://www.postgresql.org/docs/current/libpq-ssl.html
    """
    if not (given / HOST).exists():
        return "postgresql://{role}:{password}@db:5432/voting"
    host = (given / HOST).read_text(encoding="utf-8").strip()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?", host):
        raise BadSecret(f"{given / HOST}: use a host name, or host:port")
    authority = f"/run/secrets/{CA}" if (given / CA).exists() else "system"
    return "postgresql://{role}:{password}@" + f"{host}/voting?sslmode=verify-full&sslrootcert={authority}"


def _acl(passwords: dict[str, str]) -> str:
    # `off`: nobody can log in as default. It keeps its rights, since Redis replays its append-only file as this user:
    # without them it skips each EXEC in the file, and acknowledged entries come back with every restart.
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
