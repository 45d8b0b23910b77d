"""SECRET_KEY_OLD: its format, and the messages about mistakes in it."""

import contextlib
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.settings.keys import AcceptedKey, parse

A, B = "a" * 32, "b" * 40


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", ()),
        ("# no key\n#\n\n", ()),
        (A, (AcceptedKey(A),)),
        (f"{A},{B}", (AcceptedKey(A), AcceptedKey(B))),
        (f"# next\n{A}\r\n\n{B} until 2027-01-31\n", (AcceptedKey(A), AcceptedKey(B, date(2027, 1, 31)))),
        (f"{A}  until  2027-01-31 , {B}", (AcceptedKey(A, date(2027, 1, 31)), AcceptedKey(B))),
        ("#" + A, (AcceptedKey("#" + A),)),
    ],
)
def test_keys_are_separated_by_lines_or_commas_and_may_have_a_date(text: str, keys: tuple[AcceptedKey, ...]) -> None:
    assert parse(text) == keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{A},short-secret", "key 2 has 12 characters, and at least 32 are needed"),
        (f"short until 2027-01-31,{A}", "key 1 has 5 characters"),
        (f"{A}\n{B}\n{A} until 2027-01-31", "keys 1 and 3 are the same"),
        (f"{A} until 2027-02-30", "key 1: expected a date such as 2027-01-31 after `until`"),
        (f"{A} until tomorrow", "key 1: expected a date"),
    ],
)
def test_a_mistake_is_reported_with_the_number_of_the_key_and_not_with_the_key(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert "short-secret" not in str(caught.value)
    assert A not in str(caught.value)


def test_a_key_with_a_date_is_accepted_to_the_end_of_that_day_in_utc() -> None:
    assert AcceptedKey(A, date(2027, 1, 31)).expires_at == datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    assert AcceptedKey(A).expires_at == float("inf")


@given(st.text())
def test_any_text_is_parsed_or_refused_with_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(len(each.key) >= 32 for each in parse(text))
