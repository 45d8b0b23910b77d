"""All rows, by number: which fault, and the function that runs it."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults import rows_attacks as attacks
from tests.faults import rows_clients as clients
from tests.faults import rows_rights as rights
from tests.faults import rows_stores as stores
from tests.faults import rows_whole as whole
from tests.faults import rows_workers as workers
from tests.faults.trial import Case

Run = Callable[[Case], dict[str, object]]


@dataclass(frozen=True)
class Row:
    """One fault."""

    number: int
    run: Run

    @property
    def name(self) -> str:
        """In words, as `--only` takes it."""
        return self.run.__name__.replace("_", "-")

    @property
    def fault(self) -> str:
        """In a sentence."""
        return (self.run.__doc__ or "").partition("\n")[0].strip().rstrip(".")

    def __str__(self) -> str:
        return f"{self.number:02} {self.name}"


ORDER: tuple[Run, ...] = (
    workers.worker_killed,
    stores.broker_killed,
    stores.fsync_stalls,
    stores.database_restarted,
    stores.database_cut,
    stores.answer_lost,
    stores.database_slow,
    workers.delivered_twice,
    workers.reordered,
    stores.ids_go_back,
    workers.malformed,
    stores.disk_full,
    stores.memory_full,
    stores.broker_cut,
    clients.slow_readers,
    clients.stampede,
    whole.rolling_restart,
    workers.zombie,
    stores.flushed,
    attacks.hostile,
    whole.everything_killed,
    attacks.pipelined,
    attacks.endless,
    attacks.sockets,
    stores.read_only,
    rights.forged_ids,
)
ROWS = tuple(Row(number, run) for number, run in enumerate(ORDER, 1))


def find(word: str) -> Row:
    """The row of a number or name.

    Raises:
        LookupError: there is none.
    """
    for row in ROWS:
        if word in {str(row.number), f"{row.number:02}", row.name}:
            return row
    raise LookupError(f"there is no row {word}; there are " + ", ".join(map(str, ROWS)))
