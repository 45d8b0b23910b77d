"""One trial: a plant under load, a fault, and the promises checked when it is over."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.checker import Auditor, check, check_removed
from tests.faults.history import History
from tests.faults.load import Load
from tests.faults.plant import Plant
from tests.waiting import eventually

ENOUGH = 300  # accepted votes, below which a history proves nothing


class Broken(Exception):
    """A mark was missed, a fault did not happen, or promises were not kept: `violations` has a sentence for each."""

    def __init__(self, message: str, violations: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.violations = violations

    @classmethod
    def promises(cls, violations: list[str]) -> "Broken":
        """All that the checker found, told by promise: the number of cases, and the first."""
        numbers = Counter(each[0] for each in violations)
        first = {each[0]: each for each in reversed(violations)}
        told = [
            f"promise {first[number]}" + (f" ({times} such)" if times > 1 else "") for number, times in numbers.items()
        ]
        return cls("; ".join(told), tuple(violations))


@dataclass(frozen=True)
class Case:
    """How a row is run: where, with which dice, briefly or in full, with which build, and with which of its attacks."""

    folder: Path
    seed: int
    brief: bool = True
    source: Path | None = None
    attacks: tuple[str, ...] = ()  # all, if there are none

    def short(self, brief: float, full: float) -> float:
        """One or the other."""
        return brief if self.brief else full

    def mark(self, seconds: float) -> float:
        """A mark for a time: as it is in full; in brief, which has to be right on any busy machine, twice that."""
        return self.short(2 * seconds, seconds)


@dataclass
class Trial:
    """What a fault has in its hands."""

    case: Case
    plant: Plant
    history: History
    load: Load
    dead_letters: int = 0
    removed: int = 0  # entries that somebody other than a worker has removed
    notes: dict[str, Any] = field(default_factory=dict)

    def latencies(self, seconds: float) -> float:
        """The 99th percentile of accepted votes' times over the next seconds."""
        began = time.monotonic()
        time.sleep(seconds)  # this long is what the row asks for
        return self.latency(began)

    def latency(self, began: float) -> float:
        """The same since a moment."""
        times = sorted(a.ended - a.began for a in self.history.attempts if a.outcome == "ok" and a.began >= began)
        must(len(times) > 20, f"only {len(times)} votes were accepted in {time.monotonic() - began:.0f} s")
        return times[int(0.99 * len(times))]

    def goes_unnoticed(self, since: float, what: str) -> None:
        """Check that no vote was refused since a moment; in brief, hardly any: a busy machine alone holds up a few."""
        tried = [each for each in self.history.attempts if each.began >= since]
        refused = sum(each.outcome != "ok" for each in tried)
        must(refused <= self.case.short(0.02, 0) * len(tried), f"{refused} of {len(tried)} votes were refused {what}")


def must(condition: object, otherwise: str) -> None:
    """Raise Broken unless it holds."""
    if not condition:
        raise Broken(otherwise)


def soon(what: str, check: Callable[[], object], within: float, *, bound: bool = False) -> float:
    """Wait for an effect; return the seconds that it took, or raise Broken when time is up.

    `bound`: it is what the row is there for, so that a build without it is noticed.
    """
    began = time.monotonic()
    try:
        eventually(check, within=within)
    except AssertionError as late:
        message = f"{what}: not within {within:g} s ({late.__cause__ or 'no'})"
        raise Broken(message, (f"bound: {message}",) if bound else ()) from late
    return time.monotonic() - began


@contextlib.contextmanager
def trial(
    case: Case, *, drain: float = 10, attempts: int = ENOUGH, workers: int = 3, addresses: int = 1, **options: Any
) -> Iterator[Trial]:
    """Start a plant and a load; after the block let the load go on, stop it, wait for the drain, check all promises.

    Args:
        case: of the row.
        drain: seconds that draining may take.
        attempts: accepted votes that a history needs.
        workers: how many.
        addresses: how many the voters come from.
        options: of the plant.

    Raises:
        Broken: with every violation.
    """
    history = History(case.folder / "history.jsonl")
    with Plant(case.folder / "plant", workers=workers, source=case.source, **options).running() as plant:
        programs = options.get("BALLOT_POLICY") != "browser"
        load = Load(plant.vote_port, history, case.seed, addresses=addresses, programs=programs)
        auditor = Auditor(plant)
        now = Trial(case, plant, history, load)
        load.start()
        auditor.start()
        try:
            load.goes_on(50)
            yield now
            load.goes_on(max(50, attempts - history.count("ok")), within=60)
            load.stop()
            began = time.monotonic()
            drained = False
            with contextlib.suppress(AssertionError):
                drained = eventually(lambda: plant.waiting() == (0, 0), within=case.mark(drain))
            now.notes["drained s"] = round(time.monotonic() - began, 1)
        finally:
            load.stop()
            auditor.stop()
            history.close()
        now.notes |= {
            "accepted": history.count("ok"),
            "refused": history.count("refused"),
            "of these not certain": sum(attempt.counted == "unknown" for attempt in history.attempts),
            "unknown": history.count("unknown"),
        }
        violations = [] if drained else [f"5: not drained within {drain} s: {plant.waiting()}"]
        slowest = case.short(3, 2) + load.late
        violations += auditor.found
        violations += check_removed(plant, now.removed)
        violations += check(history, plant, attempts=attempts, dead_letters=now.dead_letters, slowest=slowest)
        if not auditor.looks:
            violations.append("3: the auditor never saw the database")
        if violations:
            raise Broken.promises(violations)
