"""The environment that `voting up` passes on to the services it starts."""

import os

SET_BY_UP = (
    *("REDIS_URL", "DATABASE_URL", "SECRET_KEY", "ADMIN_KEY"),
    *("HOST", "VOTE_PORT", "RESULT_PORT", "ADMIN_PORT", "METRICS_LISTEN", "WORKER_NAME"),
)


def inherited_environment() -> dict[str, str]:
    """Return the environment of this process without the settings that `voting up` sets for each service."""
    removed = {f"{name}{suffix}" for name in SET_BY_UP for suffix in ("", "_FILE")}
    return {name: value for name, value in os.environ.items() if name not in removed}
