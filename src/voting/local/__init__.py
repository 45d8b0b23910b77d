"""`voting up`: run both stores and all services on this machine, as child processes of one supervisor.

It must never import the services: it starts them as `python -m voting`.
"""
