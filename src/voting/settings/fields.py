"""Types of settings, with their parsers and checks."""

import contextlib
import json
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from voting.polls.labels import clean_label
from voting.settings import keys


def parse_list(value: object) -> object:
    """Parse `a, b,c` into ("a", "b", "c"); like the other parsers, return values that are not text unchanged."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def parse_keys(value: object) -> object:
    """Parse the text of SECRET_KEY_OLD."""
    return keys.parse(value) if isinstance(value, str) else value


def parse_labels(value: object) -> object:
    """Parse `a, b` or, for labels with commas, `["a, b", "c"]`."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return tuple(json.loads(value))
        except (ValueError, RecursionError):
            raise ValueError('expected a JSON list such as ["Red, warm", "Blue"], or labels with commas') from None
    return parse_list(value)


def parse_renames(value: object) -> object:
    """Parse `a=b, c=d` into pairs."""
    parts = parse_labels(value)
    if isinstance(value, str) and isinstance(parts, tuple):
        if not all(isinstance(part, str) and "=" in part for part in parts):
            raise ValueError(f"expected OLD=NEW, separated by commas, such as Cats=Kittens, not {value}")
        return tuple(part.split("=", 1) for part in parts)
    return value


def check_host_and_port(url: str) -> str:
    """Return the URL if Python's parser accepts its host and port; the error does not contain it."""
    with contextlib.suppress(ValueError):
        urlsplit(url).port  # noqa: B018 - the property parses
        return url
    raise ValueError("expected one host and, if any, a port from 0 to 65535")


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Return origins if each is one that a Content-Security-Policy can name."""
    for origin in origins:
        if not re.fullmatch(r"https?://(\*\.)?[A-Za-z0-9._-]+(:\d{1,5})?", origin):
            raise ValueError(f"expected origins such as https://www.example.org, separated by commas, not {origin}")
    return origins


AcceptedKeys = Annotated[tuple[keys.AcceptedKey, ...], BeforeValidator(parse_keys)]
CommaList = Annotated[tuple[str, ...], BeforeValidator(parse_list)]
OriginList = Annotated[CommaList, AfterValidator(check_origins)]
Port = Annotated[int, Field(ge=1, le=65535)]
Label = Annotated[str, AfterValidator(clean_label)]
LabelList = Annotated[tuple[Label, ...], BeforeValidator(parse_labels)]
Renames = Annotated[tuple[tuple[str, str], ...], BeforeValidator(parse_renames)]
HostUrl = Annotated[str, Field(pattern=r"^(redis|rediss|unix)://.+"), AfterValidator(check_host_and_port)]
PublicUrl = Annotated[
    str,
    Field(pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*)?)?\Z", max_length=500, examples=["https://vote.example.org"]),
    AfterValidator(check_host_and_port),
]
