"""The admin service: whoever runs polls makes, opens, shows and closes them.

It must never import another service, `broker` or a Redis client.
"""
