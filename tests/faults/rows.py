"""All rows in order: a number, a fault, and the function that runs it."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults import rows_admin as admin
from tests.faults import rows_attacks as attacks
from tests.faults import rows_broker as broker
from tests.faults import rows_closing as closings
from tests.faults import rows_credentials as credentials
from tests.faults import rows_database as database
from tests.faults import rows_restarts as restarts
from tests.faults import rows_viewers as viewers
from tests.faults import rows_workers as workers
from tests.faults.run import RunConfig

Fault = Callable[[RunConfig], dict[str, object]]


@dataclass(frozen=True)
class Row:
    """One fault."""

    number: int
    run: Fault

    @property
    def name(self) -> str:
        """The name that `--only` takes."""
        return self.run.__name__.replace("_", "-")

    @property
    def fault(self) -> str:
        """The fault in a sentence."""
        return (self.run.__doc__ or "").partition("\n")[0].strip().rstrip(".")

    def __str__(self) -> str:
        return f"{self.number:02} {self.name}"


ORDER: tuple[Fault, ...] = (
    workers.worker_killed,
    broker.broker_killed,
    broker.fsync_stalls,
    database.database_restarted,
    database.database_cut,
    database.answer_lost,
    database.database_slow,
    workers.delivered_twice,
    workers.reordered,
    broker.ids_go_back,
    workers.malformed,
    database.disk_full,
    broker.memory_full,
    broker.broker_cut,
    viewers.slow_readers,
    viewers.stampede,
    restarts.rolling_restart,
    workers.zombie,
    broker.flushed,
    attacks.hostile,
    restarts.everything_killed,
    attacks.pipelined,
    attacks.endless,
    attacks.sockets,
    database.read_only,
    credentials.forged_ids,
    admin.admin_killed,
    admin.open_while_the_database_is_away,
    admin.close_while_vote_is_cut,
    closings.closing,
)
ROWS = tuple(Row(number, run) for number, run in enumerate(ORDER, 1))


def find(word: str) -> Row:
    """Return the row with a number or name.

    Raises:
        LookupError: there is none.
    """
    for row in ROWS:
        if word in {str(row.number), f"{row.number:02}", row.name}:
            return row
    raise LookupError(f"there is no row {word}; there are " + ", ".join(map(str, ROWS)))
