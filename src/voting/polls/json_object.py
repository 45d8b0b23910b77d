"""Parses JSON objects."""

import json
from typing import Any


def parse_object(text: str | bytes, fault: type[ValueError]) -> dict[str, Any]:
    """Return a JSON object, or raise the given error."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fault(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise fault("not a JSON object")
    return data
