"""Checks what admin has changed: the state of each poll, its rows in the audit log, and its webhooks."""

from collections import defaultdict
from collections.abc import Iterable

from tests.faults.ballots import Ballot
from tests.faults.system import SystemUnderTest
from tests.faults.webhook_receiver import Delivery
from voting.polls.slug import box

Actions = dict[str, list[str]]  # slug -> what was done, in order, as the audit log calls it

STATES = {"create": "draft", "open": "open", "close": "closed", "reset": "draft"}
POLLS = """
    SELECT slug, CASE state WHEN 'final' THEN 'closed' ELSE state END, round, opened IS NOT NULL, closed IS NOT NULL
    FROM polls
"""
AUDIT = """
    SELECT poll, array_agg(action ORDER BY id) FROM audit WHERE poll IS NOT NULL AND action <> 'final' GROUP BY poll
"""
TOTALS = "SELECT poll, count(*) FROM votes GROUP BY poll"
OPENING = """
    SELECT state = 'open', opened IS NOT NULL, (SELECT count(*) FROM audit WHERE poll = slug AND action = 'open') = 1
    FROM polls WHERE slug = '{slug}'
"""
EVENTS = "SELECT id::text FROM webhook_events WHERE poll = '{slug}' AND event = 'poll.opened'"


def check_polls(system: SystemUnderTest, asked: Actions) -> list[str]:
    """Check that each poll is as was asked last, and that each change has one row in the audit log.

    Closed polls become final by themselves: see finals.py.
    """
    polls = {slug: tuple(columns) for slug, *columns in system.rows(POLLS)}
    audit = dict(system.rows(AUDIT))
    violations = []
    for slug, actions in asked.items():
        state = STATES[actions[-1]]
        expected = (state, 1 + actions.count("reset"), state != "draft", state == "closed")
        if polls.get(slug) != expected:
            violations.append(f"bound: {slug} is {polls.get(slug)} after {actions}, not {expected}")
        if audit.get(slug) != actions:
            violations.append(f"bound: the audit log of {slug} is {audit.get(slug)}, not {actions}")
    return violations


def check_webhooks(system: SystemUnderTest, asked: Actions, deliveries: Iterable[Delivery]) -> list[str]:
    """Check that each opening and closing was delivered, always with one id and body, and with the final numbers."""
    totals = dict(system.rows(TOTALS))
    found: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    bodies: dict[str, set[str]] = defaultdict(set)
    violations = []
    for delivery in deliveries:
        found[delivery.poll, delivery.event, delivery.round].add(delivery.id)
        bodies[delivery.id].add(str(delivery.body))
        total = delivery.body["data"].get("total")
        counted = totals.get(box(delivery.poll, delivery.round), 0)
        if delivery.poll in asked and delivery.event == "poll.closed" and total != counted:
            violations.append(f"bound: the webhook of {delivery.poll} has {total} votes, and {counted} are counted")
    for slug, actions in asked.items():
        round_ = 1
        for action in actions:
            round_ += action == "reset"
            event = {"open": "poll.opened", "close": "poll.closed"}.get(action)
            if event and len(found[slug, event, round_]) != 1:
                ids = len(found[slug, event, round_])
                violations.append(f"bound: {event} of {slug}, round {round_}, was delivered with {ids} ids")
    return violations + [
        f"bound: webhook {each} had {len(texts)} bodies" for each, texts in bodies.items() if len(texts) > 1
    ]


def is_all_or_nothing(system: SystemUnderTest, ballot: Ballot, deliveries: Iterable[Delivery]) -> bool | None:
    """Return whether a draft was opened, with all that belongs to it; None if it was half done."""
    ((*parts,),) = system.rows(OPENING.format(slug=ballot.slug))
    events = {identifier for (identifier,) in system.rows(EVENTS.format(slug=ballot.slug))}
    events |= {each.id for each in deliveries if (each.poll, each.event) == (ballot.slug, "poll.opened")}
    parts.append(len(events) == 1)
    return parts[0] if len(set(parts)) == 1 else None
