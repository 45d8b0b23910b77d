"""Faults around the moment at which a poll closes."""

import contextlib
import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.faults.ballots import Ballot
from tests.faults.closing_faults import CLOCKS, FAULTS, PREPARED, late_news, nothing
from tests.faults.finals import Final, check_changes, check_published, check_votes, read_finals
from tests.faults.history import Attempt
from tests.faults.host import Host
from tests.faults.poll_votes import voting_in, wait_for_votes
from tests.faults.run import Run, RunConfig, expect_soon, run_under_load

VISITORS = 280  # who send 500 votes a second
VOTERS = 60  # in the default poll
AROUND = 0.3  # seconds before and after the closing, between which a fault begins
NOTICE = 2.0  # seconds from the last preparations to the closing
FINAL = 15.0  # seconds after the fault, in which the round has to be final
MOST = 20  # closings until a mutant is noticed; most are in the first or second
LONGEST = {"vote": 1.5, "worker": 7.0}  # seconds of a fault of these parts; of others 3
OVER = {"closed", "not_open"}  # reasons of refusals

LETTERS = "abcdefgh"
KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {  # as in ballots.py, with many choices
    "single": ({"options": [f"Option {n}" for n in range(20)]}, tuple("abcdefghijklmnopqrst")),
    "multiple": (
        {"options": [f"Option {n}" for n in range(8)], "max_choices": 3},
        tuple("".join(each) for size in (1, 2, 3) for each in itertools.combinations(LETTERS, size)),
    ),
    "rating": ({"scale": 10}, tuple(map(str, range(11)))),
    "ranking": (
        {"options": [f"Option {n}" for n in range(5)]},
        tuple("".join(each) for each in itertools.permutations(LETTERS[:5], 4)),
    ),
}
IS_FINAL = "SELECT 1 FROM closings WHERE poll = '{slug}' AND round = {round} AND final IS NOT NULL"
WAYS = ("closed by a host", "closed by the schedule", "reset while open", "closed, then reset")


@dataclass(frozen=True)
class PublicBallot(Ballot):
    """A round whose ballots are published."""

    @property
    def choices(self) -> tuple[str, ...]:
        return KINDS[self.kind][1]

    @property
    def fields(self) -> dict[str, Any]:
        more = {"slug": self.slug, "kind": self.kind, "question": f"The question of {self.slug}?", "publish": True}
        return KINDS[self.kind][0] | more


def closing(config: RunConfig) -> dict[str, object]:
    """Polls close under 500 votes a second while parts are killed, cut off or frozen, and clocks are stepped."""
    rng = random.Random(config.seed)  # noqa: S311 - has to be the same for the same seed
    options = {"proxy_broker": True, "proxy_workers": True, "proxy_database": True, "clocks": True}
    with (
        run_under_load(config, admin=True, votes=2, visitors=VISITORS, voters=VOTERS, **options) as run,
        Host(run.system) as host,
    ):
        number = config.repetitions or (MOST if config.source else int(config.brief_or_full(6, 50)))
        closings = _Closings(run, host, rng)
        faults = config.attacks or tuple(FAULTS)
        plan = zip(_in_turn(rng, faults), _in_turn(rng, WAYS), _in_turn(rng, tuple(KINDS)), strict=False)
        for turn, (fault, way, kind) in zip(range(number), plan, strict=False):
            closings.repeat(PublicBallot(f"closing-{turn}", kind), fault, way)
            if config.source and run.violations:
                break  # the mutant is noticed
        with run.load.paused():
            expect_soon("the stream is empty", lambda: run.system.backlog() == (0, 0), 20, is_violation=True)
        run.violations += check_changes(closings.finals, read_finals(run.system))
        run.notes |= closings.notes()
    return run.notes


def _in_turn(rng: random.Random, names: Sequence[str]) -> Iterator[str]:
    """Yield all names in a random order, again and again."""
    while True:
        yield from rng.sample(names, len(names))


