"""Faults of workers: killed at random and at exact points, stopped and woken, fed twice, with rubbish, in disorder."""

import contextlib
import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.plant import RECLAIM, Plant
from tests.faults.trial import Broken, Case, Trial, must, soon, trial

POINTS = ("after_read", "in_transaction", "after_commit", "after_acknowledging")
HAND = 50  # votes that a worker has in its hands when it fails
HOLDING = POINTS[:3]  # those at which a worker leaves entries pending


def holds(plant: Plant, worker: str) -> int:
    """How many entries a worker has read and not acknowledged."""
    with plant.broker() as broker:
        held = broker.xpending("votes", "workers")["consumers"]
    return next((each["pending"] for each in held if each["name"] == worker.encode()), 0)


@contextlib.contextmanager
def _full_hand(now: Trial, point: str) -> Iterator[None]:
    """Start a worker that fails at a point; the others sleep meanwhile, so that it has many votes in its hands."""
    others = now.plant.workers[1:]
    now.plant.signal(signal.SIGSTOP, *others)
    now.load.goes_on(2 * HAND)
    now.plant.start("worker-1", point=point)
    yield
    now.plant.signal(signal.SIGCONT, *others)


def worker_killed(case: Case) -> dict[str, object]:
    """A worker killed (-9) at exact points and at random.

    Acknowledging and deleting are one MULTI, so the last point is after both: between them is no point.
    """
    dice = random.Random(case.seed)  # noqa: S311 - has to be the same for the same seed
    with trial(case, drain=RECLAIM + 5) as now:
        plant = now.plant
        plant.kill("worker-1")
        for _ in range(int(case.short(1, 5))):
            for point in POINTS:
                with _full_hand(now, point):
                    soon(f"a worker dies {point}", lambda: plant.processes["worker-1"].poll() is not None, 30)
                died = plant.processes["worker-1"].returncode
                must(
                    died == -signal.SIGKILL,
                    f"the worker ended with {died}, not {point}: {plant.log('worker-1')[-500:]}",
                )
                if point in HOLDING and dice.random() < 0.5:  # taken over by others, and not by itself
                    soon(
                        "the dead worker's entries are claimed",
                        lambda: not holds(plant, "worker-1"),
                        case.mark(RECLAIM + 5),
                    )
        plant.start("worker-1")
        for _ in range(int(case.short(3, 20))):
            name = dice.choice(plant.workers)
            time.sleep(dice.random())  # the moment is the dice's
            plant.kill(name)
            plant.start(name)
            plant.wait_ready(name)
        plant.kill("worker-1")  # and the last one stays dead
        now.load.goes_on()
    return now.notes


TABLES = (
    "SELECT poll, voter, choice, entry_ms, entry_seq FROM votes ORDER BY 1, 2",
    "SELECT poll, choice, votes FROM tallies ORDER BY 1, 2",
    "SELECT slug, revision, entry_ms, entry_seq FROM polls ORDER BY 1",
)


def delivered_twice(case: Case) -> dict[str, object]:
    """Entries are taken from workers that are still at it, then all delivered three times more: no table changes."""
    with trial(case, RECLAIM_SECONDS="0.0004", BATCH_SIZE="50") as now:  # claims what others hold, however lately
        plant = now.plant
        now.load.goes_on(int(case.short(300, 3000)))
        soon("entries are claimed", lambda: any("entries.claimed" in plant.log(name) for name in plant.workers), 30)
        for name in plant.workers:
            must(plant.stop(name, wait=10) == 0, f"{name} did not stop well")
        plant.start(*plant.workers, point="never_acknowledges", RECLAIM_SECONDS="3600")
        plant.wait_ready(*plant.workers)
        now.load.goes_on(int(case.short(600, 3000)))
        with now.load.held():
            entries = plant.waiting()[0]
            must(entries > 300, f"only {entries} entries to deliver again")
            soon("all is counted", lambda: _dealt_with(plant) >= entries, 30)
            before = [plant.rows(table) for table in TABLES]
            for turn in range(2, 5):
                with plant.broker() as broker:
                    broker.xgroup_setid("votes", "workers", "0")
                soon("all is delivered again", lambda turn=turn: _dealt_with(plant) >= turn * entries, 30)  # type: ignore[misc]
                after = [plant.rows(table) for table in TABLES]
                if after != before:
                    changed = sum(one != other for one, other in zip(before[0], after[0], strict=True))
                    told = f"2: delivery {turn} changed {changed} votes, and to {after[1:]} what was {before[1:]}"
                    raise Broken.promises([told] * max(1, changed))
        plant.kill(*plant.workers)
        plant.start(*plant.workers, RECLAIM_SECONDS=str(RECLAIM))
        plant.wait_ready(*plant.workers)
        now.notes["delivered four times"] = entries
    return now.notes


