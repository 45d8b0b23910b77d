"""What the templates of the pages show of a snapshot."""

import math
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from voting.polls.poll import DEFAULT_POLL
from voting.polls.tally import bar_lengths
from voting.result.channel import Channel
from voting.result.snapshot import Snapshot

_WITHOUT_POLL: Snapshot = {"revision": 0, "total": None, "paused_since": None, "waiting": 0, "state": "", "kind": ""}


def page_context(
    snapshot: Snapshot, channel: Channel | None, path: Mapping[str, str], view: str = ""
) -> dict[str, Any]:
    """Return the variables of a template.

    Args:
        snapshot: what the reader may see.
        channel: of the poll; what it has beyond the snapshot is used only if the snapshot has numbers.
        path: parameters of the path: `poll`, `code`, or none for the default poll.
        view: of the WebSocket, as in its URL.
    """
    prefix = f"/s/{path['code']}" if "code" in path else f"/p/{path['poll']}" if "poll" in path else ""
    is_shown = snapshot.get("total") is not None and channel is not None
    return {
        "snapshot": _WITHOUT_POLL | snapshot,
        "session": snapshot.get("session"),
        "about": _about(snapshot),
        "ws_path": f"{prefix}/ws{view}",
        "vote_href": f"{prefix}/vote",
        "present_href": f"{prefix}/present",
        "ballots_href": f"{'' if snapshot['poll'] == DEFAULT_POLL else '/p/' + (snapshot['poll'] or '')}/ballots",
        "shares": bar_lengths(snapshot["kind"], snapshot["options"], snapshot["total"]) if is_shown else [],
        "rates": list(channel.rates) if is_shown and channel else [],
        "final_at": datetime.fromisoformat(snapshot["final"]["at"]).timestamp() if snapshot.get("final") else None,
        "due": due(snapshot),
        "remaining": _remaining(due(snapshot)),
    }


def due(snapshot: Snapshot) -> float | None:
    """Return the time, in seconds since the epoch, at which a poll opens or closes by itself; None if it does not."""
    name = {"draft": "opens_at", "open": "closes_at"}.get(snapshot.get("state", ""), "")
    return snapshot.get(name)


def _about(snapshot: Snapshot) -> str:
    """Return what a page is about, as feed.js writes it: with another, a page must be replaced."""
    options, session = snapshot.get("options", ()), snapshot.get("session")
    place = f"{session['position'] or ''}/{session['polls']} {session['title']}" if session else ""
    visible = "hidden" if snapshot.get("total") is None else "shown"
    keys = " ".join(option["key"] for option in options)
    return f"{snapshot['poll'] or ''} {snapshot['version']} {visible} {keys} {place}"


def _remaining(at: float | None) -> str:
    """Return the time that is left; "" if it is an hour or more."""
    seconds = max(0, math.ceil((at or 0) - time.time()))
    return f"{seconds // 60}:{seconds % 60:02}" if seconds < 3600 else ""
