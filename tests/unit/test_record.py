"""The record of a final round and the list of ballots: written, parsed, compared and counted again."""

import contextlib
import hashlib
import io
import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from voting.operate.verify import count_ballots, describe, faults
from voting.operate.verify_command import verify
from voting.polls.options import new_options, scale_options
from voting.polls.poll import Poll
from voting.polls.record import BadBallots, BadRecord, BallotCount, ballot_line, header_line, make_record, parse_record
from voting.polls.tracker import parse_tracker, tracker, tracker_text
from voting.polls.vote import EntryId

LABELS = new_options(["Rome", "Oslo", "Bonn"])
POLLS = {
    "single": (Poll("trip", "Where?", LABELS, state="final"), ("a", "b", "c")),
    "multiple": (Poll("trip", "Where?", LABELS, "multiple", state="final", round=2), ("a", "ab", "abc", "bc")),
    "rating": (Poll("trip", "How good?", scale_options(5), "rating", scale=5, state="final"), ("1", "3", "5")),
    "ranking": (Poll("trip", "Where?", LABELS, "ranking", state="final"), ("abc", "cab", "b", "bca")),
}


def published(kind: str, number: int = 60) -> tuple[bytes, str]:
    """Return the list of ballots of a poll, and its record."""
    poll, choices = POLLS[kind]
    ballots = sorted((tracker("key", EntryId(n, 0)), choices[n % 7 % len(choices)]) for n in range(number))
    tally = {choice: [found for _, found in ballots].count(choice) for choice in choices}
    file = header_line() + b"".join(ballot_line(*ballot) for ballot in ballots)
    return file, make_record(poll, tally, hashlib.sha256(file).hexdigest(), final="2026-01-01T00:00:00+00:00")


def run(tmp_path: Path, ballots: bytes, record: str, *options: str) -> tuple[int, str]:
    (tmp_path / "ballots.csv").write_bytes(ballots)
    (tmp_path / "final.json").write_text(record)
    result = CliRunner().invoke(verify, [str(tmp_path / "ballots.csv"), *options])
    return result.exit_code, result.output


@pytest.mark.parametrize("kind", POLLS)
def test_a_published_list_agrees_with_its_record(tmp_path: Path, kind: str) -> None:
    code, output = run(tmp_path, *published(kind))
    assert code == 0
    assert "✓ the ballots add up to the record, and the file is the one that was published" in output
    assert "60 ballots" in output
    expected = {"rating": "average: ", "ranking": "winner of the run-off: "}
    assert expected.get(kind, "") in output


@pytest.mark.parametrize("kind", POLLS)
def test_a_ballot_that_was_added_removed_changed_or_doubled_is_found(tmp_path: Path, kind: str) -> None:
    file, record = published(kind)
    header, *lines = file.splitlines(keepends=True)
    place = random.Random(kind).randrange(1, len(lines))  # noqa: S311 - any place will do
    line, choices = lines[place], POLLS[kind][1]
    own = line.strip().partition(b",")[2].decode()
    other = next(choice for choice in choices if choice != own).encode()
    changed = line.partition(b",")[0] + b"," + other + b"\r\n"
    added = ballot_line(b"\x01" * 8, own)
    found = {}
    for name, tampered in {
        "added": [*lines, added],
        "removed": [*lines[:place], *lines[place + 1 :]],
        "changed": [*lines[:place], changed, *lines[place + 1 :]],
        "doubled": [*lines, line],
        "swapped": [*lines[place:], *lines[:place]],
        "forbidden": [*lines[:place], line.replace(b"\r\n", b"zz\r\n"), *lines[place + 1 :]],
    }.items():
        code, found[name] = run(tmp_path, header + b"".join(tampered), record)
        assert code == 1, name
        assert "✗ the file is not the one that was published" in found[name]
    assert "✗ the list has 61 ballots, and the record 60" in found["added"]
    assert "✗ the list has 59 ballots, and the record 60" in found["removed"]
    assert f"✗ choice '{own}': " in found["changed"]
    assert f"✗ choice '{other.decode()}': " in found["changed"]
    assert "✗ repeated trackers: 1; the first is" in found["doubled"]
    assert found["swapped"].count("✗") == 1
    assert "✗ the list has a choice that the poll does not allow" in found["forbidden"]


