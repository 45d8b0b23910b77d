"""How `./voting bench` evaluates and writes its figures; nothing is measured here."""

import json
from pathlib import Path

import pytest
from bench.report import Outcome, Results, Threshold, generator_threshold, percentile, spread

MACHINE = {"cpu": "2 cores of something", "memory": "4 GiB"}
ORDER = ["first", "second"]


def outcome(rate: float, name: str = "accept") -> Outcome:
    thresholds = [Threshold("rate to that of the limit", rate / 100, 0.5), Threshold("lost", 0, 0, at_most=True)]
    return Outcome(
        name, "votes/s", [rate - 10, rate, rate + 30], [90, 100, 120], thresholds, {"vote": [0.08, 0.06, 0.07]}
    )


@pytest.mark.parametrize(
    ("value", "limit", "at_most", "met"),
    [(0.5, 0.5, False, True), (0.49, 0.5, False, False), (2, 2, True, True), (2.01, 2, True, False)],
)
def test_a_threshold_is_met_at_its_limit(value: float, limit: float, at_most: bool, met: bool) -> None:  # noqa: FBT001
    assert Threshold("x", value, limit, at_most=at_most).met is met


@pytest.mark.parametrize("at_most", [True, False])
def test_what_could_not_be_measured_meets_no_threshold(at_most: bool) -> None:  # noqa: FBT001
    assert not Threshold("x", float("nan"), 1, at_most=at_most).met


def test_a_generator_that_takes_its_whole_core_is_called_out() -> None:
    assert generator_threshold([0.2, 0.5]).met
    assert not generator_threshold([0.2, 0.99]).met


def test_the_ratio_is_that_of_the_medians_and_the_spread_shows_the_range() -> None:
    assert outcome(60).ratio == 0.6
    assert Outcome("footprint", "MiB", [200]).ratio is None
    assert spread([3, 1, 2000]) == "3 (1 to 2,000)"


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.5) == 51
    assert percentile(values, 0.99) == 100
    assert percentile([7], 0.99) == 7


def test_the_tables_say_which_marks_are_met_and_which_are_missed(tmp_path: Path) -> None:
    results = Results(tmp_path, MACHINE, ORDER)
    results.add("first", outcome(60))
    results.add("second", outcome(40, "revotes"))
    text = (tmp_path / "results.md").read_text()
    assert "2 cores of something, 4 GiB." in text
    assert "3 of 4 marks met; missed:\n- revotes: rate to that of the limit" in text
    assert "| accept | 60 (50 to 90) votes/s | 100 (90 to 120) | 0.60 | 2 of 2 met |" in text
    assert "| accept | rate to that of the limit | 0.6 | ≥ 0.5 | met |" in text
    assert "| revotes | rate to that of the limit | 0.4 | ≥ 0.5 | **missed** |" in text
    assert "| accept | vote 0.07 |" in text


def test_a_measure_taken_again_replaces_its_own_and_leaves_the_others(tmp_path: Path) -> None:
    Results(tmp_path, MACHINE, ORDER).add("second", outcome(40, "revotes"))
    Results(tmp_path, MACHINE, ORDER).add("first", outcome(60))
    Results(tmp_path, MACHINE, ORDER).add("second", outcome(70, "revotes"))
    kept = Results(tmp_path, MACHINE, ORDER).outcomes
    assert list(kept) == ORDER
    assert kept == {"first": outcome(60), "second": outcome(70, "revotes")}
    assert json.loads((tmp_path / "results.json").read_text())["measures"]["second"]["met"] is True


def test_results_of_two_machines_are_not_put_into_one_table(tmp_path: Path) -> None:
    Results(tmp_path, MACHINE, ORDER).add("first", outcome(60))
    with pytest.raises(ValueError, match="another machine"):
        Results(tmp_path, MACHINE | {"memory": "8 GiB"}, ORDER)


def test_a_mark_says_which_way_it_goes() -> None:
    assert Threshold("memory", 1, 2, at_most=True).goal == "≤ 2"
    assert Threshold("rate", 1, 2).goal == "≥ 2"
