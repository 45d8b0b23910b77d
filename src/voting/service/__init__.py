"""What every service shares: start and stop, probes, logs, metrics and tracing.

It must never import a store, `web`, or a service.
"""
