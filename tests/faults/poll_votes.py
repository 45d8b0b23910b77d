"""What rows wait for, and check, of the votes in polls that a host opens and closes."""

import contextlib
from collections.abc import Iterator

import httpx

from tests.faults.ballots import Ballot
from tests.faults.history import Attempt
from tests.faults.run import Run, expect_soon
from tests.waiting import PLAIN


@contextlib.contextmanager
def voting_in(run: Run, *ballots: Ballot) -> Iterator[None]:
    """Let visitors vote in polls inside the block, when these are published."""
    wait_published(run, *ballots)
    with run.load.voting_in(*ballots):
        yield


def wait_refused(run: Run, *ballots: Ballot) -> None:
    """Wait until vote takes no votes in the rounds of these polls, so that all later votes are in the next ones."""

    def reason(ballot: Ballot) -> str:
        url = f"{run.system.vote_url}{ballot.path.decode()}"
        answer = httpx.post(url, data={"vote": ""}, headers={"accept": "application/json"}, verify=PLAIN)
        return str(answer.json()["reason"])

    for ballot in ballots:
        expect_soon(
            f"{ballot.slug} takes no votes",
            lambda ballot=ballot: reason(ballot) in {"closed", "not_open"},  # type: ignore[misc]
            run.config.time_limit(2),
            is_violation=True,
        )


def wait_published(run: Run, *ballots: Ballot) -> None:
    """Wait until vote can know these polls."""
    with run.system.broker() as broker:
        for ballot in ballots:
            expect_soon(
                f"{ballot.slug} is published",
                lambda ballot=ballot: broker.hexists("polls", ballot.slug),  # type: ignore[misc]
                10,
            )


def accepted(run: Run, ballot: Ballot, since: float) -> list[Attempt]:
    """Return the votes in a round that were sent since a moment and accepted."""
    return [each for each in run.history.latest(since, ballot.box) if each.outcome == "ok" and each.began >= since]


def refused(run: Run, ballot: Ballot, since: float, reason: str) -> list[Attempt]:
    """Return the votes in a round that were sent since a moment and refused for this reason."""
    return [each for each in run.history.latest(since, ballot.box) if each.reason == reason and each.began >= since]


def wait_for_votes(run: Run, ballot: Ballot, since: float, number: int = 1, *, within: float) -> None:
    """Wait until so many votes in a round, sent since a moment, are accepted."""
    what = f"{number} votes in {ballot.box} are accepted"
    expect_soon(what, lambda: len(accepted(run, ballot, since)) >= number, within, is_violation=True)


def check_closed(run: Run, ballot: Ballot, since: float) -> None:
    """Check that each vote process refuses votes in a closed poll, a second after a moment, or 4 s in a brief run."""
    since += run.config.brief_or_full(4, 1)
    ports = len(run.system.votes)

    def refusals(number: int) -> list[Attempt]:
        return [each for each in refused(run, ballot, since, "closed") if each.voter % ports == number]

    for number in range(ports):
        expect_soon(
            f"{run.system.votes[number]} says that {ballot.slug} is closed",
            lambda number=number: len(refusals(number)) >= 10,  # type: ignore[misc]
            10,
            is_violation=True,
        )
    late = [each for each in run.history.latest(since, ballot.box) if each.began >= since and each.reason != "closed"]
    run.require(not late, f"{len(late)} votes in {ballot.slug}, which is closed, were not refused so: {late[:1]}")
