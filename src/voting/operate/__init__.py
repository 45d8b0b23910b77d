"""The operator's commands: status, doctor, backup, restore, adopt, secrets, certificate, migrate.

Must never import the services or `local`; they never import this package either.
"""
