"""The languages of the pages, and the choice of one for a reader.

The code has the English texts, `languages/` a gettext catalogue for each other language, and Babel the plural forms and
number formats of CLDR. A language is loaded on first use. All use Western digits, as result.js does.
"""

import functools
import io
import re
from collections.abc import Mapping
from copy import copy
from datetime import UTC, datetime
from gettext import NullTranslations
from importlib import resources

from babel import Locale, negotiate_locale
from babel.dates import format_skeleton
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import Translations

NAMES = {"en": "English", "de": "Deutsch", "es": "Español", "fr": "Français", "ar": "العربية", "zh": "中文"}
_QUERY = re.compile(rb"(?:^|&)lang=([a-z]{2})(?:&|$)")
_YEAR = 365 * 24 * 3600
_SAMPLES = range(101)  # includes every plural category of whole numbers in any language


def translatable(text: str) -> str:
    """Return a text unchanged; it marks a text to translate, which is done where the text is shown."""
    return text


class Language:
    """The texts and numbers of a language, one of `NAMES`; `code` and `direction` are for the html element."""

    def __init__(self, code: str) -> None:
        self.code = code
        self._locale = Locale.parse(code)
        self.direction = self._locale.text_direction
        self._texts = _catalogue(code)
        self._percent = copy(self._locale.percent_formats[None])
        self._percent.frac_prec = (1, 1)

    def text(self, text: str) -> str:
        return self._texts.gettext(text)

    def number(self, value: int) -> str:
        return format_decimal(value, locale=self._locale)

    def decimal(self, value: float) -> str:
        """Return a number with two decimals."""
        return format_decimal(value, "#,##0.00", locale=self._locale)

    def percent(self, value: float) -> str:
        return str(self._percent.apply(value / 100, self._locale))

    def moment(self, seconds: float) -> str:
        """Return a time (since the epoch) in UTC, with the day unless it is within the next twelve hours."""
        at = datetime.fromtimestamp(seconds, UTC)
        text = format_skeleton("Hm", at, locale=self._locale)
        if not 0 <= (at - datetime.now(UTC)).total_seconds() < 12 * 3600:
            day = format_skeleton("MMMd", at, locale=self._locale)
            text = str(self._locale.datetime_formats["medium"]).replace("{0}", text).replace("{1}", day)
        return f"{text} UTC"

    def day(self, seconds: float) -> str:
        """Return the day of a time (since the epoch) in UTC, with the year."""
        return format_skeleton("yMMMd", datetime.fromtimestamp(seconds, UTC), locale=self._locale)

    def count(self, one: str, many: str, number: int) -> str:
        """Return the plural form of a text for a number, which replaces {n} in it."""
        return self._texts.ngettext(one, many, number).format(n=self.number(number))

    def forms(self, one: str, many: str) -> dict[str, str]:
        """Return each plural form of a text, by the names of the categories in `Intl.PluralRules`."""
        return {self._locale.plural_form(n): self._texts.ngettext(one, many, n) for n in _SAMPLES}


def _catalogue(code: str) -> NullTranslations:
    if code == "en":
        return NullTranslations()
    source = resources.files("voting.web") / "languages" / f"{code}.po"
    binary = io.BytesIO()
    write_mo(binary, read_po(io.BytesIO(source.read_bytes()), locale=code))
    binary.seek(0)
    return Translations(binary)


language = functools.cache(Language)


def negotiate(headers: Mapping[bytes, bytes], query: bytes = b"") -> Language:
    """Return the language of the URL (?lang=de), else of the cookie, else of Accept-Language."""
    return language(
        from_query(query) or _from_cookie(headers) or _preferred(headers.get(b"accept-language", b"")[:200])
    )


def from_query(query: bytes) -> str | None:
    """Return the language in a query string (?lang=de)."""
    found = _QUERY.search(query) if query else None
    return code if found and (code := found[1].decode()) in NAMES else None


def cookie(code: str) -> bytes:
    """Return the Set-Cookie value that stores a language for both services."""
    return b"lang=%s; Path=/; Max-Age=%d; SameSite=Lax" % (code.encode(), _YEAR)


def _from_cookie(headers: Mapping[bytes, bytes]) -> str | None:
    cookies = headers.get(b"cookie", b"")
    for part in cookies.split(b";") if b"lang=" in cookies else ():
        name, _, value = part.strip().partition(b"=")
        if name == b"lang" and value.decode("latin-1") in NAMES:
            return value.decode("latin-1")
    return None


@functools.lru_cache(1000)
def _preferred(accept: bytes) -> str:
    """Return the best of `NAMES` for an Accept-Language header; https://www.rfc-editor.org/rfc/rfc9110#section-12.5.4."""
    preferences: list[tuple[float, str]] = []
    for item in accept.decode("latin-1").split(","):
        tag, _, weight = item.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if quality > 0:
            preferences.append((-quality, tag.strip()))
    ordered = [tag for _, tag in sorted(preferences, key=lambda each: each[0])]
    return negotiate_locale(ordered, list(NAMES), sep="-") or "en"
