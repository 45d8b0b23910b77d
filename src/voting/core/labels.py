"""Questions and labels of options: the form in which they are kept, and when two labels are the same."""

import re
import unicodedata

MAX_LABEL = 200  # characters of a label or a question
# C0, DEL and C1; line and paragraph separators; embeddings, overrides and isolates (UAX 9, section 2); surrogates
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u2064\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)


def clean(text: str) -> str:
    """Return a label or a question as it is kept: in NFC, and without white space around it.

    Raises:
        ValueError: it is empty, too long, or has characters that end a line, control a terminal or reorder text.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not fold(text) or len(text) > MAX_LABEL:
        raise ValueError(f"a label or question has 1 to {MAX_LABEL} visible characters, and this one has {len(text)}")
    if _FORBIDDEN.search(text):
        raise ValueError(f"{text!a} has control characters")
    return text


def readable(text: str) -> str:
    """Return the nearest text that can be shown: what is forbidden becomes a space, and what is too long is cut."""
    return unicodedata.normalize("NFC", _FORBIDDEN.sub(" ", text)).strip()[:MAX_LABEL].strip()


def fold(label: str) -> str:
    """Return what is equal for two labels that a reader takes for the same: NFKC, case folded, visible characters.

    https://www.unicode.org/versions/latest/core-spec/chapter-3/#G53513 (compatibility caseless match, D146)
    """
    folded = unicodedata.normalize("NFD", _INVISIBLE.sub("", label)).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
