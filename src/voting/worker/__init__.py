"""The worker service: moves votes from the Redis stream to PostgreSQL in batches.

It may import everything below the services, except `operate` and `local`. It must never import another service.
"""
