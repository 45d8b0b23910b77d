"""HTTP for all services: server, limits, refusals, pages and languages.

It must never import a service, `broker`, `database` or their clients.
"""
