"""Faults of workers: killed at random and at failpoints, stopped and resumed; bad or reordered entries."""

import contextlib
import json
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

from tests.faults.run import RowFailed, Run, RunConfig, expect, expect_soon, run_under_load
from tests.faults.system import RECLAIM, SystemUnderTest

FAILPOINTS = ("after_read", "in_transaction", "after_commit", "after_acknowledging")
HELD_VOTES = 50  # votes that a worker has read and not counted when it fails
LEAVE_PENDING = FAILPOINTS[:3]  # failpoints at which a worker leaves entries pending


def holds(system: SystemUnderTest, worker: str) -> int:
    """Return how many entries a worker has read and not acknowledged."""
    with system.broker() as broker:
        held = broker.xpending("votes", "workers")["consumers"]
    return next((each["pending"] for each in held if each["name"] == worker.encode()), 0)


@contextlib.contextmanager
def _failing_worker(run: Run, failpoint: str) -> Iterator[None]:
    """Start a worker that fails at a failpoint; the others are stopped meanwhile, so that it has read many votes."""
    others = run.system.workers[1:]
    run.system.signal(signal.SIGSTOP, *others)
    run.load.wait_for_votes(2 * HELD_VOTES)
    run.system.start("worker-1", failpoint=failpoint)
    yield
    run.system.signal(signal.SIGCONT, *others)


def worker_killed(config: RunConfig) -> dict[str, object]:
    """A worker killed (-9) at exact points and at random.

    Acknowledging and deleting are one MULTI, so there is no failpoint between them.
    """
    rng = random.Random(config.seed)  # noqa: S311 - has to be the same for the same seed
    with run_under_load(config, drain=RECLAIM + 5) as run:
        system = run.system
        system.kill("worker-1")
        for _ in range(int(config.brief_or_full(1, 5))):
            for failpoint in FAILPOINTS:
                with _failing_worker(run, failpoint):
                    expect_soon(
                        f"a worker dies {failpoint}", lambda: system.processes["worker-1"].poll() is not None, 30
                    )
                died = system.processes["worker-1"].returncode
                expect(
                    died == -signal.SIGKILL,
                    f"the worker ended with {died}, not {failpoint}: {system.log('worker-1')[-500:]}",
                )
                if failpoint in LEAVE_PENDING and rng.random() < 0.5:  # others claim them before it is started again
                    expect_soon(
                        "the dead worker's entries are claimed",
                        lambda: not holds(system, "worker-1"),
                        config.time_limit(RECLAIM + 5),
                    )
        system.start("worker-1")
        for _ in range(int(config.brief_or_full(3, 20))):
            name = rng.choice(system.workers)
            time.sleep(rng.random())  # a random moment
            system.kill(name)
            system.start(name)
            system.wait_ready(name)
        system.kill("worker-1")  # and the last one stays dead
        run.load.wait_for_votes()
    return run.notes


TABLES = (
    "SELECT poll, voter, choice, entry_ms, entry_seq FROM votes ORDER BY 1, 2",
    "SELECT poll, choice, votes FROM tallies ORDER BY 1, 2",
    "SELECT slug, revision, entry_ms, entry_seq FROM polls ORDER BY 1",
)


def delivered_twice(config: RunConfig) -> dict[str, object]:
    """Entries are taken from workers that are still at it, then all delivered three times more: no table changes."""
    with run_under_load(
        config, RECLAIM_SECONDS="0.0004", BATCH_SIZE="50"
    ) as run:  # so workers claim what others have just read
        system = run.system
        run.load.wait_for_votes(int(config.brief_or_full(300, 3000)))
        expect_soon(
            "entries are claimed", lambda: any("entries.claimed" in system.log(name) for name in system.workers), 30
        )
        for name in system.workers:
            expect(system.stop(name, wait=10) == 0, f"{name} did not stop cleanly")
        system.start(*system.workers, failpoint="never_acknowledges", RECLAIM_SECONDS="3600")
        system.wait_ready(*system.workers)
        run.load.wait_for_votes(int(config.brief_or_full(600, 3000)))
        with run.load.paused():
            entries = system.backlog()[0]
            expect(entries > 300, f"only {entries} entries to deliver again")
            expect_soon("all is counted", lambda: _processed(system) >= entries, 30)
            before = [system.rows(table) for table in TABLES]
            for turn in range(2, 5):
                with system.broker() as broker:
                    broker.xgroup_setid("votes", "workers", "0")
                expect_soon("all is delivered again", lambda turn=turn: _processed(system) >= turn * entries, 30)  # type: ignore[misc]
                after = [system.rows(table) for table in TABLES]
                if after != before:
                    changed = sum(one != other for one, other in zip(before[0], after[0], strict=True))
                    violation = f"2: delivery {turn} changed {changed} votes, and to {after[1:]} what was {before[1:]}"
                    raise RowFailed.from_violations([violation] * max(1, changed))
        system.kill(*system.workers)
        system.start(*system.workers, RECLAIM_SECONDS=str(RECLAIM))
        system.wait_ready(*system.workers)
        run.notes["delivered four times"] = entries
    return run.notes


