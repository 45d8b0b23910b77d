"""What a form of the pages sends, and what a field of the editor shows.

A form is kept as it was sent, so that it is shown again with what is wrong beside each field. `PollForm.values` makes
the input of `inputs` from it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import parse_qsl

from starlette.requests import Request

from voting.polls.poll import MAX_OPTIONS
from voting.web.language import translatable
from voting.web.problems import Problem

MAX_FIELDS = 200
_MINUTE = "%Y-%m-%dT%H:%M"
_TEXTS = ("question", "kind", "max_choices", "scale", "results", "access", "publish", "timer", "erase_days")
_TIMES = ("opens_at", "closes_at", "opens_zone", "closes_zone")
_OFFSET = re.compile(r"[+-][0-9]{2}:[0-9]{2}")


class Form:
    """The fields of a form. A field that was not sent is empty."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def get(self, name: str) -> str:
        return next((value for key, value in self._pairs if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]

    def number(self, name: str) -> int | None:
        """Return a field as a number of up to 18 digits; None if it is anything else."""
        value = self.get(name)
        return int(value) if re.fullmatch(r"[0-9]{1,18}", value, re.ASCII) else None


async def read_form(request: Request) -> Form:
    """Return the form in the body of a request; raise the 415 or 400 if there is none that can be read."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in {"", "application/x-www-form-urlencoded"}:
        raise Problem(415, "content_type", translatable("Send a form as application/x-www-form-urlencoded."))
    body = (await request.body()).decode("latin-1")
    try:
        return Form(parse_qsl(body, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Problem(400, "form", translatable("This form has too many fields.")) from None


@dataclass
class PollForm:
    """The fields of the editor of a poll, as text."""

    question: str = ""
    kind: str = "single"
    options: list[str] = field(default_factory=lambda: ["", ""])
    max_choices: str = ""
    scale: str = "5"
    results: str = "live"
    access: str = "open"
    timer: str = ""
    publish: str = "no"
    erase_days: str = ""
    opens_at: str = ""
    closes_at: str = ""
    opens_zone: str = ""  # the offset of the browser's zone at that time, such as +01:00; empty for UTC
    closes_zone: str = ""
    given: frozenset[str] = frozenset()  # names of the fields that have a value here

    @classmethod
    def of(cls, poll: Mapping[str, Any]) -> Self:
        """Return the form for the fields of a poll, as `reads.poll` has them."""
        options = [each["label"] for each in poll["options"]] if poll["kind"] != "rating" else ["", ""]
        return cls(
            question=poll["question"],
            kind=poll["kind"],
            options=options,
            max_choices=str(poll["max_choices"] or ""),
            scale=str(poll["scale"] or 5),
            results=poll["results"],
            access=poll["access"],
            timer=str(poll["timer"] or ""),
            publish="yes" if poll["publish"] else "no",
            erase_days="" if poll["erase_days"] is None else str(poll["erase_days"]),
            opens_at=_local(poll["opens_at"]),
            closes_at=_local(poll["closes_at"]),
            given=frozenset({"options", *_TEXTS, *_TIMES}),
        )

    @classmethod
    def sent(cls, form: Form) -> Self:
        """Return the form that was sent."""
        values: dict[str, Any] = {name: form.get(name) for name in (*_TEXTS, *_TIMES) if form.all(name)}
        options = form.all("option")[:MAX_OPTIONS]
        options += [""] * (2 - len(options))
        given = frozenset(values) | ({"options"} if form.all("option") else set())
        return cls(**values, options=options, given=given)

    def rearrange(self, action: str) -> bool:
        """Add, remove or move an option; return whether the action, such as `remove.3`, was one of these."""
        name, _, text = action.partition(".")
        place = int(text) if re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) else -1
        if name == "add":
            if len(self.options) < MAX_OPTIONS:
                self.options.append("")
        elif name in {"remove", "up", "down"}:
            if 0 <= place < len(self.options):
                moved = self.options.pop(place)
                if name != "remove":
                    self.options.insert(max(0, place + (1 if name == "down" else -1)), moved)
                self.options += [""] * (2 - len(self.options))
        else:
            return False
        return True

    @property
    def places(self) -> list[int]:
        """The numbers of the fields that have the options: empty ones are left out."""
        return [number for number, label in enumerate(self.options) if label.strip()]

    def values(self, poll: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the input for `NewPoll`, or for `PollChange` if there is a poll; with what was sent only."""
        values: dict[str, Any] = {name: getattr(self, name) for name in ("question", "kind", "results", "access")}
        values["timer"] = _number(self.timer) or None
        values["erase_days"] = None if self.erase_days == "" else _number(self.erase_days)
        values["max_choices"] = (_number(self.max_choices) or None) if self.kind == "multiple" else None
        values["scale"] = _number(self.scale)
        values["publish"] = self.publish == "yes"
        values["options"] = [self.options[number] for number in self.places]
        values["opens_at"] = _time(self.opens_at, self.opens_zone)
        values["closes_at"] = _time(self.closes_at, self.closes_zone)
        values = {name: value for name, value in values.items() if name in self.given}
        if self.kind == "rating":
            values.pop("options", None)
        else:
            values.pop("scale", None)
        for name in ("opens_at", "closes_at"):
            if poll and name in values and _is_same_minute(values[name], poll[name]):
                del values[name]
        return values


def _number(text: str) -> int | str:
    """Return the number that a field has; any other text is returned as it is, and refused later."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else text


def _local(at: datetime | None) -> str:
    """Return a time as a datetime-local field has it, in UTC."""
    return at.astimezone(UTC).strftime(_MINUTE) if at else ""


def _time(text: str, offset: str) -> str | None:
    """Return a time that was typed as ISO 8601 with its offset."""
    if not text:
        return None
    return text + (offset if _OFFSET.fullmatch(offset) else "Z")


def _is_same_minute(sent: str | None, stored: datetime | None) -> bool:
    """Whether a field still has the time that it showed, which has no seconds."""
    if sent is None or stored is None:
        return sent is None and stored is None
    try:
        return datetime.fromisoformat(sent).astimezone(UTC).strftime(_MINUTE) == _local(stored)
    except (ValueError, OverflowError):
        return False