class _Closings:
    """Closes one poll after another, and checks each when it is final."""

    def __init__(self, run: Run, host: Host, rng: random.Random) -> None:
        self._run, self._host, self._rng = run, host, rng
        self._late: Counter[int] = Counter()  # votes that each worker process has dropped
        self._rates: list[float] = []
        self._waits: list[float] = []
        self.finals: dict[str, Final] = {}

    def notes(self) -> dict[str, object]:
        """Return the figures of all closings."""
        return {
            "closings": len(self.finals),
            "votes a second": round(statistics.median(self._rates)),
            "final after s": round(max(self._waits), 1),
            "late votes dropped": self._late.total(),
        }

    def repeat(self, ballot: PublicBallot, fault: str, way: str) -> None:
        """Close one poll."""
        run, system, host = self._run, self._run.system, self._host
        host.create(ballot)
        host.open(ballot)
        began = time.monotonic()
        what = f"{ballot.box} ({ballot.kind}, {way}, {fault})"
        with voting_in(run, ballot):
            wait_for_votes(run, ballot, began, 2 * VISITORS, within=30)
            ((key,),) = system.rows(f"SELECT key FROM tracker_keys WHERE poll = '{ballot.slug}'")  # noqa: S608
            prepare = PREPARED.get(fault, nothing)
            with (
                ThreadPoolExecutor(1) as pool,
                late_news(run, self._rng, ballot, never=fault in PREPARED),
                prepare(run, self._rng),
            ):
                moment = time.monotonic() + NOTICE
                closed = pool.submit(self._close, ballot, way, moment)
                self._break(fault, moment)
                closed.result(60)
            over = time.monotonic()
            state = (
                f"SELECT 1 FROM closings WHERE poll = '{ballot.slug}' AND round = {ballot.round} AND final IS NOT NULL"  # noqa: S608
            )
            within = run.config.time_limit(FINAL)
            self._waits.append(expect_soon(f"{what} is final", lambda: system.rows(state), within, is_violation=True))
            final = time.monotonic()
            self.finals[ballot.box] = read_finals(system)[ballot.box]
            self._wait_refused(ballot, final)
            sent = [each for each in run.history.latest(moment - 1, ballot.box) if each.began < moment]
            self._rates.append(len(sent))
        found = check_votes(run.history, system, ballot, began) + check_published(system, ballot, key)
        found += self._check_refusals(ballot, way, moment, final)
        found += check_changes({ballot.box: self.finals[ballot.box]}, read_finals(system))
        run.violations += [f"{each}, {what}, {over - moment:.1f} s" for each in found]
        for worker in system.workers:
            late = system.metric(worker, "voting_votes_late_total")
            self._late[system.processes[worker].pid] = int(late)

    def _close(self, ballot: PublicBallot, way: str, moment: float) -> None:
        """Close a poll at a moment."""
        host = self._host
        if way == "closed by the schedule":
            closes_at = datetime.now(UTC) + timedelta(seconds=moment - time.monotonic())
            answer = host.ask("PATCH", f"/{ballot.slug}", {"closes_at": closes_at.isoformat()})
            assert answer.status == 200, answer
            return
        time.sleep(max(0.0, moment - time.monotonic()))
        if way != "reset while open":
            host.close(ballot)
        if way != "closed by a host":
            host.reset(ballot)

    def _break(self, fault: str, moment: float) -> None:
        """Inject a fault around the moment, and step clocks."""
        run, rng = self._run, self._rng
        longest = LONGEST.get(fault.partition(" ")[0], 3.0)
        begins = moment + rng.uniform(-AROUND, AROUND)
        ends = begins + (rng.uniform(0.1, 0.9) if rng.random() < 0.7 else rng.uniform(0.9, longest))
        parts = ["valkey", *run.system.votes, *run.system.workers]
        steps = sorted((rng.uniform(begins - 0.5, ends), rng.choice(parts), rng.choice(CLOCKS)) for _ in range(3))
        with contextlib.ExitStack() as broken:
            begun = False
            for at, part, ahead in [*steps, (ends, "", 0.0)]:
                if not begun and at >= begins:
                    time.sleep(max(0.0, begins - time.monotonic()))
                    broken.enter_context(FAULTS[fault](run, rng))
                    begun = True
                time.sleep(max(0.0, at - time.monotonic()))
                if part:
                    assert run.system.clocks
                    run.system.clocks.step(part, ahead)
        if fault == "vote frozen":
            run.frozen = max(run.frozen, ends - begins)

    def _wait_refused(self, ballot: PublicBallot, final: float) -> None:
        """Wait until each vote process has refused votes in a final round."""

        def refusals(number: int) -> list[Attempt]:
            latest = self._run.history.latest(final, ballot.box)
            return [each for each in latest if each.voter % len(ports) == number and each.reason in OVER]

        ports = self._run.system.votes
        for number, name in enumerate(ports):
            expect_soon(
                f"{name} refuses votes in {ballot.box}, which is final",
                lambda number=number: len(refusals(number)) >= 10,  # type: ignore[misc]
                15,
                is_violation=True,
            )

    def _check_refusals(self, ballot: PublicBallot, way: str, moment: float, final: float) -> Iterator[str]:
        """Check that no vote is accepted any more: in a final round, and by a process that has refused one.

        A process refuses by its own clock, too, when a scheduled poll closes; the clock may be set back.
        """
        attempts = [each for each in self._run.history.latest(moment, ballot.box) if each.began >= moment]
        for number, name in enumerate(self._run.system.votes):
            own = [each for each in attempts if each.voter % len(self._run.system.votes) == number]
            refused = min((each.ended for each in own if each.reason in OVER), default=final)
            end = final if way == "closed by the schedule" else min(refused, final)
            late = [each for each in own if each.outcome == "ok" and each.began > end]
            if late:
                yield f"8: {name} accepted {len(late)} votes in {ballot.box} after it was closed: {late[0]}"
