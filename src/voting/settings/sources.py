"""Reads settings from the environment, from files that it names, or from Parameter Store.

A setting comes from NAME; else from NAME_FILE, the path of a file that holds the value, such as a container secret;
else, if SSM_PREFIX is set, from Parameter Store; else from its default. `load` reports every bad setting at once.
"""

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, PrivateAttr, ValidationError

from voting.settings.parameters import Parameters, Unavailable

REREAD_SECONDS = 1.0  # time limit for reading a setting again before a connection

Readers = dict[str, Callable[[], str]]


class BadSettings(Exception):
    """One or more settings are missing or wrong; `problems` holds a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseModel, validate_assignment=True, defer_build=True, regex_engine="python-re"):
    """Settings of a service; those from a file or from Parameter Store can be read again.

    Pydantic builds a class's validator on first use (`defer_build`), since a process uses one class: this saves 12 MiB.
    """

    _readers: Readers = PrivateAttr(default_factory=dict)

    async def reread(self, setting: str) -> str:
        """Return the current value of a setting; called before each connection, so a password can be rotated.

        If the value is not read within `REREAD_SECONDS`, or is not valid, return the previous one; the connection then
        reports what is wrong.
        """
        if reader := self._readers.get(setting):
            with contextlib.suppress(OSError, ValueError, Unavailable):
                async with asyncio.timeout(REREAD_SECONDS):
                    setattr(self, setting, await asyncio.to_thread(reader))
        value: str = getattr(self, setting)
        return value


S = TypeVar("S", bound=Settings)


def load(settings_class: type[S]) -> S:
    """Read the settings of a service, or raise `BadSettings` with all problems."""
    found = _read_all(settings_class)
    reported = {name for name, value in found.values.items() if not value}
    try:
        settings = settings_class.model_validate(found.values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            name = str(detail["loc"][0]) if detail["loc"] else ""
            if name not in reported:
                examples = settings_class.model_fields[name].examples if name else None
                found.problems.append(_message(name, detail["type"], detail["msg"], examples or []))
        raise BadSettings(found.problems) from None
    if found.problems:
        raise BadSettings(found.problems)
    settings._readers = found.readers  # noqa: SLF001 - our own class
    return settings


@dataclass
class _Found:
    """The text of each field (empty if it could not be read), how to read it again, and what is wrong."""

    values: dict[str, str] = field(default_factory=dict)
    readers: Readers = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _read_all(settings_class: type[Settings]) -> _Found:
    found = _Found()
    for name in settings_class.model_fields:
        _read_environment(found, name)
    prefix = os.environ.get("SSM_PREFIX")
    missing = {name.upper(): name for name in settings_class.model_fields if name not in found.values}
    missing.pop("METRICS_LISTEN", None)  # not asked of Parameter Store: each health check loads it, every few seconds
    if prefix and missing:
        _read_parameters(found, Parameters(prefix), missing)
    return found


def _read_environment(found: _Found, setting: str) -> None:
    name = setting.upper()
    path = os.environ.get(f"{name}_FILE")
    if path and name in os.environ:
        found.problems.append(f"{name} and {name}_FILE are both set; keep one")
    if path:
        found.values[setting] = ""
        found.readers[setting] = functools.partial(_read_file, path)
        try:
            found.values[setting] = _read_file(path)
        except (OSError, UnicodeDecodeError) as error:
            found.problems.append(f"{name}_FILE: {path} cannot be read: {error}")
        else:
            if not found.values[setting]:
                found.problems.append(f"{name}_FILE: {path} is empty")
    elif os.environ.get(name):  # Compose passes unset variables on as empty values
        found.values[setting] = os.environ[name]


def _read_parameters(found: _Found, parameters: Parameters, fields: dict[str, str]) -> None:
    try:
        values = parameters.read(list(fields))
    except Unavailable as error:
        found.problems.append(str(error))
        found.values |= dict.fromkeys(fields.values(), "")
        return
    for name, value in values.items():
        found.values[fields[name]] = value
        found.readers[fields[name]] = functools.partial(parameters.reread, name)


def _read_file(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()


def _message(setting: str, kind: str, message: str, examples: list[str]) -> str:
    """Return what is wrong with one setting, without its value, which may be secret."""
    message = message.removeprefix("Value error, ")
    if not setting:
        return message
    name = setting.upper()
    if kind == "missing":
        ways = [name, f"{name}_FILE to a file that holds it"]
        if prefix := os.environ.get("SSM_PREFIX", "").rstrip("/"):
            ways.append(f"the parameter {prefix}/{name}")
        return f"{name} is not set; set {', '.join(ways[:-1])}, or {ways[-1]}"
    if kind == "string_pattern_mismatch":
        return f"{name}: expected something like {' or '.join(examples)}"
    return f"{name}: {message[:1].lower()}{message[1:]}"
