"""HTTP for all services: server, limits, refusals, pages and languages.

It imports `service`, `settings` and `polls`; never a store's room or client, nor the room of a service.
"""
