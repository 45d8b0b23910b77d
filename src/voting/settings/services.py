"""Settings: what each service may be told, and what it has to be. `sources.load` finds and checks them.

There is no default password or key. Each service has its own class, so none holds a credential it does not need.
"""

import socket
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from voting.polls import MAX_OPTIONS, clean, fold
from voting.settings import keys
from voting.settings.fields import (
    CommaList,
    Label,
    LabelList,
    Port,
    PublicUrl,
    split_keys,
    split_renames,
    with_valid_port,
)
from voting.settings.sources import Settings
from voting.settings.tracing import TraceSettings

LIMITED_VOTER_DAYS = 7  # for which a cookie is accepted where NEW_VOTERS_PER_HOUR is set


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

    redis_url: Annotated[
        str,
        Field(pattern=r"^(redis|rediss|unix)://.+", examples=["redis://host:6379/0"]),
        AfterValidator(with_valid_port),
    ]


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
    secret_key_old: Annotated[tuple[keys.AcceptedKey, ...], BeforeValidator(split_keys)] = ()
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
    rename_options: Annotated[tuple[tuple[str, str], ...], BeforeValidator(split_renames)] = ()

    @field_validator("options")
    @classmethod
    def _enough_options(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if labels and not 2 <= len(labels) <= MAX_OPTIONS:
            raise ValueError(f"needs 2 to {MAX_OPTIONS} labels, separated by commas, and has {len(labels)}")
        return labels

    @field_validator("rename_options")
    @classmethod
    def _pairs(cls, given: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        pairs = tuple((clean(old), clean(new)) for old, new in given)
        if {fold(old) for old, _ in pairs} & {fold(new) for old, new in pairs if fold(old) != fold(new)}:
            raise ValueError("a label is both old and new, so that each start would rename again")
        return pairs

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = self.options or [label for label in (self.option_a, self.option_b) if label]
        if len(set(map(fold, labels))) < len(labels):
            raise ValueError("OPTIONS (or OPTION_A and OPTION_B) must be different from each other")
        return self


class StatusSettings(RedisSettings, DatabaseSettings):
    """What `voting status` needs to look at the whole; it asks the web services only if it knows their addresses."""

    vote_url: PublicUrl = ""
    result_url: PublicUrl = ""
