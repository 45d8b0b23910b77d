"""The operator's commands: status, doctor, backup, restore, adopt, secrets, certificate, migrate.

It must never import `local` or the services, and the services never import it.
"""
