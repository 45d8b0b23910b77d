"""A PostgreSQL of a test's own, with the settings and passwords that the test wants."""

import asyncio
import subprocess
from pathlib import Path

import psycopg

from tests.waiting import eventually
from voting.database import migrations
from voting.database.connection import connect
from voting.database.roles import define_role
from voting.local import servers
from voting.local.datadir import DataDir
from voting.operate.migrate import definition_of
from voting.settings.services import MigrateSettings


class Cluster:
    """One server on a Unix socket below `folder`, as `voting up` starts it but for the settings given."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._data = DataDir(folder)
        self._data.open()
        part, self.url = servers.postgres(self._data)
        self._command = part.command + [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._part = part
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._data.log_file("postgres").open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd="/", stdout=log, stderr=log, **self._part.options)
        eventually(self._answers, within=30)

    def _answers(self) -> bool:
        async def ask() -> bool:
            return await self._part.is_ready()

        return asyncio.run(ask())

    def stop(self) -> None:
        """End it and all its sessions."""
        self.process.send_signal(self._part.stop_signal)
        self.process.wait(20)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as the owner."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def alter_system(self, name: str, value: str | None) -> None:
        """Change a setting of the running server, or with None back, and wait until new sessions have it."""
        verb, wanted = (f"ALTER SYSTEM SET {name} = {value}", value) if value else (f"ALTER SYSTEM RESET {name}", "on")
        self.execute(verb)
        self.execute("SELECT pg_reload_conf()")
        eventually(lambda: self.execute(f"SHOW {name}") == [(wanted,)])

    def demote(self) -> None:
        """Start it again as a replica whose primary is away."""
        (self._data.postgres / "data" / "standby.signal").touch()
        self.start()

    def end_sessions(self, role: str) -> None:
        """Cut whoever is connected as this role."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])

    def migrate(self, *passwords: tuple[str, str]) -> None:
        """Make the schema, and roles of the given passwords, who have to give them from now on."""

        async def apply() -> None:
            async with connect(self.url, name="migrate", timeout=30) as connection:
                await migrations.migrate(connection, definition_of(MigrateSettings(database_url=self.url)))
                for service, password in passwords:
                    await define_role(connection, service, password)  # type: ignore[arg-type]

        asyncio.run(apply())
        ((file,),) = self.execute("SHOW hba_file")
        rules = Path(str(file))
        kept = rules.read_text()
        rules.write_text("".join(f"local all voting_{role} scram-sha-256\n" for role, _ in passwords) + kept)
        self.execute("SELECT pg_reload_conf()")

    def url_of(self, role: str, password: str) -> str:
        """The address that a role uses."""
        return self.url.replace("//voting@", f"//{role}:{password}@")