@pytest.mark.parametrize("kind", POLLS)
def test_a_record_that_was_changed_is_found(tmp_path: Path, kind: str) -> None:
    file, text = published(kind)
    record = json.loads(text)
    choice = next(iter(record["tally"]))
    changes = {
        "question": "Who?",
        "options": record["options"][:-1],
        "total": 61,
        "tally": record["tally"] | {choice: record["tally"][choice] + 1},
        "ballots": "0" * 64,
        "final": "2026-01-02T00:00:00+00:00",
    }
    for name, value in changes.items():
        code, output = run(tmp_path, file, json.dumps(record | {name: value}))
        assert (code, "✗ the record was changed" in output) == (1, True), name


def test_a_record_with_a_new_fingerprint_differs_from_the_one_that_was_noted(tmp_path: Path) -> None:
    poll, _ = POLLS["single"]
    file, genuine = published("single")
    noted = json.loads(genuine)["fingerprint"]
    lines = file.splitlines(keepends=True)[:-1]
    forged = make_record(poll, {}, hashlib.sha256(b"".join(lines)).hexdigest())
    counts = {
        option.key: sum(line.endswith(f",{option.key}\r\n".encode()) for line in lines) for option in poll.options
    }
    forged = make_record(poll, counts, hashlib.sha256(b"".join(lines)).hexdigest())
    assert run(tmp_path, b"".join(lines), forged)[0] == 0  # consistent, so only the fingerprint tells
    code, output = run(tmp_path, b"".join(lines), forged, "--fingerprint", noted[:16].upper())
    assert code == 1
    assert "✗ this is not the record whose fingerprint you gave" in output
    assert run(tmp_path, file, genuine, "--fingerprint", noted)[0] == 0
    assert run(tmp_path, file, genuine, "--fingerprint", noted[:8])[0] == 2


@pytest.mark.parametrize(
    ("ballots", "record", "expected"),
    [
        (b"", "", "is not a record: not JSON"),
        (b"", "{}", "is not a record: its poll is not valid: a value has a wrong type"),
        (b"tracker\r\n", published("single")[1], "is not a list of ballots: its first line is not tracker,choice"),
        (header_line() + b"1234,a\r\n", published("single")[1], "is not a list of ballots: line 2 is not"),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path: Path, ballots: bytes, record: str, expected: str) -> None:
    code, output = run(tmp_path, ballots, record)
    assert code == 1
    assert expected in output
    (tmp_path / "final.json").unlink()
    result = CliRunner().invoke(verify, [str(tmp_path / "ballots.csv")])
    assert "No such file or directory; download it from the poll's page" in result.output


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_a_bad_one(data: bytes) -> None:
    with contextlib.suppress(BadRecord):
        parse_record(data)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=5)  # with halves of surrogate pairs


@given(
    st.sampled_from(list(POLLS)),
    st.dictionaries(
        st.sampled_from([*json.loads(published("single")[1]), "note"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.just(10**4299),
            ANY_TEXT,
            st.lists(st.integers(), max_size=2),
            st.dictionaries(ANY_TEXT, st.integers(), max_size=2),
            st.just([{"key": "a", "label": "x"}, {"key": "7", "label": "y"}]),
        ),
    ),
)
def test_a_record_with_any_values_is_compared_or_refused(kind: str, values: dict[str, object]) -> None:
    file, record = published(kind)
    count = count_ballots(io.BytesIO(file))
    with contextlib.suppress(BadRecord):
        parsed = parse_record(json.dumps(json.loads(record) | values))
        assert isinstance(describe(parsed, count), str)
        assert bool(faults(parsed, count)) == (parsed.data != json.loads(record))


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_lines_are_counted_or_refused(lines: list[bytes]) -> None:
    count = BallotCount(header_line())
    for line in lines:
        try:
            count.add(line)
        except BadBallots:
            return
    assert count.ballots == len(lines)


@given(st.binary(min_size=8, max_size=8), st.sampled_from([" ", "-", ""]))
def test_a_tracker_is_found_however_it_is_typed(value: bytes, sign: str) -> None:
    text = tracker_text(value)
    assert parse_tracker(text.replace("-", sign).upper()) == value
    assert parse_tracker(text[:-1]) is None
    assert parse_tracker(text + "0") is None
