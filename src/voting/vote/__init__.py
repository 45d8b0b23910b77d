"""The vote service: shows the ballot, and publishes votes on the Redis stream.

Never imports PostgreSQL, another service, or the operator's commands.
"""
