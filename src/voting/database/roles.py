"""The database roles of the services."""

from typing import Literal

from psycopg import sql

from voting.database.connection import Connection
from voting.database.queries import QUERIES

Service = Literal["worker", "result", "admin"]
CONNECTIONS = {"worker": 60, "result": 20, "admin": 10}  # limit of each role; a worker uses three, a result service two


async def define_role(connection: Connection, service: Service, password: str) -> None:
    """Create the role `voting_<service>` with the rights that the service needs, or change its password."""
    role = sql.Identifier(f"voting_{service}")
    async with connection.transaction():
        cursor = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [f"voting_{service}"])
        verb = sql.SQL("ALTER" if await cursor.fetchone() else "CREATE")
        # A password cannot be a parameter, and statements are logged: so the verifier is sent, not the password.
        verifier = connection.pgconn.encrypt_password(password.encode(), f"voting_{service}".encode(), b"scram-sha-256")
        definition = sql.SQL("{} ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}")
        limit, word = sql.Literal(CONNECTIONS[service]), sql.Literal(verifier.decode())
        await connection.execute(definition.format(verb, role, limit, word))
        await connection.execute(QUERIES[f"grant_{service}"])
        await connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # a database from before PostgreSQL 15
        database = sql.Identifier(connection.info.dbname)
        await connection.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(database))
