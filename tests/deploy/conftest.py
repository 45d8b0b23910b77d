"""What the tests of deploy/ and .github/ share: a Docker engine, and the tools of requirements/cloud-checks.txt."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import engine

__all__ = ["Tool", "engine", "tool"]

BIN = Path(__file__).parents[2] / ".venv-checks" / "bin"

Tool = Callable[[str], str]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """The path of a tool of requirements/cloud-checks.txt; where they are not installed the test skips."""

    def find(name: str) -> str:
        if not (BIN / name).exists():
            pytest.skip(
                f"{name} is missing (python3 -m venv .venv-checks && "
                ".venv-checks/bin/pip install --require-hashes -r requirements/cloud-checks.txt)"
            )
        return str(BIN / name)

    return find
