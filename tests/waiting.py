"""Waiting for an effect, with a deadline instead of a sleep that hopes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], *, within: float = 10, every: float = 0.02) -> T:
    """Call `check` until it gives something true, and return that.

    An AssertionError or OSError of the check counts as "not yet"; the last one is raised when time is up.
    """
    end = time.monotonic() + within
    while True:
        failure: Exception | None = None
        try:
            found = check()
            if found:
                return found
        except (AssertionError, OSError) as error:
            failure = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {check}") from failure
        time.sleep(every)
