"""Settings: what each service may be told, and what it has to be. `sources.load` finds and checks them.

There is no default password or key. Each service has its own class, so none holds a credential it does not need.
"""

import json
import os
import socket
import tempfile
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from voting.core import keys
from voting.core.ballot import MAX_OPTIONS, clean, fold
from voting.core.definition import Definition
from voting.core.sources import BadSettings, Settings, load
from voting.core.tracing import TraceSettings

__all__ = ["BadSettings", "load"]

LIMITED_VOTER_DAYS = 7  # for which a cookie is accepted where NEW_VOTERS_PER_HOUR is set


def _split(value: object) -> object:
    """Turn `a, b,c` into ("a", "b", "c"); a real sequence passes through."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _keys(value: object) -> object:
    """Read SECRET_KEY_OLD; what is no text passes through."""
    return keys.parse(value) if isinstance(value, str) else value


def _labels(value: object) -> object:
    """Turn `a, b` or, for labels with commas, `["a, b", "c"]` into a tuple."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return tuple(json.loads(value))
        except ValueError:
            raise ValueError('expected a JSON list such as ["Red, warm", "Blue"], or labels with commas') from None
    return _split(value)


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
Port = Annotated[int, Field(ge=1, le=65535)]
Label = Annotated[str, AfterValidator(clean)]
LabelList = Annotated[tuple[Label, ...], BeforeValidator(_labels)]
PublicUrl = Annotated[
    str,
    Field(pattern=r"^(https?://[^/?#\s]+(/[^?#\s]*)?)?$", max_length=500, examples=["https://vote.example.org"]),
]


class ProbeSettings(Settings):
    """Where a service answers probes and Prometheus; never from Parameter Store, for health checks ask all the time."""

    metrics_listen: Annotated[
        str, Field(pattern=r"^(unix:/.+|.+:\d+)$", examples=["0.0.0.0:9100", "unix:/run/voting.sock"])
    ] = "0.0.0.0:9100"


class ServiceSettings(ProbeSettings):
    """What every service has besides: how it logs."""

    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class RedisSettings(Settings):
    """Where the message broker is: redis://, rediss:// (TLS) or unix://."""

    redis_url: Annotated[str, Field(pattern=r"^(redis|rediss|unix)://.+", examples=["redis://host:6379/0"])]


class DatabaseSettings(Settings):
    """Where the system of record is: a libpq URI."""

    database_url: Annotated[str, Field(pattern=r"^postgres(ql)?://.*", examples=["postgresql://user@host:5432/voting"])]


class WebSettings(ServiceSettings, TraceSettings):
    """What both web services have: where they listen, and where people find the two pages."""

    host: str = "0.0.0.0"  # noqa: S104 - a container publishes its port; `voting up` narrows this to loopback
    vote_port: Port = 8080
    result_port: Port = 8081
    vote_url: PublicUrl = ""
    result_url: PublicUrl = ""
    https: bool = False
    allowed_origins: CommaList = ()
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    rate_limit: Annotated[float, Field(ge=0, le=1_000_000)] = 0
    rate_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000


class VoteSettings(WebSettings, RedisSettings):
    """Settings of the vote service."""

    secret_key: Annotated[str, Field(min_length=keys.LEAST_KEY)]
    secret_key_old: Annotated[tuple[keys.AcceptedKey, ...], BeforeValidator(_keys)] = ()
    ballot_policy: Literal["open", "browser"] = "open"
    web_concurrency: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = 1
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 4096
    new_voters_per_hour: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    voter_days: Annotated[int, Field(ge=1, le=365)] | None = None

    @model_validator(mode="after")
    def _distinct_keys(self) -> Self:
        numbers = [number for number, each in enumerate(self.secret_key_old, 1) if each.key == self.secret_key]
        if numbers:
            raise ValueError(
                f"SECRET_KEY_OLD: key {numbers[0]} is SECRET_KEY itself; list only the other keys that are accepted"
            )
        return self

    @property
    def voter_lifetime(self) -> int:
        """Days for which a voter's cookie is accepted; fewer where new voters are limited (docs/decisions.md)."""
        return self.voter_days or (LIMITED_VOTER_DAYS if self.new_voters_per_hour else 365)


class ResultSettings(WebSettings, DatabaseSettings):
    """Settings of the result service."""

    max_viewers: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    viewers_per_address: Annotated[int, Field(ge=0, le=1_000_000)] | None = None

    @property
    def most_per_address(self) -> int:
        """Viewers of one address: a quarter of all unless it is set; 0 is without a limit."""
        return max(1, self.max_viewers // 4) if self.viewers_per_address is None else self.viewers_per_address


class WorkerSettings(ServiceSettings, TraceSettings, RedisSettings, DatabaseSettings):
    """Settings of a worker. Workers of one group need distinct names; a container's host name is one."""

    worker_name: Annotated[
        str, Field(pattern=r"^[\w.-]{1,100}$", examples=["worker-1"], default_factory=socket.gethostname)
    ]
    batch_size: Annotated[int, Field(ge=1, le=50_000)] = 5000
    reclaim_seconds: Annotated[float, Field(gt=0, le=3600)] = 10


class MigrateSettings(ServiceSettings, DatabaseSettings):
    """Settings of the schema migration, which also writes the default poll, and the roles whose passwords are given."""

    worker_database_password: str = ""
    result_database_password: str = ""

    poll_question: Label | None = None
    option_a: Label | None = None
    option_b: Label | None = None
    options: LabelList = ()
    rename_options: LabelList = ()

    @field_validator("options")
    @classmethod
    def _enough_options(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if labels and not 2 <= len(labels) <= MAX_OPTIONS:
            raise ValueError(f"needs 2 to {MAX_OPTIONS} labels, separated by commas, and has {len(labels)}")
        return labels

    @field_validator("rename_options")
    @classmethod
    def _pairs(cls, renames: tuple[str, ...]) -> tuple[str, ...]:
        if not all(all(part.strip() for part in each.partition("=")[::2]) for each in renames):
            raise ValueError("expected OLD=NEW, with commas between several")
        return renames

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = self.options or [label for label in (self.option_a, self.option_b) if label]
        if len(set(map(fold, labels))) < len(labels):
            raise ValueError("OPTIONS (or OPTION_A and OPTION_B) must be different from each other")
        return self

    @property
    def definition(self) -> Definition:
        """What these settings say of the default poll."""
        renames = {old.strip(): new.strip() for old, _, new in (each.partition("=") for each in self.rename_options)}
        return Definition(self.poll_question, self.options or None, self.option_a, self.option_b, renames)


class StatusSettings(RedisSettings, DatabaseSettings):
    """What `voting status` needs to look at the whole; it asks the web services only if it knows their addresses."""

    vote_url: PublicUrl = ""
    result_url: PublicUrl = ""


def share_metrics() -> None:
    """Let several processes of a service add up their metrics; to be called before prometheus-client is imported.

    https://prometheus.github.io/client_python/multiprocess/
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="voting-metrics-")


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


def redacted(url: str) -> str:
    """The address of a store, without user and password, for logs and messages."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"
