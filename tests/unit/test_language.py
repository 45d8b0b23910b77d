"""Every text in every language; whose language a reader gets; plural forms and numbers."""

import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st

from voting.web import language

SOURCE = Path(language.__file__).parents[1]
KEYWORDS = {"_": None, "translatable": None, "count": (1, 2), "forms": (1, 2)}
METHODS = [("**.py", "python"), ("**/pages/**.html", "jinja2.ext:babel_extract")]
TRANSLATED = [code for code in language.NAMES if code != "en"]


def catalogue(code: str) -> Catalog:
    with (SOURCE / "web" / "languages" / f"{code}.po").open("rb") as file:
        return read_po(file, locale=code, abort_invalid=True)


def places(text: str) -> set[str]:
    return set(re.findall(r"{\w+}", text))


@pytest.mark.parametrize("code", TRANSLATED)
def test_each_catalogue_has_each_text_and_no_other(code: str) -> None:
    used = {found[2] for found in extract_from_dir(SOURCE, method_map=METHODS, keywords=KEYWORDS)}
    assert len(used) > 50
    messages = {message.id: message for message in catalogue(code) if message.id}
    assert set(messages) == used
    for message in messages.values():
        given_texts = message.string if isinstance(message.string, tuple) else (message.string,)
        assert all(str(text).strip() for text in given_texts), message.id
        assert not message.fuzzy
        english = message.id if isinstance(message.id, str) else message.id[1]
        for text in map(str, given_texts):  # an Arabic one or two needs no digit
            assert places(text) == places(english) or (message.pluralizable and places(text) < places(english))


@pytest.mark.parametrize("code", list(language.NAMES))
def test_plural_forms_are_those_that_a_browser_chooses(code: str) -> None:
    reader = language.language(code)
    forms = reader.forms("{n} vote", "{n} votes")
    for number in range(1000):
        category = reader._locale.plural_form(number)
        assert reader.count("{n} vote", "{n} votes", number) == forms[category].format(n=reader.number(number))


@pytest.mark.parametrize(
    ("accept", "cookie", "query", "code"),
    [
        ("", "", "", "en"),
        ("de-AT,de;q=0.9,en;q=0.5", "", "", "de"),
        ("en;q=0.3, fr;q=0.8", "", "", "fr"),
        ("zh-Hant-TW,zh;q=0.9", "", "", "zh"),
        ("nl,pt;q=0.9", "", "", "en"),
        ("nl, ar;q=0.1", "", "", "ar"),
        ("de;q=0", "", "", "en"),
        ("de;q=x, es", "", "", "es"),
        ("de", "lang=fr", "", "fr"),
        ("de", "voter_id=x; lang=ar", "", "ar"),
        ("de", "lang=xx", "", "de"),
        ("de", "lang=fr", "lang=zh", "zh"),
        ("de", "", "a=b&lang=es", "es"),
        ("de", "", "lang=../..", "de"),
        ("de", "", "slang=es", "de"),
    ],
)
def test_the_address_comes_before_the_earlier_choice_and_that_before_the_browser(
    accept: str, cookie: str, query: str, code: str
) -> None:
    headers = {b"accept-language": accept.encode(), b"cookie": cookie.encode()}
    assert language.negotiate(headers, query.encode()).code == code


@given(st.binary(max_size=300), st.binary(max_size=100), st.binary(max_size=100))
def test_any_header_gives_a_language(accept: bytes, cookie: bytes, query: bytes) -> None:
    chosen = language.negotiate({b"accept-language": accept, b"cookie": cookie}, b"lang=" + query)
    assert chosen.code in language.NAMES


def test_numbers_are_written_as_the_language_does() -> None:
    assert language.language("de").number(1234567) == "1.234.567"
    assert language.language("en").percent(66.7) == "66.7%"
    assert language.language("fr").percent(66.7) == "66,7\u00a0%"
    assert language.language("ar").direction == "rtl"
