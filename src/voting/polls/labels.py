"""Texts that people write: questions, labels of options, titles of sessions."""

import re
import unicodedata

MAX_LABEL = 200  # characters
# C0, DEL and C1; line and paragraph separators; embeddings, overrides and isolates (UAX 9, section 2); surrogates
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u2064\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)


def clean_label(text: str) -> str:
    """Return a label or a question in NFC, without surrounding white space.

    Raise ValueError if it is empty, too long, or has characters that end a line, control a terminal or reorder text.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not fold_label(text) or len(text) > MAX_LABEL:
        raise ValueError(f"a label or question has 1 to {MAX_LABEL} visible characters, and this one has {len(text)}")
    if _FORBIDDEN.search(text):
        raise ValueError(f"{text!a} has control characters")
    return text


def displayable(text: str) -> str:
    """Return a label or a question with spaces instead of forbidden characters, cut to `MAX_LABEL`."""
    return unicodedata.normalize("NFC", _FORBIDDEN.sub(" ", text)).strip()[:MAX_LABEL].strip()


def fold_label(label: str) -> str:
    """Return a form that is equal for labels that look the same: NFKC, case folded, without invisible characters.

    https://www.unicode.org/versions/latest/core-spec/chapter-3/#G53513 (compatibility caseless match, D146)
    """
    folded = unicodedata.normalize("NFD", _INVISIBLE.sub("", label)).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
