"""Results of each kind of poll, from the profile of choices."""

from collections import Counter
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from voting.polls.poll import Option, Poll
from voting.polls.tally import evaluate


def poll(kind: str, keys: str = "abc", **more: object) -> Poll:
    return Poll("p", "?", tuple(Option(key, key.upper()) for key in keys), kind=kind, **more)  # type: ignore[arg-type]


def test_each_option_of_a_multiple_choice_counts_the_voters_who_chose_it() -> None:
    found = evaluate(poll("multiple"), {"ac": 3, "b": 1, "abc": 2})
    assert found.votes == {"a": 5, "b": 3, "c": 5}
    assert found.total == 6


def test_a_rating_has_a_mean_and_a_distribution() -> None:
    rating = Poll("p", "?", tuple(Option(str(n), str(n)) for n in range(11)), kind="rating", scale=10)
    found = evaluate(rating, {"10": 3, "0": 1})
    assert (found.votes["10"], found.total, found.mean) == (3, 4, 7.5)
    assert evaluate(rating, {}).mean is None


def test_borda_and_the_run_off_can_have_different_winners() -> None:
    """The example of the capital of Tennessee: https://en.wikipedia.org/wiki/Instant-runoff_voting#Examples."""
    found = evaluate(poll("ranking", "mnck"), {"mnck": 42, "nckm": 26, "cknm": 15, "kcnm": 17})
    assert found.votes == {"m": 42, "n": 26, "c": 15, "k": 17}
    assert found.points == {"m": 126, "n": 194, "c": 173, "k": 107}
    assert found.runoff is not None
    assert [each.eliminated for each in found.runoff] == ["c", "n", None]
    assert found.winner == "k"
    assert found.runoff[-1].votes == {"m": 42, "k": 58}


def test_a_ballot_that_names_no_remaining_option_is_exhausted() -> None:
    found = evaluate(poll("ranking"), {"a": 4, "b": 3, "cb": 1, "c": 1})
    assert found.runoff is not None
    assert [(each.votes, each.exhausted) for each in found.runoff] == [
        ({"a": 4, "b": 3, "c": 2}, 0),
        ({"a": 4, "b": 4}, 1),
    ]
    assert found.winner is None


RANKINGS = [("".join(order)) for size in (1, 2, 3, 4) for order in permutations("abcd", size)]


@given(st.dictionaries(st.sampled_from(RANKINGS), st.integers(1, 50)))
def test_a_run_off_loses_no_ballot_and_ends(profile: dict[str, int]) -> None:
    found = evaluate(poll("ranking", "abcd"), profile)
    assert found.runoff is not None
    assert found.total == sum(profile.values())
    for each in found.runoff:
        assert sum(each.votes.values()) + each.exhausted == found.total
    assert [each.eliminated is None for each in found.runoff].count(True) == 1
    if found.winner:
        assert 2 * found.runoff[-1].votes[found.winner] > sum(found.runoff[-1].votes.values())
    reference = Counter[str]()
    for ballot, count in profile.items():
        for place, key in enumerate(ballot):
            reference[key] += count * (3 - place)
    assert found.points == {key: reference[key] for key in "abcd"}
