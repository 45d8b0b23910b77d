"""The vote service: shows the ballot, and publishes votes on the Redis stream.

It must never import PostgreSQL, another service, or the operator's commands.
"""
