"""`voting up`: run both stores and all services on this machine, without Docker.

It starts the parts in order, restarts those that end, and stops them in reverse order. Each part gets only the settings
that it needs: only vote gets the key of cookies, only admin its own, and vote does not get the database.
"""

import asyncio
import dataclasses
import errno
import functools
import shlex
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from voting.local import servers
from voting.local.datadir import DataDir, DirectoryInUse
from voting.local.servers import CannotRun
from voting.local.supervisor import Failed, Part, Supervisor, stop_orphan
from voting.service import probe
from voting.settings.environment import inherited_environment
from voting.settings.urls import admin_link


def write_line(line: str) -> None:
    """Write a line to standard output at once, even to a pipe."""
    print(line, flush=True)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    host: str
    admin_host: str
    vote_port: int
    result_port: int
    admin_port: int
    workers: int


def up(data: Path, options: Options) -> int:
    """Run everything until a signal; return the exit code."""
    directory = DataDir(data)
    try:
        directory.open()
    except DirectoryInUse as error:
        write_line(f"voting up: {error}")
        return 1
    except OSError as error:
        fault = f"cannot use the data directory {directory.root}: {error.strerror}"
        write_line(f"voting up: {fault}. Choose another with --data.")
        return 1
    try:
        return asyncio.run(_run(directory, options))
    finally:
        directory.close()


def _check_free(host: str, port: int, flag: str, host_flag: str) -> None:
    """Raise `CannotRun` if the port cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotRun(f"port {port} on {host} is in use; choose another with {flag}") from None
        message = f"cannot listen on {host}, port {port} ({error.strerror}); choose others with {host_flag} and {flag}"
        raise CannotRun(message) from None


async def _run(data: DataDir, options: Options) -> int:
    supervisor = Supervisor(data, write_line)
    stopped = asyncio.Event()

    def on_signal() -> None:
        if stopped.is_set():
            supervisor.kill()
        stopped.set()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, on_signal)
    code = 0
    running = asyncio.create_task(_start(data, supervisor, options))
    ending = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([running, ending], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
            await ending
        write_line("Stopping …")
    except (Failed, CannotRun) as error:
        write_line(f"voting up: {error}")
        code = error.code if isinstance(error, Failed) else 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await supervisor.stop()
    write_line(f"Stopped. The data is in {data.root}.")
    return code


async def _start(data: DataDir, supervisor: Supervisor, options: Options) -> None:
    began = time.monotonic()
    data_option = "" if data.root == Path.cwd() / ".voting" else f" --data {shlex.quote(str(data.root))}"
    for name in data.orphans():
        write_line(f"Stopping {name} (process {data.pid(name)}), left over from a run that was killed …")
        await stop_orphan(data, name)
    _check_free(options.host, options.vote_port, "--vote-port", "--host")
    _check_free(options.host, options.result_port, "--result-port", "--host")
    _check_free(options.admin_host, options.admin_port, "--admin-port", "--admin-host")
    write_line("Starting Valkey and PostgreSQL …")
    valkey, redis_url = servers.valkey(data)
    if await valkey.is_ready():  # a run was killed before it wrote the pid file
        raise CannotRun(f"another Valkey runs with {data.valkey}, and two would damage its files: stop it first")
    postgres, database_url = await asyncio.to_thread(servers.postgres, data, options.workers)
    await supervisor.start(valkey, postgres)

    ports = {"VOTE_PORT": options.vote_port, "RESULT_PORT": options.result_port, "ADMIN_PORT": options.admin_port}
    addresses = {"HOST": options.host} | {name: str(port) for name, port in ports.items()}
    redis, database = {"REDIS_URL": redis_url}, {"DATABASE_URL": database_url}
    key = {"SECRET_KEY_FILE": str(data.key_file("secret_key"))}
    admin = database | addresses | {"HOST": options.admin_host, "ADMIN_KEY_FILE": str(data.key_file("admin_key"))}
    await supervisor.run_once(_service(data, "migrate", database))
    if foreign := await servers.foreign_installation(data):
        write_line(
            f"\nWarning: the broker's files in {data.valkey} belong to another database than the one in\n"
            f"{data.postgres}, which may be new and empty. Votes are accepted and wait; none is counted until you\n"
            f"  put back the files of that database, or restore a backup of it:  ./voting restore FILE{data_option}\n"
            f"  or abandon that database and count into this one:  ./voting adopt {foreign}{data_option}\n"
        )
    write_line(f"Starting {options.workers} worker{'s' if options.workers > 1 else ''}, vote, result and admin …")
    names = [f"worker-{number}" for number in range(1, options.workers + 1)]
    workers = [_service(data, name, redis | database | {"WORKER_NAME": name}) for name in names]
    if foreign:
        workers = [dataclasses.replace(worker, is_ready=_always_ready) for worker in workers]
    parts = [
        *workers,
        _service(data, "result", database | addresses),
        _service(data, "admin", admin),
        _service(data, "vote", redis | key | addresses),
    ]
    await supervisor.start(*parts)
    vote_url, result_url = _url(options.host, options.vote_port), _url(options.host, options.result_port)
    admin_url = _url(options.admin_host, options.admin_port)
    sockets = {part.name: str(data.sockets / f"{part.name}.sock") for part in parts}
    stores = {"redis_url": redis_url, "database_url": database_url}
    data.write_state({**stores, "parts": sockets, "admin_url": admin_url, "admin_host": options.admin_host})
    link = admin_link(admin_url, data.key_file("admin_key").read_text(encoding="ascii"))
    write_line(f"Ready in {time.monotonic() - began:.1f} s.\n")
    write_line(f"  Vote    {vote_url}\n  Result  {result_url}\n  Admin   {link}\n")
    write_line(f"State: ./voting status{data_option}    Logs: {data.log}    Stop: Ctrl-C")


def _url(host: str, port: int) -> str:
    """Return the address at which a browser on this machine reaches a service."""
    name = {"127.0.0.1": "localhost", "0.0.0.0": "localhost", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{name}:{port}"


async def _always_ready() -> bool:
    """Return true: the start must not wait for workers that cannot count yet."""
    return True


def _service(data: DataDir, name: str, environment: dict[str, str]) -> Part:
    address = f"unix:{data.sockets / name}.sock"
    command = [sys.executable, "-m", "voting", name.partition("-")[0]]
    given = inherited_environment() | environment | {"METRICS_LISTEN": address}
    return Part(name, command, functools.partial(probe.is_ready, address), given)
