"""What is used of Uvicorn's implementation is there, or importing says what is missing."""

import re
import tomllib
from pathlib import Path

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from voting.web.uvicorn_check import TESTED, require_attributes


def test_attributes_and_methods_are_found() -> None:
    require_attributes(RequestResponseCycle, "keep_alive", "send")


def test_a_missing_attribute_is_an_import_error_that_names_it_and_the_tested_version() -> None:
    with pytest.raises(ImportError, match=rf"RequestResponseCycle has no keeps_alive; .* {re.escape(TESTED)}"):
        require_attributes(RequestResponseCycle, "keep_alive", "keeps_alive")


def test_no_later_version_than_the_tested_one_is_allowed() -> None:
    needs = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["dependencies"]
    (uvicorn,) = [each for each in needs if each.startswith("uvicorn")]
    major, minor = map(int, TESTED.split("."))
    assert uvicorn.endswith(f"<{major}.{minor + 1}")
