"""Refusals of the admin service, and how operations on the database make them.

Operations raise `Problem`, or `Invalid` for input that is wrong. Pages show them in the reader's language; the API
sends them as problem details (RFC 9457) with `reason`, and with `errors` for each field that is wrong.
"""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import Scope

from voting.web import language
from voting.web.language import Language, translatable
from voting.web.problems import PROBLEM_JSON, Problem
from voting.web.rendering import Pages


class FieldError(NamedTuple):
    """What is wrong with one field of the input; `field` is a path such as `options.3`, "" is the input itself."""

    field: str
    message: str  # English, with {names} for `values`
    values: Mapping[str, object] = MappingProxyType({})

    def text(self, reader: Language) -> str:
        return reader.text(self.message).format(**self.values)


class Fault(ValueError):
    """A validator's error, with a message to translate and its values."""

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message.format(**values))
        self.message, self.values = message, values


class Invalid(Problem):
    """Input that is wrong: 422, with an error for each field."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(422, "invalid", self._first)
        self.errors = tuple(errors)

    def _first(self, reader: Language) -> str:
        first = self.errors[0]
        return f"{first.field}: {first.text(reader)}" if first.field else first.text(reader)


def invalid(field: str, message: str, **values: object) -> Invalid:
    """Return the refusal of one field."""
    return Invalid([FieldError(field, message, values)])


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: dict[str, Any]) -> M:
    """Return the input as a model of `inputs`, or raise `Invalid`; for forms, whose fields are strings and lists."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise Invalid(field_errors(error.errors(include_url=False))) from None


_MESSAGES = {  # pydantic's error types: https://docs.pydantic.dev/latest/errors/validation_errors/
    "missing": translatable("This field is needed."),
    "extra_forbidden": translatable("There is no such field."),
    "datetime_from_date_parsing": translatable("Give a date and a time with a time zone, such as 2027-01-31T18:00Z."),
    "datetime_parsing": translatable("Give a date and a time with a time zone, such as 2027-01-31T18:00Z."),
    "datetime_type": translatable("Give a date and a time with a time zone, such as 2027-01-31T18:00Z."),
    "timezone_aware": translatable("The time zone is missing. Add it to the time, such as Z or +01:00."),
    "json_invalid": translatable("The body is not valid JSON."),
}


def field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """Return pydantic's errors as ours. Nothing of the input is in them, since it may be a secret."""
    found = []
    for error in errors:
        place = [str(part) for part in error["loc"] if part not in {"body", "query", "path", "header"}]
        fault = error.get("ctx", {}).get("error")
        if isinstance(fault, Fault):
            found.append(FieldError(".".join(place), fault.message, fault.values))
        elif error["type"] == "json_invalid":
            found.append(FieldError("", _MESSAGES["json_invalid"]))
        else:
            text = _MESSAGES.get(error["type"]) or error["msg"].replace("{", "{{").replace("}", "}}") + "."
            found.append(FieldError(".".join(place), text))
    return found


class AdminPages(Pages):
    """Templates and assets of the admin service; the API is refused with problem details, whatever Accept says."""

    def __init__(self) -> None:
        super().__init__("voting.admin")

    def refusal(self, problem: Problem, scope: Scope, back: str = "/") -> Response:
        """Return the response to a refused request."""
        is_api = scope["path"].startswith("/api")
        return _problem_response(problem, scope) if is_api else super().refusal(problem, scope, back)


def _problem_response(problem: Problem, scope: Scope) -> Response:
    reader = language.negotiate(dict(scope["headers"]), scope["query_string"])
    document = problem.fields(reader)
    if isinstance(problem, Invalid):
        document["errors"] = [{"field": each.field, "message": each.text(reader)} for each in problem.errors]
    body = json.dumps(document, ensure_ascii=False).encode(errors="replace")
    response = Response(body, problem.status, {"content-language": reader.code}, PROBLEM_JSON)
    if problem.status == 401:
        response.headers["www-authenticate"] = 'Bearer realm="voting admin"'
    if problem.retry_after:
        response.headers["retry-after"] = str(problem.retry_after)
    return response
