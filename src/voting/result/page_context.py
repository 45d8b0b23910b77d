"""What the templates of the pages show of a snapshot."""

from collections.abc import Mapping
from typing import Any

from voting.polls.tally import shares
from voting.result.channel import Channel
from voting.result.snapshot import Snapshot


def page_context(snapshot: Snapshot, channel: Channel | None, path: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables of a template.

    Args:
        snapshot: what the reader may see.
        channel: of the poll; what it has beyond the snapshot is used only if the snapshot has numbers.
        path: parameters of the path: `poll`, `code`, or none for the default poll.
    """
    prefix = f"/s/{path['code']}" if "code" in path else f"/p/{path['poll']}" if "poll" in path else ""
    context: dict[str, Any] = {
        "snapshot": snapshot,
        "ws_path": f"{prefix}/ws",
        "vote_href": f"{prefix}/vote",
        "present_href": f"{prefix}/present",
        "shares": [],
        "rates": [],
    }
    if snapshot.get("total") is None or channel is None:
        return context
    votes, total = [option["votes"] for option in snapshot["options"]], snapshot["total"]
    of_voters = [round(1000 * each / total) / 10 if total else 0.0 for each in votes]
    context["shares"] = of_voters if snapshot["kind"] == "multiple" else shares(votes)
    context["rates"] = list(channel.rates)
    return context
