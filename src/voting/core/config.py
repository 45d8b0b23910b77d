"""Settings: what each service may be told, and what it has to be. `sources.load` finds and checks them.

There is no default password or key. Each service has its own class, so none holds a credential it does not need.
"""

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from voting.core.ballot import DEFAULT_POLL, KEYS, MAX_OPTIONS, Option, Poll
from voting.core.sources import BadSettings, Settings, load
from voting.core.tracing import TraceSettings

__all__ = ["BadSettings", "load"]

UNLOCKED_SECONDS = 60.0  # far longer than a new directory of metrics stays without its lock


def _split(value: object) -> object:
    """Turn `a, b,c` into ("a", "b", "c"); a real sequence passes through."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _with_valid_port(url: str) -> str:
    """Refuse a URL whose host or port Python's parser does not take; the message does not repeat it."""
    with contextlib.suppress(ValueError):
        urlsplit(url).port  # noqa: B018 - reading it is the check
        return url
    raise ValueError("needs one host, and a port from 0 to 65535 if any")


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
Port = Annotated[int, Field(ge=1, le=65535)]
Label = Annotated[str, Field(min_length=1, max_length=200)]
PublicUrl = Annotated[
    str,
    Field(pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*)?)?$", max_length=500, examples=["https://vote.example.org"]),
    AfterValidator(_with_valid_port),
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

    redis_url: Annotated[
        str,
        Field(pattern=r"^(redis|rediss|unix)://.+", examples=["redis://host:6379/0"]),
        AfterValidator(_with_valid_port),
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


class VoteSettings(WebSettings, RedisSettings):
    """Settings of the vote service."""

    secret_key: Annotated[str, Field(min_length=32)]
    secret_key_old: CommaList = ()
    ballot_policy: Literal["open", "browser"] = "open"
    web_concurrency: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = 1
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 4096
    new_voters_per_hour: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class ResultSettings(WebSettings, DatabaseSettings):
    """Settings of the result service."""

    max_viewers: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    viewers_per_address: Annotated[int, Field(ge=0, le=1_000_000)] = 0


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

    poll_question: Label = "Cats or dogs?"
    option_a: Label = "Cats"
    option_b: Label = "Dogs"
    options: CommaList = ()

    @field_validator("options")
    @classmethod
    def _enough_options(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if labels and not 2 <= len(labels) <= MAX_OPTIONS:
            raise ValueError(f"needs 2 to {MAX_OPTIONS} labels, separated by commas, and has {len(labels)}")
        return labels

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = [option.label for option in self.poll.options]
        if len(set(labels)) < len(labels):
            raise ValueError("OPTIONS (or OPTION_A and OPTION_B) must be different from each other")
        return self

    @property
    def poll(self) -> Poll:
        """The default poll as these settings define it."""
        labels = self.options or (self.option_a, self.option_b)
        options = tuple(Option(key, label) for key, label in zip(KEYS, labels, strict=False))
        return Poll(DEFAULT_POLL, self.poll_question, options)


class StatusSettings(RedisSettings, DatabaseSettings):
    """What `voting status` needs to look at the whole; it asks the web services only if it knows their addresses."""

    vote_url: PublicUrl = ""
    result_url: PublicUrl = ""


def share_metrics() -> None:
    """Let several processes of a service add up their metrics; to be called before prometheus-client is imported.

    They do it in a temporary directory, which this process removes at its end. It also removes those that killed
    processes left: nothing holds their lock. https://prometheus.github.io/client_python/multiprocess/
    """
    prefix = f"voting-metrics-{os.geteuid()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.lstat().st_mtime > UNLOCKED_SECONDS:
                os.close(_lock(folder))
                shutil.rmtree(folder)
    ours = tempfile.mkdtemp(prefix=prefix)
    _lock(ours)  # until the last process that shares it has ended
    atexit.register(shutil.rmtree, ours, ignore_errors=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = ours


def _lock(folder: str | Path) -> int:
    """Lock a directory of this user; return the descriptor that holds the lock.

    Raises:
        OSError: another process has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


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


_HOST = r"(?:[\w.-]*|\[[\da-fA-F:.]*\])(?::\d*)?"
_STORE_URL = re.compile(
    rf"(postgres(?:ql)?|rediss?|unix)://(?:[^/?#]*@)?({_HOST}(?:,{_HOST})*)(/[^@?#\s]*)?(?:[?#][^@]*)?", re.ASCII
)


def redacted(url: str) -> str:
    """Return the address of a store for logs and messages: scheme, hosts and path, and never a user or a password.

    Of a text that can be read in another way (an `@` after the hosts, as in a password that was not quoted), only
    the scheme is returned.
    """
    if found := _STORE_URL.fullmatch(url):
        return "{}://{}{}".format(*found.groups(""))
    scheme = re.match(r"(postgres(ql)?|rediss?|unix)://", url)
    return f"{scheme[0] if scheme else ''}..."
