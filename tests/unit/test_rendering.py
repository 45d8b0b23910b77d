"""How both web services answer in words."""

import pytest

from voting.web.rendering import fill
from voting.web.responses import prefers_json


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", True),
        ("application/problem+json", True),
        ("text/html,application/json;q=0.9", False),
    ],
)
def test_json_is_for_those_who_ask_for_it(accept: str, *, json: bool) -> None:
    assert prefers_json({b"accept": accept.encode()}) is json


def test_what_is_put_into_a_text_is_escaped_and_keeps_its_own_direction() -> None:
    assert fill("<{label}> is in", label="<b>") == "&lt;<bdi>&lt;b&gt;</bdi>&gt; is in"
