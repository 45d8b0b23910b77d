"""A voting application: vote on Redis, count into PostgreSQL, show it live."""

__version__ = "0.1.0"
