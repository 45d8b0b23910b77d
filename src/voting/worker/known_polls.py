"""The definitions and cuts by which a worker decides about votes: those of the polls whose votes it has met."""

from redis.asyncio import Redis

from voting.broker.poll_hash import read_published
from voting.broker.seals import read_cuts
from voting.database.closings import read_stored_cuts
from voting.database.connection import Connection, deadline
from voting.database.poll_definitions import read_rounds
from voting.polls.slug import split_box
from voting.polls.vote_parser import VoteParser
from voting.worker.batch import Batch, parse_entries


class KnownPolls:
    """Reads definitions when votes need them.

    Args:
        database, redis: the connections of the counter.
        parser: gets the definitions. Another task may forget polls in it that have changed.
        timeout: time limit of the database, in seconds.
    """

    def __init__(self, database: Connection, redis: Redis, parser: VoteParser, timeout: float) -> None:
        self._database, self._redis, self._parser, self._timeout = database, redis, parser, timeout

    async def resolve(self, batch: Batch) -> Batch:
        """Return the batch as it is by the current definitions of all its votes that were not accepted.

        No such vote becomes a dead letter, or is dropped, before its definition was read.
        """
        boxes: set[bytes] = set()
        while not batch.undefined <= boxes:
            boxes |= batch.undefined
            await self._load(boxes)  # all of them, because another task may forget some while this reads
            batch = parse_entries(self._parser, batch.entries)
        return batch

    async def _load(self, boxes: set[bytes]) -> None:
        """Define the rounds of these boxes, with their cuts; those of an invalid row as they are published."""
        names = {box.decode(errors="replace") for box in boxes}
        valid = [box for box in boxes if split_box(box.decode(errors="replace"))]
        forgotten = -1
        while forgotten != self._parser.forgotten:
            forgotten = self._parser.forgotten
            async with deadline(self._database, self._timeout):
                found = await read_rounds(self._database, names)
                stored = await read_stored_cuts(self._database, names)
            cuts = dict.fromkeys(valid) | await read_cuts(self._redis, valid) | stored
            published = await read_published(self._redis, found.bad) if found.bad else []
        self._parser.define([*published, *found.polls], found.deleted, cuts)
