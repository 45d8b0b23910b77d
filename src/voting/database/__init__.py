"""PostgreSQL 18, the system of record: statements, migrations, roles, and the connection that they need.

Functions take the connection that they use. It must never import a service, `settings`, `web` or `broker`.
"""
