"""The worker service: moves votes from the Redis stream to PostgreSQL in batches.

It must never import another service, `operate` or `local`.
"""

import voting.broker  # noqa: F401 - before anything here imports redis: see there
