"""The result of a round, and voting codes, as CSV for spreadsheets: UTF-8 with a byte order mark, and CRLF (RFC 4180).

A cell that a spreadsheet would take for a formula gets an apostrophe in front.
https://owasp.org/www-community/attacks/CSV_Injection
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001 - some spreadsheets read the full-width forms too


def csv_of(export: dict[str, Any]) -> bytes:
    """Return the fields of `Export` as CSV, with a row for each option."""
    options, runoff = export["options"], export["runoff"] or []
    ranking = export["kind"] == "ranking"
    header = ["poll", "round", "question", "key", "option", "votes", "voters", "percent"]
    header += ["points"] * ranking + [f"runoff {number}" for number in range(1, len(runoff) + 1)]
    rows = []
    for option, percent in zip(options, _percent(export), strict=True):
        row = [export["poll"], export["round"], export["question"], option["key"], option["label"], option["votes"]]
        row += [export["total"], percent]
        row += [option["points"]] if ranking else []
        row += [each["votes"].get(option["key"], "") for each in runoff]
        rows.append(row)
    return _written(header, rows)


def csv_of_codes(codes: Iterable[tuple[int, str, str]]) -> bytes:
    """Return voting codes as CSV: the number, the code and the link of each."""
    return _written(["number", "code", "link"], codes)


def _written(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def _percent(export: dict[str, Any]) -> list[float]:
    """Return the share of each option of all voters; equal votes have equal shares, so they may not add up to 100."""
    total = export["total"]
    return [round(100 * option["votes"] / total, 1) if total else 0.0 for option in export["options"]]


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