def _processed(system: SystemUnderTest) -> float:
    return sum(system.metric(name, "voting_entries_processed_total") for name in system.workers)


def reordered(config: RunConfig) -> dict[str, object]:
    """Revotes in batches shuffled over four workers: hypothesis looks for an order in which the newest does not win."""
    cases = 100 if config.source else int(config.brief_or_full(500, 2000))  # a mutant fails sooner
    with SystemUnderTest(config.folder / "system", source=config.source).running(services=False) as system:
        command = ("tests.faults.reordering", system.redis_url, system.database_url, str(config.seed), str(cases))
        found = system.run(*command, within=config.brief_or_full(120, 600))
    result: dict[str, Any] = json.loads(found.splitlines()[-1])  # log lines come before it
    if result["violations"]:
        raise RowFailed.from_violations(result["violations"])
    expect(result["cases"] >= cases, f"only {result['cases']} cases were tried")
    return {"cases": result["cases"], "accepted": result["votes"]}


def malformed(config: RunConfig) -> dict[str, object]:
    """A thousand malformed entries among good ones."""
    bad: list[dict[str | bytes, str | bytes]] = [
        {"poll": "default", "choice": "a"},
        {b"\xff\xfe": b"\0"},
        {"poll": "nowhere", "voter": b"v" * 16, "choice": "a"},
        {"poll": "default", "voter": b"v" * 16, "choice": "z"},
        {"poll": "default", "voter": b"v" * 16, "choice": b"\0"},
        {"poll": b"\0", "voter": b"v" * 16, "choice": b"\xff"},
        {"poll": "default", "voter": b"v" * 15, "choice": "a"},
        {"poll": "default", "voter": b"v" * 50_000, "choice": "a"},
        {"poll": "default", "voter": "", "choice": "a', 'b'); DROP TABLE votes; --"},
        {"vote": '{"voter_id": "1", "vote": "a"}'},
    ]
    with run_under_load(config) as run:
        before = run.system.pids()
        added = set()
        with run.system.broker() as broker:
            for number in range(1000):
                added.add(broker.xadd("votes", bad[number % len(bad)]).decode())
                if number % 100 == 0:
                    run.load.wait_for_votes(20)
        run.dead_letters = len(added)
        expect_soon("all malformed entries are put aside", lambda: _dead_letters(run) == added, 20)
        expect(run.system.pids() == before, "a service was restarted")
    return run.notes | {"malformed": len(added)}


def _dead_letters(run: Run) -> set[str]:
    return {f"{ms}-{seq}" for ms, seq in run.system.rows("SELECT entry_ms, entry_seq FROM dead_letters")}


def zombie(config: RunConfig) -> dict[str, object]:
    """A worker stopped (SIGSTOP) after it has read votes; others count these and newer ones; then it continues."""
    with run_under_load(config) as run:
        system = run.system
        for _ in range(int(config.brief_or_full(2, 3))):
            expect(system.stop("worker-1", wait=10) == 0, "the worker did not stop cleanly")
            with _failing_worker(run, "stops_after_read"):
                expect_soon("the worker stops", lambda: system.is_stopped("worker-1"), 30)
            stopped = time.monotonic()
            held = holds(system, "worker-1")
            expect(held >= HELD_VOTES, f"the stopped worker holds {held} entries")
            expect_soon(
                "its entries are claimed", lambda: not holds(system, "worker-1"), config.time_limit(RECLAIM + 5)
            )
            run.load.wait_for_votes(200)
            time.sleep(max(0.0, stopped + config.brief_or_full(5, 30) - time.monotonic()))  # the length of the fault
            system.signal(signal.SIGCONT, "worker-1")
            expect_soon(
                "the worker goes on", lambda: not system.is_stopped("worker-1") and system.is_ready("worker-1"), 20
            )
            run.load.wait_for_votes(50)
            expect(system.stop("worker-1", wait=10) == 0, "the worker did not stop cleanly")
            system.start("worker-1")
            system.wait_ready("worker-1")
            run.notes["held"] = held
    return run.notes
