"""Redis or Valkey: the stream of votes, its producer and consumers, and the hash of polls.

It gets URLs and connections from its callers. It must never import a service, `settings`, `web` or `database`.
"""

from voting.service.imports import without

with without("opentelemetry"):  # for metrics that we do not collect: 3 MiB more in each process
    import redis  # noqa: F401 - first of all imports of it
