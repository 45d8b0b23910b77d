"""Voting codes: what is read of what people type, and which codes a list accepts."""

import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from voting.polls.codes import (
    ALPHABET,
    LENGTH,
    MAX_SERIAL,
    BadCode,
    BadCodeList,
    CodeList,
    new_key,
    read_code,
    serial_in,
)

LIST = CodeList(bytes(range(32)), MAX_SERIAL)
serials = st.integers(1, MAX_SERIAL)
generations = st.integers(0, 2**31 - 1)


def verified(codes: CodeList, typed: str | bytes) -> int | str:
    """Return the serial of a code, or the reason why it is not accepted."""
    try:
        return codes.verify(read_code(typed.encode() if isinstance(typed, str) else typed))
    except BadCode as bad:
        return bad.reason


def code(codes: CodeList, serial: int) -> str:
    found = codes.code(serial)
    assert found is not None
    return found


@given(serials, generations, st.binary(min_size=32, max_size=32))
def test_a_code_is_accepted_with_its_serial_and_has_four_groups(serial: int, generation: int, key: bytes) -> None:
    codes = CodeList(key, MAX_SERIAL, {serial: generation})
    made = code(codes, serial)
    assert re.fullmatch(rf"([{ALPHABET}]{{4}}-){{3}}[{ALPHABET}]{{4}}", made)
    assert verified(codes, made) == serial
    assert serial_in(read_code(made.encode())) == serial


def test_codes_that_were_printed_stay_valid() -> None:
    assert code(LIST, 7) == "0075-1P33-MZ8H-4AWD"
    assert LIST.token(7) == b"7.dff3424dc7a9490250d697eba22257c1"
    assert LIST.pseudonym(7, b"default").hex() == "20cde1d09f9120ce6cfb1386f89c2d73"


@given(serials, st.integers(0, LENGTH - 1), st.sampled_from(ALPHABET))
def test_a_code_with_one_wrong_character_is_refused_and_mostly_as_a_typing_error(
    serial: int, place: int, character: str
) -> None:
    right = code(LIST, serial).replace("-", "")
    wrong = right[:place] + character + right[place + 1 :]
    assume(wrong != right)
    is_seen = abs(ALPHABET.index(character) - ALPHABET.index(right[place])) != 29 or place == LENGTH - 1
    assert verified(LIST, wrong) == ("typo" if is_seen else "unknown")


@given(serials, st.integers(0, LENGTH - 2))
def test_a_code_with_two_neighbours_exchanged_is_refused(serial: int, place: int) -> None:
    right = code(LIST, serial).replace("-", "")
    wrong = right[:place] + right[place + 1] + right[place] + right[place + 2 :]
    assume(wrong != right)
    assert verified(LIST, wrong) in {"typo", "unknown"}


FULL_WIDTH = str.maketrans({chr(each): chr(each + 0xFEE0) for each in range(0x21, 0x7F)})
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


@pytest.mark.parametrize(
    "as_typed",
    [
        str.lower,
        lambda text: text.replace("-", ""),
        lambda text: text.replace("-", " "),
        lambda text: f"  {text.replace('-', ' - ')}\t",
        lambda text: text.replace("-", "\N{EN DASH}"),
        lambda text: text.replace("-", "\N{NO-BREAK SPACE}"),
        lambda text: text.replace("-", "."),
        lambda text: text.replace("0", "O").replace("1", "I"),
        lambda text: text.replace("0", "o").replace("1", "l"),
        lambda text: text.translate(FULL_WIDTH),
        lambda text: text.translate(ARABIC),
    ],
)
@given(serials)
def test_a_code_is_accepted_in_each_form_that_people_type_and_browsers_encode(as_typed: object, serial: int) -> None:
    assert callable(as_typed)
    typed = as_typed(code(LIST, serial))
    assert verified(LIST, typed) == serial
    assert verified(LIST, quote(typed)) == serial
    assert verified(LIST, quote_plus(typed)) == serial


@given(st.one_of(st.text(), st.binary(max_size=5000)))
def test_anything_else_has_a_typing_error(typed: str | bytes) -> None:
    assert verified(LIST, typed) in {"typo", "unknown"}


