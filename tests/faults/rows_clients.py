"""Faults of viewers: some that do not read, and many that all come at once."""

import time
from typing import Any

from tests.faults.audience import Audience, Witness, deaf, the_page_keeps_the_rule
from tests.faults.trial import Case, must, soon, trial

DEAF = 200
QUERIES = 80  # a second; the result service asks at most every 16 ms, and some packets are no query


def slow_readers(case: Case) -> dict[str, object]:
    """Two hundred viewers that never read."""
    with trial(case) as now:
        plant = now.plant
        witness = Witness(plant)
        witness.start()
        memory = plant.memory("result")
        began = time.monotonic()
        with deaf(plant.result_port, DEAF):
            soon("they are let in", lambda: plant.metric("result", "voting_viewers ") > DEAF, 10)
            soon("they are cut", lambda: plant.metric("result", "voting_viewers_cut_total") >= DEAF, case.mark(20))
            now.notes["cut after s"] = round(time.monotonic() - began, 1)
            grown = plant.memory("result") - memory
        p99 = witness.stop()
        must(grown <= 20, f"result grew by {grown:.0f} MiB")
        must(
            p99 <= case.mark(0.5), f"the 99th percentile of other viewers was {p99:.2f} s of {len(witness.times)} votes"
        )
        now.notes |= {"grew MiB": round(grown, 1), "p99 of others ms": round(1000 * p99)}
    return now.notes


def stampede(case: Case) -> dict[str, object]:
    """The result service killed (-9) while thousands watch, who all come back."""
    viewers = int(case.short(500, 2000))
    must(the_page_keeps_the_rule(), "the page connects again by another rule than these viewers")
    with trial(case, cut_result=True) as now:
        plant, proxy = now.plant, now.plant.result_proxy
        alone = _rate(lambda: proxy.requests, 3)
        with Audience(plant.result_port, viewers, case.seed).watching() as audience:
            watched = _rate(lambda: proxy.requests, 3)
            plant.kill("result")
            soon("they are cut off", lambda: audience.open == 0, 10)
            audience.arrived.clear()
            plant.start("result")
            plant.wait_ready("result")
            asked, ready = proxy.requests, time.monotonic()
            soon("all are back", lambda: audience.open == viewers, case.mark(20))
            took = time.monotonic() - ready
            stormed = (proxy.requests - asked) / took
            times = sorted(audience.arrived)
        spread = times[int(0.95 * len(times))] - times[int(0.05 * len(times))]
        must(spread > 0.5, f"nine of ten viewers came within {spread:.2f} s: there is no jitter")
        rates = {"alone": alone, "watched": watched, "while they came": stormed}
        must(max(rates.values()) <= max(QUERIES, 1.5 * alone), f"queries a second depend on viewers: {rates}")
        now.notes |= {"viewers": viewers, "back after s": round(took, 1), "spread s": round(spread, 1)}
        now.notes["queries a second"] = {name: round(rate) for name, rate in rates.items()}
    return now.notes


def _rate(counter: Any, seconds: float) -> float:
    before = counter()
    time.sleep(seconds)  # this long is looked
    return float(counter() - before) / seconds
