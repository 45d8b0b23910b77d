"""Hosts who make, open, close and reset polls of all kinds, one after another, as a load on admin."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.faults.ballots import KINDS, Ballot
from tests.faults.host import Host
from tests.faults.poll_audit import Actions
from tests.faults.poll_votes import voting_in, wait_for_votes, wait_refused
from tests.faults.run import Run

HOSTS = 3


@contextlib.contextmanager
def hosts_at_work(run: Run) -> Iterator[Actions]:
    """Let hosts make, open, close and reset polls inside the block; yield what they did, by slug."""
    asked: Actions = {}
    done = threading.Event()

    def work(number: int) -> None:
        rng = random.Random(f"{run.config.seed} host {number}")  # noqa: S311 - has to be the same for the same seed
        with Host(run.system) as host:
            turn = 0
            while not done.is_set():
                turn += 1
                ballots = [Ballot(f"host-{number}-{turn}-{kind}", kind) for kind in KINDS]
                for ballot in ballots:
                    host.create(ballot)
                    asked[ballot.slug] = ["create"]
                for _ in range(rng.randint(1, 2)):
                    ballots = _open_and_close(run, host, ballots, asked, rng)

    with ThreadPoolExecutor(HOSTS) as pool:
        working = [pool.submit(work, number) for number in range(HOSTS)]
        try:
            yield asked
        finally:
            done.set()
        for each in working:
            each.result(30)


def _open_and_close(run: Run, host: Host, ballots: list[Ballot], asked: Actions, rng: random.Random) -> list[Ballot]:
    """Open polls, close most of them when they have votes, and reset some; return the next rounds of these."""
    for ballot in ballots:
        host.open(ballot)
        asked[ballot.slug].append("open")
    with voting_in(run, *ballots):
        began = time.monotonic()
        for ballot in ballots:
            wait_for_votes(run, ballot, began, within=10)
        closed = rng.sample(ballots, len(ballots) - 1)
        for ballot in closed:
            host.close(ballot)
            asked[ballot.slug].append("close")
    reset = closed[1:]
    wait_refused(run, *reset)
    for ballot in reset:
        host.reset(ballot)
        asked[ballot.slug].append("reset")
    return [ballot.next() for ballot in reset]
