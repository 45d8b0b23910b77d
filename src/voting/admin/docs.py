"""What the page `/docs` shows: the OpenAPI document as plain rows, with an example for each operation."""

import json
import shlex
from typing import Any, NamedTuple

Document = dict[str, Any]


class Row(NamedTuple):
    """A parameter or a field."""

    name: str
    type: str
    required: bool
    text: str


class Operation(NamedTuple):
    """One method of one path."""

    name: str  # of the anchor
    method: str
    path: str
    title: str
    text: str
    rows: list[Row]
    curl: str
    answer: str


def sections(document: Document, url: str) -> dict[str, list[Operation]]:
    """Return the operations by their tag; `url` is that of the service."""
    found: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation["tags"][0], []).append(_operation(document, url, path, method, operation))
    return found


def _operation(document: Document, url: str, path: str, method: str, operation: Document) -> Operation:
    rows = [_row(each["name"], each["schema"] | each, required=each["required"]) for each in operation["parameters"]]
    body = None
    if "requestBody" in operation:
        schema = _resolve(document, operation["requestBody"]["content"]["application/json"]["schema"])
        needed = schema.get("required", [])
        rows += [_row(name, field, required=name in needed) for name, field in schema["properties"].items()]
        body = EXAMPLES[operation["operationId"]]
    status = next(iter(operation["responses"]))
    heading, _, text = operation["description"].partition("\n")
    curl = _curl(url + path, method.upper(), body)
    name = operation["operationId"]
    return Operation(name, method.upper(), path, heading, text.strip(), rows, curl, status)


def _row(name: str, field: Document, *, required: bool) -> Row:
    return Row(name, _type(field), required, field.get("description", ""))


def _type(field: Document) -> str:
    """Return the type of a field in words."""
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    if "enum" in field:
        return " or ".join(json.dumps(each) for each in field["enum"])
    if "const" in field:
        return json.dumps(field["const"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("format") == "date-time":
        return "time"
    bounds = [f"{word} {field[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in field]
    return " ".join([field.get("type", "any"), *bounds])


def _resolve(document: Document, schema: Document) -> Document:
    name = schema["$ref"].rpartition("/")[2]
    resolved: Document = document["components"]["schemas"][name]
    return resolved


def _curl(url: str, method: str, body: Document | None) -> str:
    parts = ["curl"] + ([] if method == "GET" else ["-X", method]) + ['-H "Authorization: Bearer $ADMIN_KEY"']
    if body is not None:
        parts.append(f"\\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(json.dumps(body))}")
    for name, value in (("{slug}", "lunch"), ("{code}", "ACDEFG")):
        url = url.replace(name, value)
    return " ".join([*parts, shlex.quote(url)])


EXAMPLES: dict[str, Document] = {  # by operation id
    "create_poll": {"question": "Where do we eat?", "options": ["Here", "There"], "slug": "lunch"},
    "change_poll": {"state": "open", "closes_in": 60},
    "create_session": {"title": "All hands", "polls": ["lunch"]},
    "change_session": {"current": "lunch"},
    "make_poll_codes": {"count": 100},
    "revoke_poll_codes": {"numbers": [7]},
    "replace_poll_codes": {"numbers": [7]},
    "make_session_codes": {"count": 100},
    "revoke_session_codes": {"numbers": [7]},
    "replace_session_codes": {"numbers": [7]},
}
