"""The result service: reads tallies from PostgreSQL and sends them to every viewer.

It must never import `broker`, a Redis client, or another service.
"""
