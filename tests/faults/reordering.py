"""Count votes on real stores with four workers, in batches and orders that hypothesis chooses.

python -m tests.faults.reordering REDIS_URL DATABASE_URL SEED CASES

Prints the number of cases and the violations as JSON. A process of its own, so that it may run a mutant.
"""

import asyncio
import contextlib
import json
import sys
from typing import Any

import hypothesis
from hypothesis import strategies

from voting.broker import stream
from voting.broker.connection import redis_client
from voting.database.connection import Connection, connect
from voting.polls.vote import EntryId
from voting.polls.vote_parser import VoteParser
from voting.service import metrics
from voting.worker.counter import VoteCounter
from voting.worker.metrics import WorkerMetrics

WORKERS, VOTERS = 4, 5
TALLIES = """
    SELECT t.choice, t.votes, count(v.voter) FROM tallies t LEFT JOIN votes v USING (poll, choice)
    GROUP BY t.choice, t.votes HAVING t.votes <> count(v.voter) ORDER BY t.choice
"""
VOTES = strategies.lists(
    strategies.tuples(strategies.integers(0, VOTERS - 1), strategies.sampled_from("ab"), strategies.integers(0, 2)),
    min_size=2,
    max_size=24,
)  # voter, choice, milliseconds after the vote before


class Experiment:
    """Runs cases one after another, each with voters of its own.

    Args:
        counters: one for each worker, on connections of its own.
        observer: a connection to read the outcome.
    """

    def __init__(self, counters: list[VoteCounter], observer: Connection) -> None:
        self._counters, self._observer = counters, observer
        self.cases = self.votes = 0
        self.violations: list[str] = []
        self._drift: list[Any] = []

    async def run_case(self, votes: list[tuple[int, str, int]], order: list[int], size: int) -> None:
        """Split the votes among the workers in the order `order`, in batches; count; check the outcome."""
        self.cases += 1
        self.votes += len(votes)
        voters = [self.cases.to_bytes(8) + voter.to_bytes(8) for voter in range(VOTERS)]
        entries, newest, ms = [], {}, 1000 * self.cases
        for number, (voter, choice, later) in enumerate(votes):
            ms += later
            entry = EntryId(ms, number)
            entries.append((entry, [b"poll", b"default", b"voter", voters[voter], b"choice", choice.encode()]))
            newest[voters[voter]] = (choice, *entry)
        shuffled = [entries[number] for number in order]
        shares = [shuffled[number::WORKERS] for number in range(WORKERS)]

        async def work(counter: VoteCounter, share: list[Any]) -> None:
            for start in range(0, len(share), size):
                await counter._handle_batch(counter._parse(share[start : start + size]))
            await counter._wait_for_acknowledgement()

        await asyncio.gather(*map(work, self._counters, shares))
        cursor = await self._observer.execute(
            "SELECT voter, choice, entry_ms, entry_seq FROM votes WHERE voter = ANY(%s)", [voters]
        )
        held = {bytes(voter): (choice, ms, seq) for voter, choice, ms, seq in await cursor.fetchall()}
        how = f"in the order {order} in batches of {size}"
        wrong = [voter for voter, vote in newest.items() if held.get(voter) != vote]
        self.violations += [f"2: of {len(newest)} voters one does not have its newest vote, {how}" for _ in wrong]
        cursor = await self._observer.execute(TALLIES)
        drift = await cursor.fetchall()
        if drift != self._drift:  # drift of an earlier case is not reported again
            self.violations.append(f"3: tally and votes differ: {drift}, {how}")
        self._drift = drift


async def open_counter(stack: contextlib.AsyncExitStack, redis_url: str, database_url: str, number: int) -> VoteCounter:
    """Return a worker's counter on connections of its own."""
    database = await stack.enter_async_context(connect(database_url, name=f"w{number}", timeout=20))
    client = await stack.enter_async_context(redis_client(redis_url, timeout=20))
    measures = WorkerMetrics(metrics.registry("worker"))
    return VoteCounter(database, client, f"w{number}", measures, lambda _: None, parser=VoteParser())


def main(redis_url: str, database_url: str, seed: int, cases: int) -> None:
    """Run the cases and print the result."""
    loop = asyncio.new_event_loop()
    stack = contextlib.AsyncExitStack()

    async def begin() -> Experiment:
        async with redis_client(redis_url, timeout=20) as client:
            await stream.Consumer(client, "w0").ensure_group(EntryId(0, 0))
        counters = [await open_counter(stack, redis_url, database_url, number) for number in range(WORKERS)]
        observer = await stack.enter_async_context(connect(database_url, name="observer", timeout=20))
        return Experiment(counters, observer)

    experiment = loop.run_until_complete(begin())

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(data=strategies.data(), votes=VOTES, size=strategies.integers(1, 6))
    def search(data: strategies.DataObject, votes: list[tuple[int, str, int]], size: int) -> None:
        order = data.draw(strategies.permutations(range(len(votes))))
        loop.run_until_complete(experiment.run_case(votes, order, size))

    search()
    loop.run_until_complete(stack.aclose())
    loop.close()
    result = {"cases": experiment.cases, "votes": experiment.votes, "violations": experiment.violations}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
