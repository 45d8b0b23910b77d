"""The two views of a poll, as `/api/results` and each message on `/ws` have them.

The state view is for everybody: it has no numbers, and it changes only with the definition or state of the poll, so
that nobody can tell when a vote is counted.
"""

from datetime import UTC
from typing import Any

from voting.database.poll_state import Backlog, Final
from voting.polls.poll import Poll
from voting.polls.tally import Evaluation, option_rows

Snapshot = dict[str, Any]


def numbers_view(
    poll: Poll, revision: int, backlog: Backlog, result: Evaluation, final: Final | None = None
) -> Snapshot:
    """Return the view with numbers; `final` is the end of the round."""
    options = option_rows(poll, result)
    more: Snapshot = {}
    if poll.kind == "rating":
        more = {"mean": result.mean}
    if poll.kind == "ranking":
        more = {"runoff": [each._asdict() for each in result.runoff or ()], "winner": result.winner}
    first = {"poll": poll.slug, "question": poll.question, "revision": revision, "options": options}
    if final:
        at = final.at.astimezone(UTC).isoformat(timespec="seconds")
        record = {"fingerprint": final.fingerprint, "revision": final.revision}
        more["final"] = {"at": at} | record | {"published": final.publishes}
    return first | {"total": result.total, "stale_since": None} | _backlog(backlog) | _definition(poll) | more


def state_view(poll: Poll, defined: int, backlog: Backlog) -> Snapshot:
    """Return the view without numbers; `defined` is the revision of the definition."""
    points: Snapshot = {"points": None} if poll.kind == "ranking" else {}
    options = [{"key": option.key, "label": option.label, "votes": None} | points for option in poll.offered]
    more: dict[str, Snapshot] = {"rating": {"mean": None}, "ranking": {"runoff": None, "winner": None}}
    first = {"poll": poll.slug, "question": poll.question, "revision": defined, "options": options}
    first |= {"total": None, "stale_since": None}
    return first | _backlog(backlog._replace(waiting=0)) | _definition(poll) | more.get(poll.kind, {})


def _backlog(backlog: Backlog) -> Snapshot:
    paused = backlog.paused_since
    since = paused and paused.astimezone(UTC).isoformat(timespec="seconds")
    return {"waiting": backlog.waiting, "paused_since": since}


def _definition(poll: Poll) -> Snapshot:
    return {
        "state": poll.state,
        "round": poll.round,
        "kind": poll.kind,
        "results": poll.results,
        "version": poll.changed,
        "opens_at": poll.opens_at,
        "closes_at": poll.closes_at,
        "scale": poll.scale,
        "max_choices": poll.max_choices,
    }
