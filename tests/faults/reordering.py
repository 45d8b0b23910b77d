"""Four workers' counting on real stores, fed with batches in whatever order and mixture hypothesis comes up with.

python -m tests.faults.reordering REDIS_URL DATABASE_URL SEED CASES

Prints as JSON how many cases were tried and what was found. A process of its own, so that it may run another build.
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
from voting.polls import EntryId
from voting.service import metrics
from voting.worker.counter import Counter
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
)  # who, what, and how many milliseconds after the vote before


class Experiment:
    """One case after another, each with voters of its own.

    Args:
        counters: each a worker's counting on connections of its own.
        looking: a connection to look with.
    """

    def __init__(self, counters: list[Counter], looking: Connection) -> None:
        self._counters, self._looking = counters, looking
        self.cases = self.votes = 0
        self.violations: list[str] = []
        self._drift: list[Any] = []

    async def try_out(self, votes: list[tuple[int, str, int]], dealt: list[int], size: int) -> None:
        """Deal the votes out to workers, in the order of `dealt`, in batches; all work at once; then look."""
        self.cases += 1
        self.votes += len(votes)
        voters = [self.cases.to_bytes(8) + voter.to_bytes(8) for voter in range(VOTERS)]
        entries, newest, ms = [], {}, 1000 * self.cases
        for number, (voter, choice, later) in enumerate(votes):
            ms += later
            entry = EntryId(ms, number)
            entries.append((entry, [b"poll", b"default", b"voter", voters[voter], b"choice", choice.encode()]))
            newest[voters[voter]] = (choice, *entry)
        shuffled = [entries[number] for number in dealt]
        hands = [shuffled[number::WORKERS] for number in range(WORKERS)]

        async def work(counter: Counter, hand: list[Any]) -> None:
            for start in range(0, len(hand), size):
                await counter._process(counter._sort(hand[start : start + size]))
            await counter._acknowledged()

        await asyncio.gather(*map(work, self._counters, hands))
        cursor = await self._looking.execute(
            "SELECT voter, choice, entry_ms, entry_seq FROM votes WHERE voter = ANY(%s)", [voters]
        )
        held = {bytes(voter): (choice, ms, seq) for voter, choice, ms, seq in await cursor.fetchall()}
        how = f"dealt {dealt} in batches of {size}"
        wrong = [voter for voter, vote in newest.items() if held.get(voter) != vote]
        self.violations += [f"2: of {len(newest)} voters one has not its newest vote, {how}" for _ in wrong]
        cursor = await self._looking.execute(TALLIES)
        drift = await cursor.fetchall()
        if drift != self._drift:  # one that began earlier is not told again
            self.violations.append(f"3: tally and votes differ: {drift}, {how}")
        self._drift = drift


async def open_counter(stack: contextlib.AsyncExitStack, redis_url: str, database_url: str, number: int) -> Counter:
    """A worker's counting, on connections of its own."""
    database = await stack.enter_async_context(connect(database_url, name=f"w{number}", patience=20))
    client = await stack.enter_async_context(redis_client(redis_url, timeout=20))
    measures = WorkerMetrics(metrics.registry("worker"))
    counter = Counter(database, client, f"w{number}", measures, lambda _: None)
    await counter._refresh_polls()
    return counter


def main(redis_url: str, database_url: str, seed: int, cases: int) -> None:
    """Try, and print."""
    loop = asyncio.new_event_loop()
    stack = contextlib.AsyncExitStack()

    async def begin() -> Experiment:
        async with redis_client(redis_url, timeout=20) as client:
            await stream.Consumer(client, "w0").ensure_group(EntryId(0, 0))
        counters = [await open_counter(stack, redis_url, database_url, number) for number in range(WORKERS)]
        looking = await stack.enter_async_context(connect(database_url, name="looking", patience=20))
        return Experiment(counters, looking)

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
        dealt = data.draw(strategies.permutations(range(len(votes))))
        loop.run_until_complete(experiment.try_out(votes, dealt, size))

    search()
    loop.run_until_complete(stack.aclose())
    loop.close()
    result = {"cases": experiment.cases, "votes": experiment.votes, "violations": experiment.violations}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