def _dealt_with(plant: Plant) -> float:
    return sum(plant.metric(name, "voting_entries_processed_total") for name in plant.workers)


def reordered(case: Case) -> dict[str, object]:
    """Revotes in batches shuffled over four workers: hypothesis looks for an order in which the newest does not win."""
    cases = int(case.short(500, 2000))
    with Plant(case.folder / "plant", source=case.source).running(services=False) as plant:
        command = ("tests.faults.reordering", plant.redis_url, plant.database_url, str(case.seed), str(cases))
        found = plant.run(*command, within=case.short(120, 600))
    result: dict[str, Any] = json.loads(found.splitlines()[-1])  # above it are log lines
    if result["violations"]:
        raise Broken.promises(result["violations"])
    must(result["cases"] >= cases, f"only {result['cases']} cases were tried")
    return {"cases": result["cases"], "accepted": result["votes"]}


def malformed(case: Case) -> dict[str, object]:
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
    with trial(case) as now:
        before = now.plant.pids()
        added = set()
        with now.plant.broker() as broker:
            for number in range(1000):
                added.add(broker.xadd("votes", bad[number % len(bad)]).decode())
                if number % 100 == 0:
                    now.load.goes_on(20)
        now.dead_letters = len(added)
        soon("all malformed entries are put aside", lambda: _buried(now) == added, 20)
        must(now.plant.pids() == before, "a process of ours was restarted")
    return now.notes | {"malformed": len(added)}


def _buried(now: Trial) -> set[str]:
    return {f"{ms}-{seq}" for ms, seq in now.plant.rows("SELECT entry_ms, entry_seq FROM dead_letters")}


def zombie(case: Case) -> dict[str, object]:
    """A worker stopped (SIGSTOP) with votes in its hands; others count these and newer ones; then it wakes up."""
    with trial(case) as now:
        plant = now.plant
        for _ in range(int(case.short(2, 3))):
            must(plant.stop("worker-1", wait=10) == 0, "the worker did not stop well")
            with _full_hand(now, "stops_after_read"):
                soon("the worker stops", lambda: _is_stopped(plant, "worker-1"), 30)
            stopped = time.monotonic()
            held = holds(plant, "worker-1")
            must(held >= HAND, f"the stopped worker holds {held} entries")
            soon("its entries are claimed", lambda: not holds(plant, "worker-1"), case.mark(RECLAIM + 5))
            now.load.goes_on(200)
            time.sleep(max(0.0, stopped + case.short(5, 30) - time.monotonic()))  # the row's own length
            plant.signal(signal.SIGCONT, "worker-1")
            soon("the worker goes on", lambda: not _is_stopped(plant, "worker-1") and plant.is_ready("worker-1"), 20)
            now.load.goes_on(50)
            must(plant.stop("worker-1", wait=10) == 0, "the worker did not stop well")
            plant.start("worker-1")
            plant.wait_ready("worker-1")
            now.notes["held"] = held
    return now.notes


def _is_stopped(plant: Plant, name: str) -> bool:
    stat = Path(f"/proc/{plant.processes[name].pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"
