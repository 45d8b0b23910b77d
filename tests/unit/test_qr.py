"""QR codes: what is kept, and how many are made."""

import pytest

from voting.web import qr
from voting.web.qr import BURST, QrCodes


def test_a_code_is_made_once_and_kept_however_often_it_is_asked_for() -> None:
    codes = QrCodes()
    first = codes.get("https://vote.example.org/")
    assert first is not None
    assert first.startswith("<svg")
    assert all(codes.get("https://vote.example.org/") is first for _ in range(10 * BURST))


def test_new_codes_are_made_at_a_limited_rate_and_those_that_are_kept_are_still_shown() -> None:
    codes = QrCodes()
    made = [codes.get(f"http://host-{number}/") for number in range(10 * BURST)]
    assert BURST <= len([code for code in made if code]) < 5 * BURST
    assert codes.get("http://host-0/") is made[0]


def test_the_oldest_code_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qr, "CACHED", 2)
    codes = QrCodes()
    first = [codes.get(url) for url in ("http://a/", "http://b/", "http://a/", "http://c/")]
    assert list(codes._codes) == ["http://a/", "http://c/"]
    assert codes.get("http://a/") is first[0]


def test_the_longest_address_that_settings_or_a_host_allow_has_a_code() -> None:
    assert QrCodes().get("https://" + "x" * 492 + "/p/" + "y" * 63)
