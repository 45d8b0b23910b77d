"""The default poll: whatever the settings are, a key keeps its label."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.database.definition import Definition, DefinitionConflict, default_poll
from voting.polls.poll import BadPoll, Option, Poll

COLOURS = ("Red", "Green", "Blue")


def labels(poll: Poll) -> dict[str, str]:
    return {option.key: option.label for option in poll.options}


def offered(poll: Poll) -> dict[str, str]:
    return {option.key: option.label for option in poll.offered}


def test_a_new_poll_has_keys_in_order_and_defaults_for_unset_settings() -> None:
    assert default_poll(Definition(), None, {}) == Poll(
        "default", "Cats or dogs?", (Option("a", "Cats"), Option("b", "Dogs"))
    )
    assert labels(default_poll(Definition(labels=COLOURS), None, {})) == {"a": "Red", "b": "Green", "c": "Blue"}
    assert labels(default_poll(Definition(second="Birds"), None, {})) == {"a": "Cats", "b": "Birds"}


STORED = default_poll(Definition("Which?", COLOURS), None, {})
VOTES = {"a": 6162, "c": 1}


def test_unset_settings_change_nothing() -> None:
    assert default_poll(Definition(), STORED, VOTES) == STORED
    assert default_poll(Definition(question="Which colour?"), STORED, VOTES).options == STORED.options
    assert default_poll(Definition(first="Red"), STORED, VOTES) == STORED


def test_a_label_keeps_its_key_in_any_position_and_a_new_label_gets_a_new_key() -> None:
    changed = default_poll(Definition(labels=("Blue", "White", "red", "Green")), STORED, VOTES)
    assert labels(changed) == {"c": "Blue", "d": "White", "a": "red", "b": "Green"}
    assert [option.label for option in changed.options] == ["Blue", "White", "red", "Green"]
    two = default_poll(Definition(first="Dogs", second="Cats"), default_poll(Definition(), None, {}), VOTES)
    assert two.options == (Option("b", "Dogs"), Option("a", "Cats"))
    assert default_poll(Definition(first="Dogs", second="Cats"), two, VOTES) == two


def test_a_key_with_votes_and_no_option_is_not_used_again() -> None:
    """Versions before this one dropped options and kept their votes."""
    assert labels(default_poll(Definition(labels=(*COLOURS, "White")), STORED, VOTES | {"d": 5}))["e"] == "White"


@pytest.mark.parametrize("definition", [Definition(labels=("Blue", "Green")), Definition(first="Blue", second="Green")])
def test_no_option_of_a_poll_with_votes_is_removed(definition: Definition) -> None:
    with pytest.raises(DefinitionConflict, match=r"votes: Red \(6,162 votes\)\. Nothing was changed"):
        default_poll(definition, STORED, VOTES)
    with pytest.raises(DefinitionConflict, match=r"Red \(0 votes\)"):
        default_poll(definition, STORED, {"b": 1})


def test_before_the_first_vote_an_option_is_retired_and_keeps_its_key() -> None:
    changed = default_poll(Definition(labels=("Tea", "Blue")), STORED, {})
    assert offered(changed) == {"d": "Tea", "c": "Blue"}
    assert labels(changed) == {"a": "Red", "b": "Green", "c": "Blue", "d": "Tea"}
    again = default_poll(Definition(labels=("Red", "Coffee")), changed, {})
    assert offered(again) == {"a": "Red", "e": "Coffee"}
    late = {"c": 1}  # for an option that was retired while the vote was on its way
    assert default_poll(Definition(labels=("Red", "Coffee")), again, late) == again


def test_a_poll_has_at_most_36_keys() -> None:
    poll: Poll | None = None
    for number in range(0, 36, 2):
        poll = default_poll(Definition(labels=(f"{number}", f"{number + 1}")), poll, {})
    with pytest.raises(DefinitionConflict, match="36 options"):
        default_poll(Definition(labels=("New", "Newer")), poll, {})


def test_an_option_is_renamed_and_renaming_it_again_changes_nothing() -> None:
    definition = Definition(labels=("Crimson", "Green", "Blue"), renames={"Red": "Crimson"})
    renamed = default_poll(definition, STORED, VOTES)
    assert labels(renamed) == {"a": "Crimson", "b": "Green", "c": "Blue"}
    assert default_poll(definition, renamed, VOTES) == renamed
    with pytest.raises(DefinitionConflict, match="another option has that label"):
        default_poll(Definition(renames={"Red": "blue"}), STORED, VOTES)
    with pytest.raises(DefinitionConflict, match=r"no option Rad\. The options are: Red, Green, Blue"):
        default_poll(Definition(renames={"Rad": "Crimson"}), STORED, VOTES)


NAMES = st.lists(st.sampled_from("ABCDEFGHabcdefgh"), min_size=2, max_size=8, unique_by=str.casefold).map(tuple)


@given(st.lists(st.tuples(NAMES, st.dictionaries(st.sampled_from("abcdefgh"), st.just(1), max_size=3)), min_size=1))
def test_no_sequence_of_settings_changes_the_label_of_a_key(
    settings: list[tuple[tuple[str, ...], dict[str, int]]],
) -> None:
    poll: Poll | None = None
    meant: dict[str, str] = {}
    for names, votes in settings:
        counted = {key: 1 for key in votes if key in meant}
        try:
            poll = default_poll(Definition(labels=names), poll, counted)
        except DefinitionConflict:
            continue
        for key, label in labels(poll).items():
            assert meant.setdefault(key, label).casefold() == label.casefold()
        assert meant.keys() == labels(poll).keys()
        assert tuple(option.label for option in poll.offered) == names


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=8),  # surrogates, too
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["key", "label", "retired"]), inner),
    max_leaves=12,
)


@given(st.text(max_size=8), JSON, JSON)
def test_any_data_is_a_poll_or_raises_bad_poll(slug: str, question: object, options: object) -> None:
    try:
        poll = Poll.from_parts(slug, question, options)
    except BadPoll:
        return
    assert Poll.from_json(slug, poll.to_json()).options == poll.offered
    assert Poll.from_parts(slug, poll.question, json.loads(poll.options_json())) == poll
    poll.to_json().encode()
    f"{poll.question} {poll.options}".encode()  # as a page does


@given(st.binary(max_size=40) | JSON.map(repr).map(str.encode))
def test_bytes_that_are_not_a_poll_raise_bad_poll(text: bytes) -> None:
    with pytest.raises(BadPoll):
        Poll.from_json("default", text)
