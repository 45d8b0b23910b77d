"""Checks at import that Uvicorn has the private attributes that this program uses.

Without this check, another version of Uvicorn would fail at the first request.
"""

from importlib.metadata import version

TESTED = "0.54"  # the only version that pyproject.toml allows


def require_attributes(used: type, *names: str) -> None:
    """Raise ImportError if one of these attributes is defined by neither a class nor its `__init__`."""
    found = {*dir(used), *used.__init__.__code__.co_names}  # type: ignore[misc]
    if missing := [name for name in names if name not in found]:
        raise ImportError(
            f"uvicorn {version('uvicorn')}: {used.__name__} has no {', '.join(missing)}; "
            f"this program is tested with uvicorn {TESTED}"
        )
