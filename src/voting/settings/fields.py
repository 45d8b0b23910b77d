"""TODO voting.settings.fields."""

import contextlib
import json
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from voting.polls import clean
from voting.settings import keys


def split_list(value: object) -> object:
    """Turn `a, b,c` into ("a", "b", "c"); a real sequence passes through."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def split_keys(value: object) -> object:
    """Read SECRET_KEY_OLD; what is no text passes through."""
    return keys.parse(value) if isinstance(value, str) else value


def split_labels(value: object) -> object:
    """Turn `a, b` or, for labels with commas, `["a, b", "c"]` into a tuple."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return tuple(json.loads(value))
        except (ValueError, RecursionError):
            raise ValueError('expected a JSON list such as ["Red, warm", "Blue"], or labels with commas') from None
    return split_list(value)


def split_renames(value: object) -> object:
    """Turn `a=b, c=d` into pairs."""
    parts = split_labels(value)
    if isinstance(value, str) and isinstance(parts, tuple):
        if not all(isinstance(part, str) and "=" in part for part in parts):
            raise ValueError(f"expected OLD=NEW, with commas between several, such as Cats=Kittens, and not {value}")
        return tuple(part.split("=", 1) for part in parts)
    return value


def with_valid_port(url: str) -> str:
    """Refuse a URL whose host or port Python's parser does not take; the message does not repeat it."""
    with contextlib.suppress(ValueError):
        urlsplit(url).port  # noqa: B018 - reading it is the check
        return url
    raise ValueError("needs one host, and a port from 0 to 65535 if any")


CommaList = Annotated[tuple[str, ...], BeforeValidator(split_list)]
Port = Annotated[int, Field(ge=1, le=65535)]
Label = Annotated[str, AfterValidator(clean)]
LabelList = Annotated[tuple[Label, ...], BeforeValidator(split_labels)]
PublicUrl = Annotated[
    str,
    Field(pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*)?)?$", max_length=500, examples=["https://vote.example.org"]),
    AfterValidator(with_valid_port),
]
