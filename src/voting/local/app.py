"""`voting up`: everything on this machine with one command, no Docker.

It starts the stores and the services in order, keeps them running, and stops them cleanly. What a part needs it gets
in its environment, and nothing else: only vote has the key, only result and the workers have the database. Data stays
in the data directory between runs.
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
from voting.local.datadir import Busy, DataDir
from voting.local.servers import CannotRun
from voting.local.supervisor import Failed, Part, Supervisor, end_leftover
from voting.service import probe
from voting.settings.environment import inherited_environment


def say(line: str) -> None:
    """Tell the person at the terminal."""
    print(line, flush=True)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    host: str
    vote_port: int
    result_port: int
    workers: int


def up(data: Path, options: Options) -> int:
    """Run everything until told to stop; return the exit code."""
    directory = DataDir(data)
    try:
        directory.open()
    except Busy as error:
        say(f"voting up: {error}")
        return 1
    except OSError as error:
        say(f"voting up: cannot use the data directory {directory.root}: {error.strerror}. Choose another with --data.")
        return 1
    try:
        return asyncio.run(_run(directory, options))
    finally:
        directory.close()


def _check_free(host: str, port: int, flag: str) -> None:
    """Find out before anything starts whether a port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotRun(f"port {port} on {host} is in use; choose another with {flag}") from None
        raise CannotRun(
            f"cannot listen on {host}, port {port} ({error.strerror}); choose others with --host and {flag}"
        ) from None


async def _run(data: DataDir, options: Options) -> int:
    supervisor = Supervisor(data, say)
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
        say("Stopping …")
    except (Failed, CannotRun) as error:
        say(f"voting up: {error}")
        code = error.code if isinstance(error, Failed) else 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await supervisor.stop()
    say("Stopped; everything is kept in " + str(data.root))
    return code


async def _start(data: DataDir, supervisor: Supervisor, options: Options) -> None:
    began = time.monotonic()
    where = "" if data.root == Path.cwd() / ".voting" else f" --data {shlex.quote(str(data.root))}"
    for name in data.leftovers():
        say(f"Ending {name} (process {data.pid(name)}), left over from a run that was killed …")
        await end_leftover(data, name)
    for flag, port in (("--vote-port", options.vote_port), ("--result-port", options.result_port)):
        _check_free(options.host, port, flag)
    say("Starting Valkey and PostgreSQL …")
    valkey, redis_url = servers.valkey(data)
    if await valkey.is_ready():  # started in the moment before a run was killed, and so not known to us
        raise CannotRun(f"another Valkey runs with {data.valkey}: two would damage its files; end it first")
    postgres, database_url = await asyncio.to_thread(servers.postgres, data)
    await supervisor.start(valkey, postgres)

    addresses = {
        "HOST": options.host,
        "VOTE_PORT": str(options.vote_port),
        "RESULT_PORT": str(options.result_port),
    }
    redis, database = {"REDIS_URL": redis_url}, {"DATABASE_URL": database_url}
    key = {"SECRET_KEY_FILE": str(data.secret_key_file())}
    await supervisor.run_once(_service(data, "migrate", database))
    if foreign := await servers.foreign_installation(data):
        say(
            f"\nWarning: the broker's files in {data.valkey} belong to another database than the one in\n"
            f"{data.postgres}, which may be new and empty. Votes are accepted and wait; none is counted, until you\n"
            f"  put the files of that database back, or restore a backup of it:  ./voting restore FILE{where}\n"
            f"  or give that database up and count into this one:  ./voting adopt {foreign}{where}\n"
        )
    say(f"Starting {options.workers} worker{'s' if options.workers > 1 else ''}, vote and result …")
    names = [f"worker-{number}" for number in range(1, options.workers + 1)]
    workers = [_service(data, name, redis | database | {"WORKER_NAME": name}) for name in names]
    if foreign:
        workers = [dataclasses.replace(worker, is_ready=_at_once) for worker in workers]
    parts = [
        *workers,
        _service(data, "result", database | addresses),
        _service(data, "vote", redis | key | addresses),
    ]
    await supervisor.start(*parts)
    host = {"127.0.0.1": "localhost", "0.0.0.0": "localhost", "::": "[::1]"}.get(options.host, options.host)  # noqa: S104
    vote_url, result_url = f"http://{host}:{options.vote_port}", f"http://{host}:{options.result_port}"
    sockets = {part.name: str(data.sockets / f"{part.name}.sock") for part in parts}
    data.write_state({"redis_url": redis_url, "database_url": database_url, "parts": sockets})
    say(f"Ready in {time.monotonic() - began:.1f} s.\n")
    say(f"  Vote    {vote_url}\n  Result  {result_url}\n")
    say(f"Where every vote is: ./voting status{where}    Logs: {data.log}    Stop: Ctrl-C")


async def _at_once() -> bool:
    """Do not wait until a worker is ready, which has to wait itself."""
    return True


def _service(data: DataDir, name: str, environment: dict[str, str]) -> Part:
    """One of our own services, and how to ask whether it is ready."""
    address = f"unix:{data.sockets / name}.sock"
    command = [sys.executable, "-m", "voting", name.partition("-")[0]]
    given = inherited_environment() | environment | {"METRICS_LISTEN": address}
    return Part(name, command, functools.partial(probe.is_ready, address), given)
