"""targets.py FOLDER NAME...: write the addresses of services into FOLDER/NAME.json, for Prometheus's file_sd_configs.

The CloudWatch agent is on the host's network, where it can use the instance's role but not Docker's DNS. This program
runs in a container, queries that DNS every ten seconds, and replaces each file atomically.
"""

import json
import socket
import sys
import time
from pathlib import Path

SECONDS = 10
PORT = 9100


def addresses(name: str) -> list[str]:
    """Return the addresses of all replicas of a service, sorted; empty if none runs."""
    try:
        found = socket.getaddrinfo(name, PORT, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        return []
    return sorted(str(address[4][0]) for address in found)


def write(folder: Path, name: str) -> None:
    """Write the file of one service."""
    draft = folder / f"{name}.new"
    draft.write_text(json.dumps([{"targets": [f"{address}:{PORT}" for address in addresses(name)]}]))
    draft.rename(folder / f"{name}.json")


if __name__ == "__main__":
    while True:
        for service in sys.argv[2:]:
            write(Path(sys.argv[1]), service)
        time.sleep(SECONDS)
