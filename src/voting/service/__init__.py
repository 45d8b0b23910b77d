"""What every service shares: start and stop, probes, logs, metrics and tracing.

Never imports a store, `web`, or a service.
"""
