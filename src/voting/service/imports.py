"""Imports without optional packages, which some libraries load wherever they are installed, and which we do not use."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(package: str) -> Iterator[None]:
    """Let imports in the block find that a package is not installed, unless it has been imported before."""
    is_absent = sys.modules.setdefault(package, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if is_absent:
            del sys.modules[package]
