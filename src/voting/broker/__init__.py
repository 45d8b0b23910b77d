"""Redis or Valkey: the stream of votes, its producer and consumers, and the hash of polls.

It gets URLs and connections from its callers. It must never import a service, `settings`, `web` or `database`.
"""
