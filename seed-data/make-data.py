"""Writes `posta` and `postb`, the URL-encoded bodies that Apache Bench posts for the first and the second option.

With --tally it asks the result service instead, and prints `<votes for the first option> <for the second>`.
"""

import argparse
import json
import urllib.parse
import urllib.request
from pathlib import Path


def write(folder: Path) -> None:
    """Write the two payload files into `folder`."""
    for key in ("a", "b"):
        path = folder / f"post{key}"
        path.write_text(urllib.parse.urlencode({"vote": key}))
        print(f"wrote {path}")


def tally(url: str) -> str:
    """The votes for the first two options, as the result service at `url` shows them now."""
    with urllib.request.urlopen(f"{url.rstrip('/')}/api/results", timeout=5) as answer:
        options = json.load(answer)["options"]
    return " ".join(str(option["votes"]) for option in options[:2])


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="where to write (default: here)")
parser.add_argument("--tally", metavar="RESULT_URL", help="print the tally that this result service shows")
arguments = parser.parse_args()
if arguments.tally:
    print(tally(arguments.tally))
else:
    write(arguments.folder)
