"""Choices of each kind of poll, boxes of rounds, and states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.polls.poll import BadChoice, BadPoll, Option, Poll
from voting.polls.slug import box, split_box
from voting.polls.state import STATES, TRANSITIONS, ForbiddenTransition, transition

OPTIONS = tuple(Option(key, key.upper()) for key in "abcd")


def poll(kind: str, **more: object) -> Poll:
    return Poll("lunch", "?", OPTIONS, kind=kind, **more)  # type: ignore[arg-type]


def test_several_keys_are_one_choice_in_the_order_that_the_kind_has() -> None:
    assert poll("multiple").parse_choice(["ca"]) == "ac"
    assert poll("multiple").parse_choice(["c", "", "a"]) == "ac"
    assert poll("ranking").parse_choice(["c", "a", ""]) == "ca"
    assert poll("single").parse_choice(["c"]) == "c"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("single", ["a", "b"]),
        ("single", []),
        ("single", ["ab"]),
        ("multiple", ["aa"]),
        ("multiple", ["ax"]),
        ("multiple", ["abc"]),
        ("ranking", ["a", "b", "a"]),
        ("ranking", [""]),
    ],
)
def test_other_values_are_no_choice(kind: str, values: list[str]) -> None:
    with pytest.raises(BadChoice):
        poll(kind, max_choices=2 if kind == "multiple" else None).parse_choice(values)


@given(st.sampled_from(["single", "multiple", "ranking"]), st.lists(st.sampled_from("abcd"), max_size=5))
def test_what_is_parsed_is_accepted(kind: str, values: list[str]) -> None:
    try:
        choice = poll(kind).parse_choice(values)
    except BadChoice:
        return
    assert poll(kind).accepts(choice)


def test_a_multiple_choice_is_accepted_in_one_form_only() -> None:
    assert poll("multiple").accepts("ac")
    assert not poll("multiple").accepts("ca")


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True), st.integers(1, 10**8))
def test_a_box_names_its_slug_and_round(slug: str, number: int) -> None:
    assert split_box(box(slug, number)) == (slug, number)


@pytest.mark.parametrize("name", ["", "a#", "a#1", "a#0", "a#01", "a#2#3", "A#2", "#2", "a#-2"])
def test_another_name_is_no_box(name: str) -> None:
    assert split_box(name) is None


def test_json_keeps_everything_that_the_vote_service_needs() -> None:
    more = {"max_choices": 2, "state": "draft", "round": 3, "results": "hidden", "ticket": "t", "changed": 7}
    one = poll("multiple", opens_at=1.5, closes_at=2.0, **more)
    assert Poll.from_json("lunch", one.to_json()) == one


def test_a_poll_that_an_earlier_version_published_is_open() -> None:
    text = '{"question": "?", "options": [{"key": "a", "label": "A"}]}'
    assert Poll.from_json("lunch", text).state == "open"


@pytest.mark.parametrize("more", [{"kind": "x"}, {"state": 1}, {"round": "2"}, {"closes_at": "now"}, {"scale": 7}])
def test_an_unknown_value_is_a_bad_poll(more: dict[str, object]) -> None:
    with pytest.raises(BadPoll):
        Poll.from_parts("lunch", "?", [{"key": "a", "label": "A"}], more)


def test_the_table_allows_each_transition_and_no_other() -> None:
    for state in STATES:
        assert transition(state, state) is None
    assert transition("final", "closed") is None  # it is closed already
    for state in STATES:
        for to in STATES:
            if to != "final" and (state, to) in TRANSITIONS:
                assert transition(state, to) == TRANSITIONS[state, to]
            elif state != to and (state, to) != ("final", "closed"):
                with pytest.raises(ForbiddenTransition, match="you can"):
                    transition(state, to)
