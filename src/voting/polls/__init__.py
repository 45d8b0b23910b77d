"""The domain: polls and their states, votes, tallies, sessions.

It must never import our other packages, and does no I/O.
"""
