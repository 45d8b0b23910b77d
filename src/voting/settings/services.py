"""The settings of each service: name, type, bounds, default and meaning. `sources.load` reads and checks them.

There is no default password or key. Each service has its own class, so none holds a credential it does not need.
The string below a setting is its description in docs/reference.md (`python -m tests.reference`).
"""

import socket
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from voting.polls.labels import clean_label, fold_label
from voting.polls.poll import MAX_OPTIONS
from voting.settings import keys
from voting.settings.fields import (
    CommaList,
    HostUrl,
    Label,
    LabelList,
    OriginList,
    Port,
    PublicUrl,
    Renames,
)
from voting.settings.sources import Settings
from voting.settings.tracing import TraceSettings
from voting.settings.voters import VoterSettings


class ProbeSettings(Settings):
    """Settings of a health check."""

    metrics_listen: Annotated[
        str, Field(pattern=r"^(unix:/.+|.+:\d+)\Z", examples=["0.0.0.0:9100", "unix:/run/voting.sock"])
    ] = "0.0.0.0:9100"
    """The private address for probes and metrics; never read from Parameter Store, since health checks are frequent."""


class ServiceSettings(ProbeSettings):
    """Settings of every service."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """The format of log lines; `auto` is `console` on a terminal and `json` elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged; libraries log warnings and errors only."""


class RedisSettings(Settings):
    """The message broker."""

    redis_url: Annotated[
        HostUrl, Field(examples=["redis://host:6379/0", "rediss://host:6379/0", "unix:///run/redis.sock"])
    ]
    """The URL of Redis; `rediss://` is verified TLS, with `?ssl_ca_certs=FILE` for an authority of your own. A changed
    file or parameter is used for the next connection."""


class DatabaseSettings(Settings):
    """The system of record."""

    database_url: Annotated[str, Field(pattern=r"^postgres(ql)?://.*", examples=["postgresql://user@host:5432/voting"])]
    """The libpq URI of PostgreSQL; for verified TLS add `?sslmode=verify-full&sslrootcert=FILE`. A changed file or
    parameter is used for the next connection."""


class WebSettings(ServiceSettings):
    """Settings of every web service."""

    host: Annotated[str, Field(examples=["127.0.0.1"])] = "0.0.0.0"  # noqa: S104 - containers publish one port
    """The address to listen on."""
    vote_port: Port = 8080
    """The port of the vote service."""
    result_port: Port = 8081
    """The port of the result service."""
    admin_port: Port = 8082
    """The port of the admin service."""
    vote_url: PublicUrl = ""
    """The public URL of the ballot, for links and the QR code; set it where the public can reach you. Without it, links
    lead to the host of the request, at `VOTE_PORT`."""
    result_url: Annotated[PublicUrl, Field(examples=["https://result.example.org"])] = ""
    """The public URL of the result, for links; set it where the public can reach you. Without it, links lead to the
    host of the request, at `RESULT_PORT`."""
    https: bool = False
    """Whether browsers reach the ballot over HTTPS: its cookie is then `Secure` and has the prefix `__Host-`. Used by
    vote only; in containers `VOTE_HOST` sets it (docs/operations.md#https)."""
    allowed_origins: Annotated[CommaList, Field(examples=["https://a.example.org, https://b.example.org"])] = ()
    """Public origins from which votes and WebSockets are accepted; needed where a proxy changes `Host`."""
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    """The number of your proxies that add to `X-Forwarded-For`; with 0 the header is ignored."""
    rate_limit: Annotated[float, Field(ge=0, le=1_000_000)] = 0
    """Requests a second from one address (with IPv6 a /64; a /48 gets 16 times as many); more get 429. 0 is off."""
    rate_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Requests that one address may send at once under `RATE_LIMIT`."""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """The maximum number of open connections of one process; more get 503. Where `TRUSTED_PROXIES` is 0, one address
    may hold three quarters of them, and at most 6,000."""


class VoteSettings(WebSettings, VoterSettings, TraceSettings, RedisSettings):
    """Settings of the vote service."""

    web_concurrency: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = 1
    """The number of processes; `auto` is one for each core of the machine or container."""
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 4096
    """The maximum number of votes of one process that wait for Redis at the same time; more are refused with 503."""


class ResultSettings(WebSettings, TraceSettings, DatabaseSettings):
    """Settings of the result service."""

    max_viewers: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """The maximum number of open WebSockets."""
    viewers_per_address: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """The maximum number from one address, by default a quarter of `MAX_VIEWERS`; a /48 of IPv6 may have up to half of
    all. 0 is no limit."""
    embed_origins: Annotated[OriginList, Field(examples=["https://www.example.org, https://*.example.com"])] = ()
    """Origins whose pages may show `/embed/SLUG` in an iframe; without it, none may."""

    @property
    def max_viewers_per_address(self) -> int:
        """Viewers that one address may have; 0 is no limit."""
        return max(1, self.max_viewers // 4) if self.viewers_per_address is None else self.viewers_per_address


class AdminSettings(WebSettings, DatabaseSettings):
    """Settings of the admin service."""

    admin_key: Annotated[str, Field(min_length=keys.MIN_LENGTH)]
    """The key that allows everything in the admin service: in its link, or as `Authorization: Bearer`."""
    admin_url: Annotated[PublicUrl, Field(examples=["https://admin.example.org"])] = ""
    """The public URL of the admin service, for host links. Without it, they lead to the host of the request, at
    `ADMIN_PORT`. With `https://` its cookies are `Secure`."""
    webhook_url: Annotated[PublicUrl, Field(examples=["https://hooks.example.org/voting"])] = ""
    """The URL that gets a signed POST when a poll is opened or closed; off without it
    (docs/polls.md#webhooks)."""
    webhook_key: Annotated[str, Field(max_length=500)] = ""
    """The key that signs webhooks, at least 32 characters; needed with `WEBHOOK_URL`."""

    @model_validator(mode="after")
    def _webhook_has_a_key(self) -> Self:
        if self.webhook_url and len(self.webhook_key) < keys.MIN_LENGTH:
            raise ValueError(f"WEBHOOK_URL needs WEBHOOK_KEY, with at least {keys.MIN_LENGTH} characters")
        return self


class WorkerSettings(ServiceSettings, TraceSettings, RedisSettings, DatabaseSettings):
    """Settings of the worker."""

    worker_name: Annotated[
        str, Field(pattern=r"^[\w.-]{1,100}\Z", examples=["worker-1"], default_factory=socket.gethostname)
    ]
    """The worker's name in the consumer group: different for each worker, and the same after a restart."""
    batch_size: Annotated[int, Field(ge=1, le=50_000)] = 5000
    """The maximum number of entries in a batch."""
    reclaim_seconds: Annotated[float, Field(gt=0, le=3600)] = 10
    """Seconds after which entries of a dead worker are claimed by another."""


class MigrateSettings(ServiceSettings, DatabaseSettings):
    """Settings of the schema migration, which also writes the default poll and the roles whose passwords are set."""

    worker_database_password: str = ""
    """The password of the role `voting_worker`, which is created where this is set."""
    result_database_password: str = ""
    """The password of the role `voting_result`, which is created where this is set."""
    admin_database_password: str = ""
    """The password of the role `voting_admin`, which is created where this is set."""

    poll_question: Label | None = None
    """The question: `Cats or dogs?` in a new database. Where it is not set, the stored one stays, as with options."""
    option_a: Label | None = None
    """The first option: in a new database `Cats`, with the key `a`. Without `OPTION_B`, the other stored options
    stay."""
    option_b: Label | None = None
    """The second option: in a new database `Dogs`, with the key `b`. Without `OPTION_A`, the other stored options
    stay."""
    options: Annotated[LabelList, Field(examples=["Red, Green, Blue", '["Red, warm", "Blue"]'])] = ()
    """2 to 20 options in place of `OPTION_A` and `OPTION_B`; labels with commas need a JSON list."""
    rename_options: Annotated[Renames, Field(examples=["Old label=New label, Gren=Green"])] = ()
    """Renames options, which keep their votes (docs/decisions.md#a-poll-with-votes-keeps-its-meaning)."""

    @field_validator("options")
    @classmethod
    def _enough_options(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if labels and not 2 <= len(labels) <= MAX_OPTIONS:
            raise ValueError(f"expected 2 to {MAX_OPTIONS} labels, separated by commas, not {len(labels)}")
        return labels

    @field_validator("rename_options")
    @classmethod
    def _clean_renames(cls, renames: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        pairs = tuple((clean_label(old), clean_label(new)) for old, new in renames)
        folded = [(fold_label(old), fold_label(new)) for old, new in pairs]
        if {old for old, _ in folded} & {new for old, new in folded if old != new}:
            raise ValueError("a label is both an old and a new one, so each start would rename it again")
        return pairs

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = self.options or [label for label in (self.option_a, self.option_b) if label]
        if len(set(map(fold_label, labels))) < len(labels):
            raise ValueError("OPTIONS (or OPTION_A and OPTION_B) must be different from each other")
        return self


class StatusSettings(RedisSettings, DatabaseSettings):
    """Settings of `voting status`, which asks the web services only where their URLs are set."""

    vote_url: PublicUrl = ""
    result_url: PublicUrl = ""
    admin_url: PublicUrl = ""
    admin_bind: str = "127.0.0.1"


class AdminLinkSettings(Settings):
    """Settings of `voting admin-link`."""

    admin_key: str
    admin_url: PublicUrl = ""
    admin_port: Port = 8082
