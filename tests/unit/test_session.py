"""Sessions, their codes and their JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.polls.labels import displayable
from voting.polls.session import ALPHABET, BadSession, Session, new_code, parse_code

SLUGS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True)
SESSIONS = st.builds(
    Session,
    st.builds(new_code),
    st.text(max_size=30).map(displayable),
    st.lists(SLUGS).map(tuple),
    st.none() | SLUGS,
    st.integers(0, 2**60),
)


@given(SESSIONS)
def test_a_session_survives_being_published(session: Session) -> None:
    assert Session.from_json(session.code, session.to_json()) == session
    assert parse_code(session.code.lower()) == session.code


def test_a_join_code_is_recognised_as_people_type_it_and_has_no_letters_that_look_alike() -> None:
    code = new_code()
    assert parse_code(f" {code[:3]}-{code[3:].lower()} ") == code
    assert not set("01258OIZSBLV") & set(ALPHABET)
    assert parse_code("readyz") is None


GOOD = {"title": "Meeting", "polls": ["a"], "current": None, "changed": 3}


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("ABCDE", GOOD),
        ("ACD346", []),
        ("ACD346", GOOD | {"title": 1}),
        ("ACD346", GOOD | {"polls": "abc"}),
        ("ACD346", GOOD | {"polls": [1]}),
        ("ACD346", GOOD | {"polls": ["A B"]}),
        ("ACD346", GOOD | {"current": "#"}),
        ("ACD346", GOOD | {"current": 3}),
        ("ACD346", GOOD | {"changed": "1"}),
        ("ACD346", {}),
    ],
)
def test_a_bad_session_is_refused(code: str, data: object) -> None:
    assert Session.from_json("ACD346", json.dumps(GOOD)).title == "Meeting"
    with pytest.raises(BadSession):
        Session.from_json(code, json.dumps(data))


@given(st.binary(max_size=30))
def test_whatever_the_bytes_they_are_a_session_or_bad(text: bytes) -> None:
    with pytest.raises(BadSession):
        Session.from_json("ACD346", text)
