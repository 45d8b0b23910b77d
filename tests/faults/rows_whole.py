"""Faults of the whole: restarted part by part, and killed all at once."""

import time

from tests.faults.plant import STORES, Plant
from tests.faults.rows_workers import holds
from tests.faults.trial import Case, must, soon, trial


def rolling_restart(case: Case) -> dict[str, object]:
    """Each process in turn is told to stop, and started again, under load; the database, too."""
    with trial(case) as now:
        plant = now.plant
        for _ in range(int(case.short(1, 3))):
            for name in (*plant.workers, "result", "postgres"):
                began = time.monotonic()
                _stop(now.plant, name, case.mark(10))
                if name in plant.workers:
                    must(not holds(plant, name), f"{name} left entries pending")
                plant.start(name)
                plant.wait_ready(name)
                now.load.goes_on(50)
                now.goes_unnoticed(began, f"while {name} was restarted")
            began = time.monotonic()
            _stop(plant, "vote", case.mark(10))
            plant.start("vote")
            plant.wait_ready("vote")
            back = time.monotonic()
            soon("votes are accepted again", lambda back=back: now.history.count("ok", back), case.mark(2))  # type: ignore[misc]
            now.notes["vote was away s"] = round(back - began, 1)
            again = time.monotonic()
            now.load.goes_on(100)
            now.goes_unnoticed(again, "after vote was back")
    return now.notes


def everything_killed(case: Case) -> dict[str, object]:
    """Everything killed (-9) at once, again and again, and started again all at once."""
    with trial(case, drain=30) as now:
        plant = now.plant
        for _ in range(int(case.short(2, 5))):
            plant.kill(*STORES, *plant.services)
            killed = time.monotonic()
            plant.start(*STORES, *plant.services)
            plant.wait_ready(*STORES, *plant.services, within=case.mark(30))
            now.notes["ready again s"] = round(time.monotonic() - killed, 1)
            now.load.goes_on(100)
    return now.notes


def _stop(plant: Plant, name: str, within: float) -> None:
    began = time.monotonic()
    code = plant.stop(name, wait=within + 10)
    took = time.monotonic() - began
    must(code == 0, f"{name} ended with {code}")
    must(took <= within, f"{name} took {took:.1f} s to stop")
