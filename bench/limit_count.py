"""The limit for counting: the worker's statement, fed from memory, with no Redis.

python -m bench.limit_count DATABASE_URL VOTES CHOICE SEED      prints votes a second and CPU seconds as JSON
"""

import json
import random
import sys
import time

import uvloop

from voting.database import counting
from voting.database.connection import connect
from voting.polls.poll import DEFAULT_POLL
from voting.polls.vote import EntryId, Vote
from voting.worker.batch import newest_per_voter

BATCH = 5000


async def main(url: str, votes: int, choice: str, seed: int) -> None:
    """Count that many voters' votes, in batches as large as the worker's."""
    names = random.Random(seed)
    base = int(time.time() * 1000)
    entries = [Vote(DEFAULT_POLL, names.randbytes(16), choice, EntryId(base, n)) for n in range(votes)]
    batches = [newest_per_voter(entries[start : start + BATCH]) for start in range(0, votes, BATCH)]
    async with connect(url, name="bench", timeout=60) as database:
        began, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            await counting.count(database, batch, [])
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"rate": votes / took, "cpu": cpu}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
