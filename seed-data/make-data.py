"""Writes `posta` and `postb`, the URL-encoded bodies that Apache Bench posts for the first and the second option.

With --vote the keys are those of the first two options on that ballot page, else a and b.
With --tally it prints `<votes for the first option> <votes for the second>` of the result service instead.
"""

import argparse
import html
import json
import re
import urllib.parse
import urllib.request
from pathlib import Path


def keys(url: str) -> list[str]:
    """Return the keys of the first two options on the ballot page at `url`."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        page = answer.read().decode()
    return [html.unescape(key) for key in re.findall(r'name="vote" value="([^"]*)"', page)][:2]


def write(folder: Path, keys: list[str]) -> None:
    """Write the two payload files into `folder`."""
    for name, key in zip(("posta", "postb"), keys, strict=True):
        path = folder / name
        path.write_text(urllib.parse.urlencode({"vote": key}))
        print(f"wrote {path}")


def tally(url: str) -> str:
    """Return the votes for the first two options that the result service at `url` shows."""
    with urllib.request.urlopen(f"{url.rstrip('/')}/api/results", timeout=5) as answer:
        options = json.load(answer)["options"]
    return " ".join(str(option["votes"]) for option in options[:2])


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="where to write (default: here)")
parser.add_argument("--vote", metavar="VOTE_URL", help="take the keys from this ballot")
parser.add_argument("--tally", metavar="RESULT_URL", help="print the tally that this result service shows")
arguments = parser.parse_args()
if arguments.tally:
    print(tally(arguments.tally))
else:
    write(arguments.folder, keys(arguments.vote) if arguments.vote else ["a", "b"])
