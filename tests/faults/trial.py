"""One trial: a plant under load, a fault, and the promises checked when it is over."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.checker import Auditor, check
from tests.faults.history import History
from tests.faults.load import Load
from tests.faults.plant import Plant
from tests.waiting import eventually

ENOUGH = 300  # accepted votes, below which a history proves nothing


class Broken(Exception):
    """A promise was not kept, or a fault did not happen; the message says which."""


@dataclass(frozen=True)
class Case:
    """How a row is run: where, with which dice, briefly or in full, and with which build."""

    folder: Path
    seed: int
    brief: bool = True
    source: Path | None = None

    def short(self, brief: float, full: float) -> float:
        """One or the other."""
        return brief if self.brief else full


@dataclass
class Trial:
    """What a fault has in its hands."""

    case: Case
    plant: Plant
    history: History
    load: Load
    dead_letters: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def latencies(self, seconds: float) -> float:
        """The 99th percentile of accepted votes' times over the next seconds."""
        began = time.monotonic()
        time.sleep(seconds)  # this long is what the row asks for
        times = sorted(a.ended - a.began for a in self.history.attempts if a.outcome == "ok" and a.began >= began)
        must(len(times) > 20, f"only {len(times)} votes were accepted in {seconds} s")
        return times[int(0.99 * len(times))]


def must(condition: object, otherwise: str) -> None:
    """Raise Broken unless it holds."""
    if not condition:
        raise Broken(otherwise)


@contextlib.contextmanager
def trial(
    case: Case, *, drain: float = 10, attempts: int = ENOUGH, workers: int = 3, rate: float = 250, **options: Any
) -> Iterator[Trial]:
    """Start a plant and a load; after the block let the load go on, stop it, wait for the drain, and check all promises.

    Args:
        case: of the row.
        drain: seconds that draining may take.
        attempts: accepted votes that a history needs.
        workers: how many.
        rate: votes a second.
        options: of the plant.

    Raises:
        Broken: with every violation.
    """
    history = History(case.folder / "history.jsonl")
    with Plant(case.folder / "plant", workers=workers, source=case.source, **options).running() as plant:
        load = Load(plant.vote_port, history, case.seed, rate=rate)
        auditor = Auditor(plant)
        now = Trial(case, plant, history, load)
        load.start()
        auditor.start()
        try:
            load.goes_on(50)
            yield now
            load.goes_on(50)
        finally:
            load.stop()
        began = time.monotonic()
        drained = False
        with contextlib.suppress(AssertionError):
            drained = eventually(lambda: plant.waiting() == (0, 0), within=drain)
        now.notes["drained s"] = round(time.monotonic() - began, 1)
        auditor.stop()
        history.close()
        now.notes |= {
            "accepted": history.count("ok"),
            "refused": history.count("refused"),
            "unknown": history.count("unknown"),
        }
        violations = [] if drained else [f"5: not drained within {drain} s: {plant.waiting()}"]
        violations += auditor.found[:3] + check(history, plant, attempts=attempts, dead_letters=now.dead_letters)
        if not auditor.looks:
            violations.append("the auditor never saw the database")
        if violations:
            raise Broken(
                "; ".join(violations[:6]) + (f"; and {len(violations) - 6} more" if len(violations) > 6 else "")
            )
