"""TODO voting.settings.environment."""

import os

OWN_OF_UP = frozenset(
    f"{name}{suffix}"
    for name in (
        "REDIS_URL",
        "DATABASE_URL",
        "SECRET_KEY",
        "HOST",
        "VOTE_PORT",
        "RESULT_PORT",
        "METRICS_LISTEN",
        "WORKER_NAME",
    )
    for suffix in ("", "_FILE")
)


def passed_on() -> dict[str, str]:
    """The environment that `voting up` hands to its children: ours, without what it decides for each of them."""
    return {name: value for name, value in os.environ.items() if name not in OWN_OF_UP}
