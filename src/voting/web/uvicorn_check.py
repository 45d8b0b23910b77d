"""A check of the parts of Uvicorn that are not its public interface, made when the modules that use them are imported.

Without it, a version of Uvicorn with other names would fail at the first request.
"""

from importlib.metadata import version

TESTED = "0.54"  # and no other, as pyproject.toml says


def require(used: type, *names: str) -> None:
    """Check that a class, or what its `__init__` sets, has attributes of these names.

    Raises:
        ImportError: it has not; the message has the version that is installed, and the one that is tested.
    """
    found = {*dir(used), *used.__init__.__code__.co_names}  # type: ignore[misc]
    if missing := [name for name in names if name not in found]:
        raise ImportError(
            f"uvicorn {version('uvicorn')}: {used.__name__} has no {', '.join(missing)}; "
            f"this program is tested with uvicorn {TESTED}"
        )
