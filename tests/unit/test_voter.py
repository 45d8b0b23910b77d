"""The voter's cookie: which ones are recognised, and the pseudonyms."""

import base64
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.settings.keys import AcceptedKey
from voting.vote.voter import DAY, Voters

KEY, NEXT = "k" * 32, "n" * 32
VOTERS = Voters(KEY, (), https=False)
POLL = b"default"
EARLIER = b"voter_id=AAECAwQFBgcICQoLDA0ODw.Tmi653UHsID7AxgVGn6U2Q"  # made by the version before, with KEY
EARLIER_PSEUDONYM = bytes.fromhex("e5000e7f4fc3751e4b678abea7b7086b")


class Clock:
    """A clock that a test sets, in seconds since the epoch."""

    def __init__(self, now: float = 1_800_000_000) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def cookie_of(voters: Voters) -> tuple[bytes, bytes]:
    """Return a new voter's pseudonym, and the Cookie header that its browser sends."""
    voter = voters.new()
    assert voter.cookie is not None
    return voter.pseudonym(POLL), voter.cookie.split(b";")[0]


def pseudonym(voters: Voters, cookie: bytes, poll: bytes = POLL) -> bytes | None:
    """Return the pseudonym of a cookie; None if it is not recognised."""
    voter = voters.recognise(cookie)
    return voter.pseudonym(poll) if voter else None


def test_a_browser_that_comes_back_is_the_same_voter_and_gets_no_new_cookie() -> None:
    stored, cookie = cookie_of(VOTERS)
    again = VOTERS.recognise(b"theme=dark; " + cookie + b"; x=y")
    assert again is not None
    assert again.pseudonym(POLL) == stored
    assert again.cookie is None


def test_two_browsers_are_two_voters() -> None:
    assert cookie_of(VOTERS)[0] != cookie_of(VOTERS)[0]


def test_a_pseudonym_differs_from_poll_to_poll_and_is_the_same_in_one() -> None:
    stored, cookie = cookie_of(VOTERS)
    assert len(stored) == 16
    found = [pseudonym(VOTERS, cookie, poll) for poll in (POLL, b"lunch", b"lunch-2")]
    assert found[0] == stored
    assert len(set(found)) == 3


def test_a_pseudonym_depends_on_the_key() -> None:
    voter_id = bytes(16)
    assert (
        len(
            {
                voters._create(voters._keys[0], voter_id).pseudonym(POLL)
                for voters in (VOTERS, Voters(NEXT, (), https=False))
            }
        )
        == 2
    )


def test_the_cookie_does_not_contain_the_pseudonym() -> None:
    stored, cookie = cookie_of(VOTERS)
    token = base64.urlsafe_b64decode(cookie.partition(b"=")[2])
    assert len(token) == 36
    assert stored not in token


def test_a_cookie_of_the_earlier_format_keeps_its_one_pseudonym_in_every_poll() -> None:
    years_later = Voters(KEY, (), https=False, days=1, clock=Clock(4_000_000_000))
    for voters in (VOTERS, years_later, Voters(NEXT, (AcceptedKey(KEY),), https=False)):
        assert [pseudonym(voters, EARLIER, poll) for poll in (POLL, b"lunch")] == [EARLIER_PSEUDONYM] * 2
    voter = VOTERS.recognise(EARLIER)
    assert voter is not None
    assert voter.cookie is None


def test_a_voter_stays_the_same_while_replicas_change_their_key_one_after_another() -> None:
    before = Voters(KEY, (), https=False)
    first = Voters(KEY, (AcceptedKey(NEXT),), https=False)
    second = Voters(NEXT, (AcceptedKey(KEY),), https=False)
    after = Voters(NEXT, (), https=False)
    for one, other in ((before, first), (first, second), (second, after)):
        for makes in (one, other):
            stored, cookie = cookie_of(makes)
            known = {pseudonym(voters, cookie) for voters in (one, other)}
            assert known == {stored} or (makes, other) == (before, after)
    assert pseudonym(after, cookie_of(before)[1]) is None


def test_an_accepted_key_ends_with_its_last_day() -> None:
    clock = Clock(datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC).timestamp())
    stored, cookie = cookie_of(Voters(KEY, (), https=False, clock=clock))
    rotating = Voters(NEXT, (AcceptedKey(KEY, date(2027, 1, 31)),), https=False, clock=clock)
    assert pseudonym(rotating, cookie) == stored
    assert pseudonym(rotating, EARLIER) == EARLIER_PSEUDONYM
    clock.now += 1
    assert pseudonym(rotating, cookie) is None
    assert pseudonym(rotating, EARLIER) is None


