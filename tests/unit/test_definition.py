"""The default poll: whatever the settings say, a key keeps its label."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.core.ballot import BadPoll, Option, Poll
from voting.core.definition import Conflict, Definition, define

COLOURS = ("Red", "Green", "Blue")


def labels(poll: Poll) -> dict[str, str]:
    return {option.key: option.label for option in poll.options}


def test_a_new_poll_has_keys_in_order_and_the_defaults_where_nothing_is_given() -> None:
    assert define(Definition(), None, None) == Poll(
        "default", "Cats or dogs?", (Option("a", "Cats"), Option("b", "Dogs"))
    )
    assert labels(define(Definition(labels=COLOURS), None, None)) == {"a": "Red", "b": "Green", "c": "Blue"}
    assert labels(define(Definition(second="Birds"), None, None)) == {"a": "Cats", "b": "Birds"}


STORED = define(Definition("Which?", COLOURS), None, None)
VOTES = {"a": 6162, "c": 1}


def test_what_is_not_given_stays() -> None:
    assert define(Definition(), STORED, VOTES) == STORED
    assert define(Definition(question="Which colour?"), STORED, VOTES).options == STORED.options
    assert define(Definition(first="Red"), STORED, VOTES) == STORED


def test_a_label_keeps_its_key_wherever_it_stands_and_a_new_one_gets_a_new_key() -> None:
    changed = define(Definition(labels=("Blue", "White", "red", "Green")), STORED, VOTES)
    assert labels(changed) == {"c": "Blue", "d": "White", "a": "red", "b": "Green"}
    assert [option.label for option in changed.options] == ["Blue", "White", "red", "Green"]


@pytest.mark.parametrize("given", [Definition(labels=("Blue", "Green")), Definition(first="Cats", second="Dogs")])
def test_an_option_that_may_have_votes_is_not_dropped(given: Definition) -> None:
    with pytest.raises(Conflict, match=r"Red \(6,162 votes\).*"):
        define(given, STORED, VOTES)


def test_a_poll_that_never_had_a_vote_may_be_anything() -> None:
    assert labels(define(Definition(labels=("Tea", "Coffee")), STORED, None)) == {"a": "Tea", "b": "Coffee"}


def test_an_option_is_renamed_and_renaming_it_again_changes_nothing() -> None:
    given = Definition(labels=("Crimson", "Green", "Blue"), renames={"Red": "Crimson"})
    renamed = define(given, STORED, VOTES)
    assert labels(renamed) == {"a": "Crimson", "b": "Green", "c": "Blue"}
    assert define(given, renamed, VOTES) == renamed
    with pytest.raises(Conflict, match="same label"):
        define(Definition(renames={"Red": "blue"}), STORED, VOTES)


NAMES = st.lists(st.sampled_from("ABCDEFGHabcdefgh"), min_size=2, max_size=8, unique_by=str.casefold).map(tuple)


@given(st.lists(NAMES, min_size=1, max_size=8))
def test_whatever_settings_follow_each_other_no_key_changes_its_label(settings: list[tuple[str, ...]]) -> None:
    poll = define(Definition(labels=settings[0]), None, None)
    meant = labels(poll)
    for names in settings[1:]:
        try:
            poll = define(Definition(labels=names), poll, {})
        except Conflict:
            continue
        for key, label in labels(poll).items():
            assert meant.setdefault(key, label).casefold() == label.casefold()
        assert len(poll.options) == len(names)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["key", "label", "question", "options"]), inner)
    ),
    max_leaves=12,
)


@given(st.text(max_size=8), JSON, JSON)
def test_whatever_is_read_is_a_poll_or_a_bad_one(slug: str, question: object, options: object) -> None:
    try:
        poll = Poll.of(slug, question, options)
    except BadPoll:
        return
    assert Poll.from_json(slug, poll.to_json()) == poll


@given(st.binary(max_size=40) | JSON.map(repr).map(str.encode))
def test_whatever_bytes_the_broker_holds_are_a_poll_or_a_bad_one(text: bytes) -> None:
    with pytest.raises(BadPoll):
        Poll.from_json("default", text)
