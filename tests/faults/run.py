"""Run a fault: a system under load, the fault, and the check of all promises when it is over."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.checker import Auditor, check, check_removed
from tests.faults.finals import check_finals
from tests.faults.history import History
from tests.faults.load_generator import RATE, VOTERS, LoadGenerator
from tests.faults.system import SystemUnderTest
from tests.waiting import eventually

MIN_ACCEPTED = 300  # votes; a history with fewer proves nothing


class RowFailed(Exception):
    """A threshold was missed, the fault did not happen, or promises were broken: `violations` has a line for each."""

    def __init__(self, message: str, violations: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.violations = violations

    @classmethod
    def from_violations(cls, violations: list[str]) -> "RowFailed":
        """Summarise what the checker found: for each promise the first violation and their number."""
        numbers = Counter(each[0] for each in violations)
        first = {each[0]: each for each in reversed(violations)}
        lines = [
            ("" if number == "b" else "promise ") + first[number] + (f" ({times} such)" if times > 1 else "")
            for number, times in numbers.items()
        ]
        return cls("; ".join(lines), tuple(violations))


@dataclass(frozen=True)
class RunConfig:
    """How a row is run.

    Args:
        folder: for the system's data and the history.
        seed: of all random numbers.
        brief: as in CI: short, with time limits that hold on a busy machine.
        source: another `src` than ours, for mutants.
        attacks: names of the attacks to run, or of the faults of a row that has several; all if empty.
        repetitions: of a row that repeats its fault; 0 for its own number.
    """

    folder: Path
    seed: int
    brief: bool = True
    source: Path | None = None
    attacks: tuple[str, ...] = ()
    repetitions: int = 0

    def brief_or_full(self, brief: float, full: float) -> float:
        """Return the value for this length of run."""
        return brief if self.brief else full

    def time_limit(self, seconds: float) -> float:
        """Return a time limit in seconds, doubled in a brief run."""
        return self.brief_or_full(2 * seconds, seconds)


@dataclass
class Run:
    """A row that is running."""

    config: RunConfig
    system: SystemUnderTest
    history: History
    load: LoadGenerator
    dead_letters: int = 0  # expected
    frozen: float = 0  # seconds for which the row stops a vote process, which cannot answer then
    removed: int = 0  # entries deleted from the stream by others than workers, expected
    deleted: set[str] = field(default_factory=set)  # slugs of polls that the row has deleted
    violations: list[str] = field(default_factory=list)  # of what the row promises besides, each after "bound: "
    notes: dict[str, Any] = field(default_factory=dict)

    def require(self, condition: object, otherwise: str) -> None:
        """Add a violation of what the row itself promises, unless the condition holds."""
        if not condition:
            self.violations.append(f"bound: {otherwise}")

    def measure_p99(self, seconds: float) -> float:
        """Return the 99th percentile, in seconds, of the times of votes accepted during the next seconds."""
        began = time.monotonic()
        time.sleep(seconds)  # the time over which is measured
        return self.p99_since(began)

    def p99_since(self, began: float) -> float:
        """Return the 99th percentile, in seconds, of the times of accepted votes sent since a moment."""
        times = sorted(a.ended - a.began for a in self.history.attempts if a.outcome == "ok" and a.began >= began)
        expect(len(times) > 20, f"only {len(times)} votes were accepted in {time.monotonic() - began:.0f} s")
        return times[int(0.99 * len(times))]

    def expect_no_refusals(self, since: float, what: str) -> None:
        """Check that no vote was refused since a moment; a brief run allows the 2 % that a busy machine causes."""
        tried = [each for each in self.history.attempts if each.began >= since]
        refused = sum(each.outcome != "ok" for each in tried)
        allowed = self.config.brief_or_full(0.02, 0) * len(tried)
        self.require(refused <= allowed, f"{refused} of {len(tried)} votes were refused {what}")

    def expect_accepted_soon(self, since: float, within: float) -> None:
        """Wait until a vote was accepted after a moment."""
        expect_soon("votes are accepted again", lambda: self.history.count("ok", since), within)

    def expect_refused_soon(self, since: float, within: float, number: int = 1) -> None:
        """Wait until a number of votes were refused after a moment."""
        expect_soon("votes are refused", lambda: self.history.count("refused", since) >= number, within)


def expect(condition: object, otherwise: str) -> None:
    """Raise RowFailed with the message `otherwise` unless the condition holds."""
    if not condition:
        raise RowFailed(otherwise)


def expect_soon(what: str, check: Callable[[], object], within: float, *, is_violation: bool = False) -> float:
    """Wait until `check` returns something true; return the seconds that it took.

    Args:
        what: is expected, for the message.
        check: is called again and again.
        within: seconds.
        is_violation: the row tests this effect itself, so a mutant without it counts as noticed.

    Raises:
        RowFailed: the time is up.
    """
    began = time.monotonic()
    try:
        eventually(check, within=within)
    except AssertionError as late:
        message = f"{what}: not within {within:g} s ({late.__cause__ or 'no'})"
        raise RowFailed(message, (f"bound: {message}",) if is_violation else ()) from late
    return time.monotonic() - began


@contextlib.contextmanager
def run_under_load(
    config: RunConfig,
    *,
    drain: float = 10,
    attempts: int = MIN_ACCEPTED,
    workers: int = 3,
    addresses: int = 1,
    visitors: int = 0,
    voters: int = VOTERS,
    **options: Any,
) -> Iterator[Run]:
    """Start a system and a load; after the block wait until the stream is drained, and check all promises.

    Args:
        config: of the row.
        drain: seconds that draining may take.
        attempts: accepted votes that the history needs; the load goes on until it has them.
        workers: how many.
        addresses: how many the voters come from.
        visitors: how many vote in other polls.
        voters: how many vote in the default poll, each as often as by default.
        options: of SystemUnderTest.

    Raises:
        RowFailed: with every violation.
    """
    history = History(config.folder / "history.jsonl")
    with SystemUnderTest(
        config.folder / "system", workers=workers, source=config.source, **options
    ).running() as system:
        programs = options.get("BALLOT_POLICY") != "browser"
        more: dict[str, Any] = {"addresses": addresses, "programs": programs, "visitors": visitors}
        more |= {"voters": voters, "rate": voters * RATE / VOTERS}
        load = LoadGenerator(system.vote_ports, history, config.seed, **more)
        auditor = Auditor(system)
        run = Run(config, system, history, load)
        load.start()
        auditor.start()
        try:
            load.wait_for_votes(50)
            yield run
            load.wait_for_votes(max(50, attempts - history.count("ok")), within=60)
            load.stop()
            began = time.monotonic()
            drained = False
            with contextlib.suppress(AssertionError):
                drained = eventually(lambda: system.backlog() == (0, 0), within=config.time_limit(drain))
            run.notes["drained s"] = round(time.monotonic() - began, 1)
        finally:
            load.stop()
            auditor.stop()
            history.close()
        run.notes |= {
            "accepted": history.count("ok"),
            "refused": history.count("refused"),
            "of these not certain": sum(attempt.counted == "unknown" for attempt in history.attempts),
            "unknown": history.count("unknown"),
        }
        violations = run.violations
        if not drained:
            violations.append(f"5: not drained within {drain} s: {system.backlog()}")
        slowest = config.brief_or_full(3, 2) + load.worst_delay + run.frozen
        violations += auditor.violations
        violations += check_removed(system, run.removed)
        violations += check_finals(system, within=config.time_limit(drain))
        violations += check(
            history,
            system,
            attempts=attempts,
            dead_letters=run.dead_letters,
            slowest=slowest,
            deleted=run.deleted,
        )
        if not auditor.checks:
            violations.append("3: the auditor never saw the database")
        if violations:
            raise RowFailed.from_violations(violations)
