"""The result service: reads tallies from PostgreSQL and sends them to every viewer.

It imports `database`, `web` and the rooms below them; never `broker`, a Redis client, or another service.
"""
