"""Where a request comes from."""

import pytest

from voting.core.origin import same_site


@pytest.mark.parametrize(
    ("headers", "is_same"),
    [
        ({}, True),  # curl, ab
        ({"origin": "http://vote.example", "host": "vote.example"}, True),
        ({"origin": "http://vote.example:8080", "host": "vote.example:8080"}, True),
        ({"origin": "http://vote.example", "host": "vote.example", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://evil.example", "host": "vote.example"}, False),
        ({"origin": "http://vote.example:9999", "host": "vote.example:8080"}, False),
        ({"origin": "null", "host": "vote.example"}, False),
        ({"origin": "", "host": "vote.example"}, False),
        ({"origin": "garbage", "host": "vote.example"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "http://vote.example", "host": "vote.example", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "https://public.example", "host": "10.0.0.1:8080"}, True),
    ],
)
def test_only_our_own_page_or_no_page_at_all_may_send_a_vote(headers: dict[str, str], *, is_same: bool) -> None:
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    assert same_site(raw, ("https://public.example",)) is is_same
