"""Where settings come from: the environment, files that it names, or Parameter Store. Only this and `config` read it.

A setting comes from NAME; else from NAME_FILE, the path of a file that holds the value, as container secrets are; else,
where SSM_PREFIX is set, from Parameter Store; else it has its default. `load` checks all settings of a service and
reports every bad one at once: `BadSettings`.
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

REREAD_SECONDS = 1.0

Origins = dict[str, Callable[[], str]]


class BadSettings(Exception):
    """One or more settings are missing or wrong; `problems` holds a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseModel, validate_assignment=True, defer_build=True):
    """Settings of one service; they know how those from a file or from Parameter Store are read again.

    A class's validator is made when it is first used, since a process uses one of them: that saves it 12 MiB.
    """

    _origins: Origins = PrivateAttr(default_factory=dict)

    async def reread(self, setting: str) -> str:
        """What a setting says now: asked before each new connection, so that a rotated password needs no restart.

        What cannot be read within a second or would not be valid leaves the value from before: the connection then
        tells what is wrong, and the next one asks again.
        """
        if origin := self._origins.get(setting):
            with contextlib.suppress(OSError, ValueError, Unavailable):
                async with asyncio.timeout(REREAD_SECONDS):
                    setattr(self, setting, await asyncio.to_thread(origin))
        value: str = getattr(self, setting)
        return value


S = TypeVar("S", bound=Settings)


def load(settings_class: type[S]) -> S:
    """Read the settings of one service.

    Raises:
        BadSettings: with a sentence for every setting that is missing, unreadable or wrong.
    """
    found = _find(settings_class)
    reported = {name for name, value in found.values.items() if not value}
    try:
        settings = settings_class.model_validate(found.values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            name = str(detail["loc"][0]) if detail["loc"] else ""
            if name not in reported:
                examples = settings_class.model_fields[name].examples if name else None
                found.problems.append(_sentence(name, detail["type"], detail["msg"], examples or []))
        raise BadSettings(found.problems) from None
    if found.problems:
        raise BadSettings(found.problems)
    settings._origins = found.origins  # noqa: SLF001 - our own class
    return settings


@dataclass
class _Found:
    """What is given for each field (empty if it could not be read), how to read it again, and what is wrong."""

    values: dict[str, str] = field(default_factory=dict)
    origins: Origins = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _find(settings_class: type[Settings]) -> _Found:
    found = _Found()
    for name in settings_class.model_fields:
        _look_into_environment(found, name)
    prefix = os.environ.get("SSM_PREFIX")
    asked = {name.upper(): name for name in settings_class.model_fields if name not in found.values}
    asked.pop("METRICS_LISTEN", None)
    if prefix and asked:
        _look_into_parameters(found, Parameters(prefix), asked)
    return found


def _look_into_environment(found: _Found, setting: str) -> None:
    name = setting.upper()
    path = os.environ.get(f"{name}_FILE")
    if path and name in os.environ:
        found.problems.append(f"{name} and {name}_FILE are both set; keep one")
    if path:
        found.values[setting] = ""
        found.origins[setting] = functools.partial(_read_file, path)
        try:
            found.values[setting] = _read_file(path)
        except (OSError, UnicodeDecodeError) as error:
            found.problems.append(f"{name}_FILE: {path} cannot be read: {error}")
        else:
            if not found.values[setting]:
                found.problems.append(f"{name}_FILE: {path} is empty")
    elif os.environ.get(name):  # an empty value means "not set": compose passes those on
        found.values[setting] = os.environ[name]


def _look_into_parameters(found: _Found, parameters: Parameters, asked: dict[str, str]) -> None:
    try:
        values = parameters.read(list(asked))
    except Unavailable as error:
        found.problems.append(str(error))
        found.values |= dict.fromkeys(asked.values(), "")
        return
    for name, value in values.items():
        found.values[asked[name]] = value
        found.origins[asked[name]] = functools.partial(parameters.again, name)


def _read_file(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()


def _sentence(setting: str, kind: str, message: str, examples: list[str]) -> str:
    """Say what is wrong with one setting, without repeating a value that may be secret."""
    message = message.removeprefix("Value error, ")
    if not setting:
        return message
    name = setting.upper()
    if kind == "missing":
        prefix = os.environ.get("SSM_PREFIX", "").rstrip("/")
        if prefix:
            return (
                f"{name} is not set; set {name}, {name}_FILE to a file that holds it, or the parameter {prefix}/{name}"
            )
        return f"{name} is not set; set {name}, or {name}_FILE to a file that holds it"
    if kind == "string_pattern_mismatch":
        return f"{name}: expected something like {' or '.join(examples)}"
    return f"{name}: {message[:1].lower()}{message[1:]}"