def test_a_cookie_is_accepted_for_its_days_and_not_longer() -> None:
    clock = Clock()
    voters = Voters(KEY, (), https=False, days=7, clock=clock)
    stored, cookie = cookie_of(voters)
    clock.now += 7 * DAY - 1
    assert pseudonym(voters, cookie) == stored
    clock.now += 1
    assert pseudonym(voters, cookie) is None
    made = voters.new().cookie
    assert made is not None
    assert b"; Max-Age=604800;" in made


def test_a_cookie_of_a_replica_whose_clock_is_ahead_is_accepted() -> None:
    stored, cookie = cookie_of(Voters(KEY, (), https=False, clock=Clock(1_800_000_060)))
    assert pseudonym(Voters(KEY, (), https=False, clock=Clock()), cookie) == stored


def test_an_idempotency_key_is_one_voter_and_so_is_its_cookie() -> None:
    voter = VOTERS.derive(b"a-random-key")
    stored = voter.pseudonym(POLL)
    assert VOTERS.derive(b"a-random-key").pseudonym(POLL) == stored
    assert voter.cookie is not None
    assert pseudonym(VOTERS, voter.cookie.split(b";")[0]) == stored
    assert VOTERS.derive(b"a-random-kex").pseudonym(POLL) != stored


def test_an_idempotency_key_is_the_same_voter_at_every_replica_while_the_key_is_rotated() -> None:
    end = date(2100, 1, 1)
    steps = [((), KEY), ((AcceptedKey(NEXT),), KEY), ((AcceptedKey(KEY, end),), NEXT)]
    found = {Voters(key, accepted, https=False).derive(b"a-random-key").pseudonym(POLL) for accepted, key in steps}
    assert len(found) == 1


def test_an_idempotency_key_that_looks_like_a_cookie_is_not_its_voter() -> None:
    stored, cookie = cookie_of(VOTERS)
    token = cookie.partition(b"=")[2]
    raw = base64.urlsafe_b64decode(token)
    for key in (token, raw, raw[:16], raw[:20], cookie):
        assert VOTERS.derive(key).pseudonym(POLL) != stored


def test_under_https_the_cookie_is_secure_and_bound_to_the_host() -> None:
    cookie = Voters(KEY, (), https=True).new().cookie
    assert cookie is not None
    assert cookie.startswith(b"__Host-voter_id=")
    assert b"; Secure" in cookie
    plain = VOTERS.new().cookie
    assert plain is not None
    assert b"; HttpOnly; SameSite=Lax" in plain
    assert b"Secure" not in plain


@given(st.integers(0, 47), st.integers(0, 255))
def test_a_token_with_any_byte_changed_is_not_recognised(position: int, byte: int) -> None:
    _, cookie = cookie_of(VOTERS)
    name, _, token = cookie.partition(b"=")
    forged = token[:position] + bytes([byte]) + token[position + 1 :]
    if forged != token:
        assert VOTERS.recognise(name + b"=" + forged) is None


def test_a_token_has_one_form() -> None:
    cookie = VOTERS._create(VOTERS._keys[0], b"\xff" * 16).cookie
    assert cookie is not None
    written = cookie.split(b";")[0]
    assert b"____" in written
    name, _, token = written.partition(b"=")
    assert VOTERS.recognise(name + b"=" + token.replace(b"_", b"/")) is None


@given(st.integers(0, 44), st.integers(0, 255))
def test_an_earlier_token_with_any_byte_changed_is_not_recognised(position: int, byte: int) -> None:
    name, _, token = EARLIER.partition(b"=")
    forged = token[:position] + bytes([byte]) + token[position + 1 :]
    if forged != token:
        # base64 leaves four bits of its last character unused: there, another character can be the same token
        assert VOTERS.recognise(name + b"=" + forged) is None or position in {21, 44}


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"voter_id",
        b"voter_id=",
        b"voter_id=x.y",
        b"other=1",
        b"=;=;",
        b"voter_id=" + b"A" * 45,
        b"voter_id=" + b"A" * 48,
    ],
)
def test_a_missing_invalid_or_foreign_cookie_is_not_recognised(header: bytes | None) -> None:
    assert VOTERS.recognise(header) is None


@given(st.binary(max_size=200))
def test_any_cookie_header_can_be_read(header: bytes) -> None:
    assert VOTERS.recognise(b"voter_id=" + header) is None
