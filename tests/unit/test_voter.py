"""The voter's cookie: who is recognised, and who is not."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.vote.voter import Voters

KEY = "k" * 32
VOTERS = Voters(KEY, (), https=False)


def cookie_of(voters: Voters) -> tuple[bytes, bytes]:
    """A new voter's pseudonym, and the Cookie header that its browser sends."""
    voter = voters.new()
    assert voter.cookie is not None
    return voter.pseudonym, voter.cookie.split(b";")[0]


def test_a_browser_that_comes_back_is_the_same_voter_and_gets_no_new_cookie() -> None:
    pseudonym, cookie = cookie_of(VOTERS)
    again = VOTERS.recognise(b"theme=dark; " + cookie + b"; x=y")
    assert again is not None
    assert again.pseudonym == pseudonym
    assert again.cookie is None


def test_two_browsers_are_two_voters() -> None:
    assert cookie_of(VOTERS)[0] != cookie_of(VOTERS)[0]


def test_the_cookie_does_not_hold_what_is_stored() -> None:
    pseudonym, cookie = cookie_of(VOTERS)
    token = cookie.partition(b"=")[2]
    parts = [base64.urlsafe_b64decode(part + b"==") for part in token.split(b".")]
    assert len(pseudonym) == 16
    assert pseudonym not in parts


def test_a_voter_stays_the_same_while_keys_rotate_and_is_new_once_the_old_key_has_gone() -> None:
    pseudonym, cookie = cookie_of(VOTERS)
    rotating = Voters("n" * 32, (KEY,), https=False).recognise(cookie)
    assert rotating is not None
    assert rotating.pseudonym == pseudonym
    assert Voters("n" * 32, (), https=False).recognise(cookie) is None


def test_an_idempotency_key_is_one_voter_and_its_cookie_is_the_same_one() -> None:
    voter = VOTERS.derive(b"a-random-key")
    assert voter == VOTERS.derive(b"a-random-key")
    assert voter.cookie is not None
    known = VOTERS.recognise(voter.cookie.split(b";")[0])
    assert known is not None
    assert known.pseudonym == voter.pseudonym
    assert VOTERS.derive(b"a-random-kex").pseudonym != voter.pseudonym
    assert Voters("n" * 32, (KEY,), https=False).derive(b"a-random-key").pseudonym != voter.pseudonym


def test_an_idempotency_key_that_reads_like_a_cookies_id_is_not_that_voter() -> None:
    pseudonym, cookie = cookie_of(VOTERS)
    encoded_id = cookie.partition(b"=")[2].partition(b".")[0]
    voter_id = base64.urlsafe_b64decode(encoded_id + b"==")
    for key in (encoded_id, voter_id, cookie):
        assert VOTERS.derive(key).pseudonym != pseudonym


def test_under_https_the_cookie_is_secure_and_bound_to_the_host() -> None:
    cookie = Voters(KEY, (), https=True).new().cookie
    assert cookie is not None
    assert cookie.startswith(b"__Host-voter_id=")
    assert b"; Secure" in cookie
    plain = VOTERS.new().cookie
    assert plain is not None
    assert b"; HttpOnly; SameSite=Lax" in plain
    assert b"Secure" not in plain


@given(st.integers(0, 44), st.integers(0, 255))
def test_a_token_with_any_byte_changed_is_not_recognised(position: int, byte: int) -> None:
    _, cookie = cookie_of(VOTERS)
    name, _, token = cookie.partition(b"=")
    forged = token[:position] + bytes([byte]) + token[position + 1 :]
    if forged != token:
        seen = VOTERS.recognise(name + b"=" + forged)
        # base64 leaves four bits of its last character unused: there, another character can be the same token
        assert seen is None or position in {21, 44}


@pytest.mark.parametrize(
    "header", [None, b"", b"voter_id", b"voter_id=", b"voter_id=x.y", b"other=1", b"=;=;", b"voter_id=" + b"A" * 45]
)
def test_no_cookie_a_broken_one_or_a_foreign_one_is_nobody(header: bytes | None) -> None:
    assert VOTERS.recognise(header) is None


@given(st.binary(max_size=200))
def test_no_cookie_header_breaks_it(header: bytes) -> None:
    assert VOTERS.recognise(b"voter_id=" + header) is None
