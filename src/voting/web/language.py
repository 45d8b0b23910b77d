"""The languages of the pages: whose texts they are, how a reader's is chosen, how it counts and writes numbers.

Texts stand in English where they are used, and in one gettext catalogue per language in `languages/`; plural forms
and numbers are CLDR's, by Babel. A language is loaded when the first reader asks for it. Digits are Western ones
everywhere, as result.js writes them.
"""

import functools
import io
import re
from collections.abc import Mapping
from copy import copy
from gettext import NullTranslations
from importlib import resources

from babel import Locale, negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import Translations

NAMES = {"en": "English", "de": "Deutsch", "es": "Español", "fr": "Français", "ar": "العربية", "zh": "中文"}
_ASKED = re.compile(rb"(?:^|&)lang=([a-z]{2})(?:&|$)")
_YEAR = 365 * 24 * 3600
_SAMPLES = range(101)  # every language's plural categories of whole numbers occur among these


def translatable(text: str) -> str:
    """Name a text for the catalogues; it is translated where it is shown."""
    return text


class Language:
    """One language: `code` and `direction` for the html element, and its texts and numbers.

    Args:
        code: one of `NAMES`.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self._locale = Locale.parse(code)
        self.direction = self._locale.text_direction
        self._texts = _catalogue(code)
        self._percent = copy(self._locale.percent_formats[None])
        self._percent.frac_prec = (1, 1)

    def text(self, text: str) -> str:
        """A text in this language."""
        return self._texts.gettext(text)

    def number(self, value: int) -> str:
        """A number with its thousands grouped."""
        return format_decimal(value, locale=self._locale)

    def percent(self, value: float) -> str:
        """A share of 100 with one decimal."""
        return str(self._percent.apply(value / 100, self._locale))

    def count(self, one: str, many: str, number: int) -> str:
        """A text about a number, which stands in it as {n}."""
        return self._texts.ngettext(one, many, number).format(n=self.number(number))

    def forms(self, one: str, many: str) -> dict[str, str]:
        """The same text for each plural category that a number can have, as `Intl.PluralRules` names them."""
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
    """The reader's language: asked for in the address (?lang=de), else chosen before, else what the browser prefers."""
    return language(from_query(query) or _remembered(headers) or _preferred(headers.get(b"accept-language", b"")[:200]))


def from_query(query: bytes) -> str | None:
    """The language that an address asks for."""
    found = _ASKED.search(query) if query else None
    return code if found and (code := found[1].decode()) in NAMES else None


def cookie(code: str) -> bytes:
    """What to set so that the browser keeps to that language, on both pages."""
    return b"lang=%s; Path=/; Max-Age=%d; SameSite=Lax" % (code.encode(), _YEAR)


def _remembered(headers: Mapping[bytes, bytes]) -> str | None:
    cookies = headers.get(b"cookie", b"")
    for part in cookies.split(b";") if b"lang=" in cookies else ():
        name, _, value = part.strip().partition(b"=")
        if name == b"lang" and value.decode("latin-1") in NAMES:
            return value.decode("latin-1")
    return None


@functools.lru_cache(1000)
def _preferred(accept: bytes) -> str:
    """The best of `NAMES` for an Accept-Language header; https://www.rfc-editor.org/rfc/rfc9110#section-12.5.4."""
    wishes: list[tuple[float, str]] = []
    for wish in accept.decode("latin-1").split(","):
        tag, _, weight = wish.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if quality > 0:
            wishes.append((-quality, tag.strip()))
    ordered = [tag for _, tag in sorted(wishes, key=lambda wish: wish[0])]
    return negotiate_locale(ordered, list(NAMES), sep="-") or "en"
