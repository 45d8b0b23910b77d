"""The whole system restarted part by part, and killed at once."""

import time

from tests.faults.rows_workers import holds
from tests.faults.run import RunConfig, expect, run_under_load
from tests.faults.system import STORES, SystemUnderTest


def rolling_restart(config: RunConfig) -> dict[str, object]:
    """Each process, and the database, in turn stopped and started again under load."""
    with run_under_load(config, admin=True) as run:
        system = run.system
        for _ in range(int(config.brief_or_full(1, 3))):
            for name in (*system.workers, "result", "admin", "postgres"):
                began = time.monotonic()
                _stop(run.system, name, config.time_limit(10))
                if name in system.workers:
                    expect(not holds(system, name), f"{name} left entries pending")
                system.start(name)
                system.wait_ready(name)
                run.load.wait_for_votes(50)
                run.expect_no_refusals(began, f"while {name} was restarted")
            began = time.monotonic()
            _stop(system, "vote", config.time_limit(10))
            system.start("vote")
            system.wait_ready("vote")
            back = time.monotonic()
            run.expect_accepted_soon(back, config.time_limit(2))
            run.notes["vote was away s"] = round(back - began, 1)
            again = time.monotonic()
            run.load.wait_for_votes(100)
            run.expect_no_refusals(again, "after vote was back")
    return run.notes


def everything_killed(config: RunConfig) -> dict[str, object]:
    """Everything killed (-9) at once, again and again, and started again all at once."""
    with run_under_load(config, drain=30, admin=True) as run:
        system = run.system
        run.frozen = config.brief_or_full(2, 0)  # a vote process takes connections some time before it can answer
        for _ in range(int(config.brief_or_full(2, 5))):
            system.kill(*STORES, *system.services)
            killed = time.monotonic()
            system.start(*STORES, *system.services)
            system.wait_ready(*STORES, *system.services, within=config.time_limit(30))
            run.notes["ready again s"] = round(time.monotonic() - killed, 1)
            run.load.wait_for_votes(100)
    return run.notes


def _stop(system: SystemUnderTest, name: str, within: float) -> None:
    began = time.monotonic()
    code = system.stop(name, wait=within + 10)
    took = time.monotonic() - began
    expect(code == 0, f"{name} ended with {code}")
    expect(took <= within, f"{name} took {took:.1f} s to stop")
