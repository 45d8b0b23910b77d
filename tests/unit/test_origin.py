"""Where a request comes from."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from voting.web.origin import other_service_url, same_site
from voting.web.problems import Problem


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


NAMES = st.sampled_from([b"origin", b"host", b"sec-fetch-site"])


@given(st.dictionaries(NAMES, st.binary(max_size=80)), st.lists(st.text(max_size=30), max_size=3))
def test_no_header_breaks_it_and_a_foreign_origin_is_never_ours(
    headers: dict[bytes, bytes], allowed: list[str]
) -> None:
    origin = headers.get(b"origin")
    is_same = same_site(headers, tuple(allowed))
    if origin is not None and origin.decode("latin-1") not in allowed and headers.get(b"host", b"\0") not in origin:
        assert not is_same


def request(host: bytes | None, poll: str = "") -> Request:
    """A request as Uvicorn gives it."""
    headers = [] if host is None else [(b"host", host)]
    scope = {"type": "http", "scheme": "http", "path": "/", "query_string": b"", "headers": headers}
    return Request(scope | {"server": ("10.0.0.1", 8080), "path_params": {"poll": poll} if poll else {}})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (b"vote.example", "http://vote.example:8081/"),
        (b"vote.example.:8080", "http://vote.example.:8081/"),
        (b"my_vote-1:8080", "http://my_vote-1:8081/"),
        (b"192.0.2.1:80", "http://192.0.2.1:8081/"),
        (b"[2001:db8::1]:8080", "http://[2001:db8::1]:8081/"),
        (b"x" * 253, f"http://{'x' * 253}:8081/"),
    ],
)
def test_the_other_service_is_at_the_host_that_was_asked(host: bytes, url: str) -> None:
    assert other_service_url(request(host), "", 8081) == url
    assert other_service_url(request(host, "lunch"), "", 8081) == f"{url}p/lunch"


BAD_HOSTS = [
    None,
    b"",
    b":80",
    b"[",
    b"[::1",
    b"[::::]",
    b"x:y:z",
    b"\xff",
    b"x" * 254,
    b"evil@localhost",
    b"a/b",
    b"a b",
    b"a:123456",
]


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_host_that_is_none_is_refused_unless_the_public_address_is_set(host: bytes | None) -> None:
    with pytest.raises(Problem) as refused:
        other_service_url(request(host), "", 8081)
    assert refused.value.status == 400
    assert other_service_url(request(host), "https://result.example/", 8081) == "https://result.example/"


@given(st.binary(max_size=300))
def test_whatever_host_says_the_address_has_it_as_its_host_or_there_is_none(host: bytes) -> None:
    try:
        url = other_service_url(request(host), "", 8081)
    except Problem:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.port, parts.path, parts.username) == ("http", 8081, "/", None)
    assert (parts.hostname or "") in host.decode().lower()