@pytest.mark.parametrize("typed", ["", "-", "0", "U" * 16, code(LIST, 1)[:-1], code(LIST, 1) + "0", "0" * 5000, "%"])
def test_what_has_another_length_or_character_has_a_typing_error(typed: str) -> None:
    assert verified(LIST, typed) == "typo"


@given(serials, st.integers(0, 1000))
def test_a_replaced_or_revoked_code_is_unknown_and_the_new_one_is_the_same_voter(serial: int, before: int) -> None:
    old, token = (codes := CodeList(LIST.key, MAX_SERIAL, {serial: before})).code(serial), codes.token(serial)
    assert old
    replaced = CodeList(LIST.key, MAX_SERIAL, {serial: before + 1})
    revoked = CodeList(LIST.key, MAX_SERIAL, {serial: -1 - before})
    assert codes.serial_of(token) == serial
    for later in (replaced, revoked):
        assert verified(later, old) == "unknown"
        assert later.serial_of(token) is None
    assert verified(replaced, code(replaced, serial)) == serial
    assert replaced.serial_of(replaced.token(serial)) == serial
    assert replaced.pseudonym(serial, b"lunch") == codes.pseudonym(serial, b"lunch")
    assert revoked.code(serial) is None
    assert verified(revoked, code(replaced, serial)) == "unknown"


@given(serials)
def test_a_code_or_token_of_another_list_or_beyond_the_last_is_unknown(serial: int) -> None:
    made, token = code(LIST, serial), LIST.token(serial)
    for other in (CodeList(new_key(), MAX_SERIAL), CodeList(LIST.key, serial - 1), CodeList(LIST.key)):
        assert verified(other, made) == "unknown"
        assert other.serial_of(token) is None
    assert CodeList(LIST.key, serial - 1).code(serial) is None
    assert LIST.code(0) is None


@given(serials, st.integers(0, 255), st.integers(0, 40))
def test_a_token_with_any_byte_changed_is_of_no_list(serial: int, byte: int, place: int) -> None:
    token = LIST.token(serial)
    forged = token[:place] + bytes([byte]) + token[place + 1 :]
    assume(forged != token)
    assert LIST.serial_of(forged) is None


def test_a_token_tells_neither_the_code_nor_the_pseudonym() -> None:
    token = LIST.token(7)
    assert LIST.pseudonym(7, b"").hex().encode() not in token
    number = format(read_code(code(LIST, 7).encode()) & (1 << 60) - 1, "015x")
    assert number[:8].encode() not in token


@given(serials, st.binary(max_size=80))
def test_a_pseudonym_depends_on_the_serial_the_round_and_the_list(serial: int, box: bytes) -> None:
    found = LIST.pseudonym(serial, box)
    others = LIST.pseudonym(serial % MAX_SERIAL + 1, box), LIST.pseudonym(serial, box + b"#2")
    assert len(found) == 16
    assert found not in {*others, CodeList(new_key(), MAX_SERIAL).pseudonym(serial, box)}


@given(st.integers(0, MAX_SERIAL), st.dictionaries(serials, st.integers(-(2**31), 2**31 - 1), max_size=9))
def test_a_list_is_the_same_after_json(issued: int, changes: dict[int, int]) -> None:
    codes = CodeList(new_key(), issued, changes)
    assert CodeList.from_dict(json.loads(json.dumps(codes.to_dict()))) == codes
    assert codes.key.hex() not in repr(codes)
    assert repr(codes.key) not in repr(codes)


GOOD = LIST.to_dict()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        GOOD | {"key": "00"},
        GOOD | {"key": "G" * 64},
        GOOD | {"key": 0},
        GOOD | {"issued": -1},
        GOOD | {"issued": MAX_SERIAL + 1},
        GOOD | {"issued": True},
        GOOD | {"issued": "1"},
        GOOD | {"changes": []},
        GOOD | {"changes": None},
        GOOD | {"changes": {"x": 1}},
        GOOD | {"changes": {"0": 1}},
        GOOD | {"changes": {"٣": 1}},
        GOOD | {"changes": {"1": "1"}},
        GOOD | {"changes": {"1": 1.0}},
        GOOD | {"changes": {"1": 2**31}},
        GOOD | {"changes": {"1": -(2**31) - 1}},
    ],
)
def test_what_is_no_list_is_refused(data: object) -> None:
    with pytest.raises(BadCodeList):
        CodeList.from_dict(data)
